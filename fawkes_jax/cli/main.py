"""The process of the command line: how it begins, fails and ends."""

import argparse
import contextlib
import gc
import importlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from absl import app, flags
from absl import logging as absl_logging

from fawkes_jax import types
from fawkes_jax.cli import command_line
from fawkes_jax.options import OptionError, declared
from fawkes_jax.xla import memory


class _Terminated(KeyboardInterrupt):
  """The process was asked to end, as before a machine is taken away."""


def _terminate(number: int, frame: Any) -> None:
  signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Once is enough.
  raise _Terminated


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
  """Makes SIGTERM an exception, wherever the program is.

  Python drops an exception that is raised in a callback, such as those of the
  garbage collector. Then it is raised again a moment later.
  """

  def dropped(what: Any) -> None:
    if isinstance(what.exc_value, _Terminated):
      signal.setitimer(signal.ITIMER_REAL, 0.01)
    else:
      hook(what)

  hook = sys.unraisablehook
  handlers = {
    number: signal.signal(number, _terminate)
    for number in (signal.SIGTERM, signal.SIGALRM)
  }
  sys.unraisablehook = dropped
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    sys.unraisablehook = hook
    for number, handler in handlers.items():
      signal.signal(number, handler)


class _Format(logging.Formatter):
  """Our own lines, whatever names of files are in them."""

  def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
    """See `logging.Formatter`."""
    from fawkes_jax.commands import terminal

    return f"fawkes-jax: {terminal.plain(record.getMessage())}"


def _own_process() -> None:
  """What is done for a whole process, whose terminal is a person's.

  Raw lines of JAX, XLA and others do not reach it: what a person can do
  something about is said in words of our own.
  """
  for number in range(3):  # A stream that is closed ends in nothing.
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # Takes the lowest number, which is this.
  if sys.stdout is None:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
  if sys.stderr is None:
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  if not sys.warnoptions:
    warnings.simplefilter("ignore")
  logging.getLogger().addHandler(logging.NullHandler())
  absl_logging.set_verbosity(absl_logging.FATAL)
  handler = logging.StreamHandler()
  handler.setFormatter(_Format())
  logging.getLogger("fawkes_jax").addHandler(handler)
  logging.getLogger("fawkes_jax").setLevel(logging.WARNING)
  logging.getLogger("fawkes_jax").propagate = False


def _parse_all(words: Sequence[str]) -> argparse.Namespace:
  """Reads a command line with the program's name; absl has no flags in it."""
  flags.FLAGS(words[:1])
  return command_line.parse(words[1:])


def told(error: types.FawkesError) -> str:
  """What is wrong; options are called as they are typed here."""
  if isinstance(error, OptionError):
    kind = error.kind
    return error.spelled(lambda name: declared.flag(kind, name))
  return str(error)


def _command(name: str) -> Any:
  """The module of a command, imported without a search for garbage.

  Such searches would take a third of the time, and later ones would go through
  all that was imported again and again; nothing of it is ever garbage.
  """
  module = f"fawkes_jax.commands.{name}"
  if module not in sys.modules:
    gc.disable()
    try:
      importlib.import_module(module)
    finally:
      gc.enable()
    gc.freeze()
  return sys.modules[module]


def _main(arguments: argparse.Namespace) -> int:
  with _terminable():
    return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
  try:
    options = command_line.options_of(arguments)
    return _command(arguments.command).run(options)
  except types.FawkesError as error:
    from fawkes_jax.commands import terminal

    print(f"fawkes-jax: {terminal.plain(told(error))}", file=sys.stderr)
    return 2
  except MemoryError:
    print(
      "fawkes-jax: the memory is not enough; fewer --threads or a smaller"
      " --batch_size need less",
      file=sys.stderr,
    )
    return 2
  except KeyboardInterrupt as error:
    ended = isinstance(error, _Terminated)
    what = "; the same command continues" if arguments.chosen.goes_on else ""
    how = "terminated" if ended else "interrupted"
    print(f"fawkes-jax: {how}{what}", file=sys.stderr)
    if ended:
      # Everything is closed. What Python does at its end could wait for other
      # processes, or meet threads that still compute.
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(128 + signal.SIGTERM)
    return 128 + signal.SIGINT


def entry(argv: Sequence[str] | None = None) -> None:
  """Runs the command line and exits with its code.

  0: done; 1: done, but some photo failed; 2: wrong usage or a run that cannot
  go on; 130: interrupted; 143: terminated, within the time that the photos take
  which are just being saved.
  """
  if argv is None:
    _own_process()
  memory.keep_freed()
  app.run(
    _main,
    argv=None if argv is None else ["fawkes-jax", *argv],
    flags_parser=_parse_all,
  )
