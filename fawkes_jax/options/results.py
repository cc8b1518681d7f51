"""Options of what looks at an output: status, verify and forget."""

import os

from fawkes_jax.options.cloak import Addresses
from fawkes_jax.options.declared import Options, option


class ResultOptions(Options):
  """Which results of `fawkes-jax cloak` are looked at."""

  output: str | os.PathLike = option("folder written by cloak, or s3://...")
  input: Addresses | None = option(
    "what it was made from, as for cloak",
    default=None,
    more="None looks at the results alone",
  )


class StatusOptions(ResultOptions):
  """A run of `fawkes-jax status`."""

  failed: bool = option(
    "name every file that failed or needs attention, and why",
    default=False,
    more="Nothing else is shown then",
  )


class VerifyOptions(ResultOptions):
  """A run of `fawkes-jax verify`."""


class ForgetOptions(Options):
  """A run of `fawkes-jax forget`."""

  output: str | os.PathLike = option("folder written by cloak, or s3://...")
