"""From the words of a command line to the options of a subcommand."""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from fawkes_jax import version
from fawkes_jax.cli import generate, places, solver
from fawkes_jax.cli import parser as parsers
from fawkes_jax.cli.subcommands import COMMANDS, Command
from fawkes_jax.options import declared


def parser(commands: Sequence[Command] = COMMANDS) -> parsers.Parser:
  """The parser of all subcommands."""
  whole = parsers.Parser(
    prog="fawkes-jax",
    description="Protects people's photographs from unauthorised face"
    " recognition: fawkes-jax cloak PHOTOS CLOAKED",
  )
  whole.add_argument("--version", action="version", version=version.__version__)
  _add(whole, commands, dest="command")
  return whole


def _add(
  parser: parsers.Parser, commands: Sequence[Command], *, dest: str
) -> None:
  """Adds subcommands to a parser."""
  added = parser.add_subparsers(dest=dest, required=True)
  for command in commands:
    one = added.add_parser(
      command.name,
      usage=_usage(command),
      help=command.help,
      description=command.description,
    )
    one.set_defaults(chosen=command)
    if command.places:
      places.add(one)
    if command.actions:
      _add(one, command.actions, dest="action")
    if command.options is not None:
      _add_options(one, command.options, required=not command.places)


def _usage(command: Command) -> str | None:
  """The line of usage, where argparse cannot tell it."""
  if not command.places:
    return None
  inputs = "IN ..." if command.needs_input else "[IN ...]"
  return f"fawkes-jax {command.name} [flags] {inputs} OUT"


def _add_options(
  parser: parsers.Parser, kind: type[declared.Options], *, required: bool
) -> None:
  """Adds the flags of options."""
  for field, option in generate.declarations(kind):
    if not option.hidden:
      generate.add_flag(parser, kind, field, required=required)
    elif field.name == "solver":
      solver.add_mode(parser)
  solver.add(parser, kind)


def parse(
  words: Sequence[str], commands: Sequence[Command] = COMMANDS
) -> argparse.Namespace:
  """Reads a command line; says what is wrong with it, and exits.

  Args:
    words: without the program's name.
    commands: that there are.

  Returns:
    The values of flags by the names of options; `chosen` is the command.
  """
  arguments, used, rest = parser(commands).read(words)
  command = arguments.chosen
  if command.places and not any(word[0] == "-" for word in rest if word):
    # Those that follow a flag are among the rest.
    arguments.places += rest
    places.take(arguments, used, input_needed=command.needs_input)
  elif rest:
    used.error(f"unrecognized arguments: {' '.join(rest)}")
  for name, value in vars(arguments).items():
    setattr(arguments, name, parsers.expanded(value))
  return arguments


def options_of(arguments: argparse.Namespace) -> Any:
  """The options that a command line says.

  Raises:
    OptionError: a value breaks its rule.
  """
  given = dict(vars(arguments))
  kind = given["chosen"].options
  solver.take(given, kind)
  names = {field.name for field in dataclasses.fields(kind)}
  # Hidden ones have no flag.
  return kind(**{name: given[name] for name in names & given.keys()})
