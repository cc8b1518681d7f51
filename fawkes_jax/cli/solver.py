"""The flags of the solver's options, and the mode that sets them."""

import dataclasses
from typing import Any

from fawkes_jax.cli import generate
from fawkes_jax.cli import parser as parsers
from fawkes_jax.options import MODES, ModeOptions, SolverOptions, declared


def add_mode(parser: parsers.Parser) -> None:
  """Adds `--mode`."""
  for field in dataclasses.fields(ModeOptions):
    generate.add_flag(parser, ModeOptions, field)


def add(parser: parsers.Parser, kind: type[declared.Options]) -> None:
  """Adds one flag for each of the solver's options; the mode sets the rest.

  Args:
    parser: that gets them, if the command has a solver.
    kind: the command's options; where these have a flag of the same name, it
      is theirs.
  """
  fields = dataclasses.fields(kind)
  if not {"solver", "solver_changes"} & {field.name for field in fields}:
    return
  taken = {declared.flag(kind, field.name) for field in fields}
  for field in dataclasses.fields(SolverOptions):
    if declared.flag(SolverOptions, field.name) not in taken:
      generate.add_flag(
        parser, SolverOptions, field, default=None, shown=default_of(field.name)
      )


def default_of(name: str) -> str:
  """The default of an option, or that of each mode."""
  modes = {
    mode: generate.word(getattr(options, name))
    for mode, options in MODES.items()
  }
  if len(set(modes.values())) == 1:
    return modes["mid"]
  return ", ".join(f"{value} {mode}" for mode, value in modes.items())


def take(given: dict[str, Any], kind: type[declared.Options]) -> None:
  """Makes the command's option of the values of the solver's flags.

  Args:
    given: values by the names of options; gets `solver` or `solver_changes`.
    kind: the command's options.

  Raises:
    OptionError: a value breaks its rule.
  """
  names = {field.name for field in dataclasses.fields(kind)}
  changes = {
    field.name: given[field.name]
    for field in dataclasses.fields(SolverOptions)
    if given.get(field.name) is not None
  }
  if "solver" in names:
    given["solver"] = dataclasses.replace(MODES[given["mode"]], **changes)
  if "solver_changes" in names:
    given["solver_changes"] = tuple(changes.items())
