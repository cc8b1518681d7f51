"""Options of status, verify, people and forget, which look at an output."""

import os
from pathlib import Path

from fawkes_jax.options import rules
from fawkes_jax.options.cloak import Addresses
from fawkes_jax.options.declared import Options, option


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


class ForgetOptions(Options):
  """A run of `fawkes-jax forget`."""

  output: str | os.PathLike = option("folder written by cloak, or s3://...")
