"""The command line in this process, as tests call it."""

import contextlib
import io
from typing import NamedTuple

import pytest

from fawkes_jax import cli


class Run(NamedTuple):
  """How a command ended, and what it wrote."""

  code: int
  said: str
  errors: str


def run(*arguments) -> Run:
  """Runs a command; its arguments become text."""
  out, err = io.StringIO(), io.StringIO()
  with (
    contextlib.redirect_stdout(out),
    contextlib.redirect_stderr(err),
    pytest.raises(SystemExit) as ended,
  ):
    cli.entry([str(argument) for argument in arguments])
  return Run(int(ended.value.code or 0), out.getvalue(), err.getvalue())
