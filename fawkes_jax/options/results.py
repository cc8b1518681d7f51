"""Options of status, verify, people and forget, which look at an output."""

import os
from pathlib import Path

from fawkes_jax.options import rules
from fawkes_jax.options.cloak import Addresses
from fawkes_jax.options.declared import Options, option

_LONGEST = 100


def _is_naming(value: str) -> bool:
  """Whether it is the number of a person and a name, or none."""
  number, equals, name = value.partition("=")
  return (
    number.isascii()
    and number.isdigit()
    and equals == "="
    and len(name) <= _LONGEST
    and name.isprintable()
    # What --protect and --spare would not take for a name.
    and not any(c in name for c in ",/\\")
  )


_NAMING = rules.Rule(
  says="NUMBER=NAME, with a name without commas and slashes, of at most"
  f" {_LONGEST} characters",
  keeps=lambda value: all(
    map(_is_naming, (value,) if isinstance(value, str) else value)
  ),
)


class ResultOptions(Options):
  """Which results of `fawkes-jax cloak` are looked at."""

  output: str | os.PathLike = option("folder written by cloak, or s3://...")
  input: Addresses | None = option(
    "the input that was cloaked, as for cloak",
    default=None,
    more="None looks at the results alone",
  )


class StatusOptions(ResultOptions):
  """A run of `fawkes-jax status`."""

  failed: bool = option(
    "list every file that failed or needs attention, with the reason",
    default=False,
    more="Nothing else is shown then",
  )


class VerifyOptions(ResultOptions):
  """A run of `fawkes-jax verify`."""


class PeopleOptions(ResultOptions):
  """A run of `fawkes-jax people`."""

  name: str | tuple[str, ...] | None = option(
    "what a person of the list is called, as in 12=anna; 12= takes the name"
    " away; give it several times for several people",
    _NAMING,
    default=None,
    more="Several people with one name are one to --protect and --spare of"
    " cloak",
  )

  sheet: Path | None = option(
    "HTML file that gets a page with some faces of each person; with --input",
    default=None,
  )
  most: int = option(
    "at most so many people, those with the most photos first",
    rules.within(1, 100_000),
    default=200,
  )

  def __post_init__(self) -> None:
    """Checks the options; see `Options`."""
    super().__post_init__()
    rules.require(
      self,
      "sheet",
      "given together with {input}",
      self.sheet is None or self.input is not None,
    )
    numbers = [number for number, _ in self.named]
    rules.require(
      self,
      "name",
      "given once for each person",
      len(numbers) == len(set(numbers)),
    )

  @property
  def named(self) -> tuple[tuple[int, str], ...]:
    """The people who are to get names, or to lose theirs, and the names."""
    given = (self.name,) if isinstance(self.name, str) else self.name
    pairs = (one.partition("=") for one in given or ())
    return tuple((int(number), name.strip()) for number, _, name in pairs)


class ForgetOptions(Options):
  """A run of `fawkes-jax forget`."""

  output: str | os.PathLike = option("folder written by cloak, or s3://...")
