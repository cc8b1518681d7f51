"""The subcommands: what each is for, and the options that it has."""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from fawkes_jax import options, version
from fawkes_jax.cli import generate, places, solver
from fawkes_jax.cli import parser as parsers
from fawkes_jax.options import declared


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
  """A subcommand; `fawkes_jax.commands.NAME.run` takes its options.

  Attributes:
    name: as it is typed.
    help: what it does, in the list of all subcommands.
    description: above its flags.
    options: its options; None where it has actions.
    actions: its own subcommands, such as `weights list`.
    places: whether its folders need no flags, as in `fawkes-jax cloak IN OUT`.
    goes_on: whether it keeps what it has done when it is interrupted.
  """

  name: str
  help: str
  description: str
  options: type[declared.Options] | None = None
  actions: tuple["Command", ...] = ()
  places: bool = False
  goes_on: bool = False


COMMANDS = (
  Command(
    name="cloak",
    help="cloak every face in a folder of photos",
    description="Writes the same tree of photos with every face cloaked, and"
    " OUTPUT/manifest.jsonl with a row for each file. Run again, it continues"
    " where it stopped.",
    options=options.CloakOptions,
    places=True,
    goes_on=True,
  ),
  Command(
    name="status",
    help="say how far cloak is",
    description="Counts the outcomes in OUTPUT/manifest.jsonl and says how fast"
    " photos are done; with --input also how many are left. Works while `cloak`"
    " is running, and writes nothing.",
    options=options.StatusOptions,
    places=True,
  ),
  Command(
    name="verify",
    help="look whether the results of cloak are whole",
    description="Reads every result again and compares it with"
    " OUTPUT/manifest.jsonl; with --input also whether every photo has an"
    " outcome and is what it was. Names each file that is missing or altered;"
    " the exit code is 1 if there is one. Writes nothing.",
    options=options.VerifyOptions,
    places=True,
  ),
  Command(
    name="bank",
    help="compute a bank of target identities",
    description="Computes the mean embedding of each identity of a folder with"
    " one sub-folder of photos for each.",
    options=options.BankOptions,
  ),
  Command(
    name="train",
    help="train a small extractor of one's own",
    description="Teaches a small network the embeddings of other extractors,"
    " identities, or both, and writes its weights and a model card to OUTPUT."
    " Run again, it continues where it stopped.",
    options=options.TrainOptions,
    goes_on=True,
  ),
  Command(
    name="evaluate",
    help="measure what cloaks protect against",
    description="Cloaks photos of some of the people of a folder, lets trackers"
    " in their own runtimes train on them, and writes to OUTPUT how often they"
    " know these people in clean photos, and more. Run again, it continues"
    " where it stopped. Needs `pip install 'fawkes-jax[evaluate]'`.",
    options=options.EvaluateOptions,
    goes_on=True,
  ),
  Command(
    name="benchmark",
    help="measure the speed of this machine",
    description="Measures the solver, the detector, the codecs and the whole"
    " pipeline on this machine, in rounds in which each has its turn, and"
    " writes the tables to OUTPUT.",
    options=options.BenchmarkOptions,
  ),
  Command(
    name="weights",
    help="list, fetch or import more recognisers to cloak against",
    description="Adds recognisers to those that --surrogates takes.",
    goes_on=True,
    actions=(
      Command(
        name="list",
        help="show all that is known, and what is here",
        description="Shows the recognisers that the package brings, those that"
        " can be added, and those that were.",
        options=options.WeightsListOptions,
      ),
      Command(
        name="fetch",
        help="download public recognisers",
        description="Downloads public recognisers into the cache directory. Run"
        " again, it continues where it stopped.",
        options=options.WeightsFetchOptions,
      ),
      Command(
        name="import",
        help="add a recogniser from a file of one's own",
        description="Tries a recogniser and copies it into the cache directory:"
        " ONNX, safetensors of InsightFace's iresnet or vit, AdaFace,"
        " facenet-pytorch or a student, or the files of the list.",
        options=options.WeightsImportOptions,
      ),
    ),
  ),
)


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
  inputs = "IN ..." if _needs_input(command) else "[IN ...]"
  return f"fawkes-jax {command.name} [flags] {inputs} OUT"


def _needs_input(command: Command) -> bool:
  """Whether the command has nothing to do without an input."""
  return any(
    field.name == "input" and field.default is dataclasses.MISSING
    for field in dataclasses.fields(command.options or declared.Options)
  )


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
    places.take(arguments, used, input_needed=_needs_input(command))
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
  names = [field.name for field in dataclasses.fields(kind)]
  return kind(**{name: given[name] for name in names})


def goes_on(arguments: argparse.Namespace) -> bool:
  """Whether the command that was called keeps what it has done."""
  return any(
    command.goes_on for command in COMMANDS if command.name == arguments.command
  )
