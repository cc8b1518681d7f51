"""`fawkes-jax benchmark`: measures the speed of this machine."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fawkes_jax import types
from fawkes_jax.archive import files, scan
from fawkes_jax.commands import terminal
from fawkes_jax.options import BenchmarkOptions
from fawkes_jax.weights import ensembles
from fawkes_jax.xla import compiler


def run(options: BenchmarkOptions) -> int:
  """Measures, and writes tables.

  Args:
    options: the options of the run.

  Returns:
    0.

  Raises:
    FawkesError: the photos, a surrogate or a device cannot be used, or the
      output cannot be written.
  """
  options = dataclasses.replace(
    options,
    ensembles=tuple(ensembles.expanded(names) for names in options.ensembles),
  )
  console = terminal.console()
  compiler.require_devices()
  # After the command line is known to be right: JAX takes a second.
  from fawkes_jax.benchmarking import device, measuring, report, rounds

  parts = measuring.parts(options)
  with _workplace(options) as folder, measuring.fresh_programs(folder / "xla"):
    console.print(f"measuring {', '.join(parts)}")
    host = device.host()
    results = rounds.run(
      measuring.subjects(options, parts, folder),
      count=options.rounds,
      seconds=options.round_seconds,
      say=console.print,
    )
    if options.profile_dir is not None:
      measuring.profile(results, options.profile_dir)
  summary = report.summary(options, host, results)
  text = report.markdown(summary)
  report.write(summary, options.output)
  for line in ("", *text.splitlines()):
    console.print(line)
  console.print(f"{options.output / 'benchmark.md'}")
  return 0


@contextlib.contextmanager
def _workplace(options: BenchmarkOptions) -> Iterator[Path]:
  """A folder in the output that is removed afterwards.

  Raises:
    FawkesError: a folder cannot be written to.
  """
  if options.data is not None:
    scan.check_output(options.data, options.output, flag="data")
  for flag in ("profile_dir", "output"):
    folder = getattr(options, flag)
    if folder is not None:
      try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
          pass
      except OSError as error:
        raise types.FawkesError(
          f"--{flag} must be a folder that can be written to, got"
          f" {files.printable(folder)}: {error.strerror}"
        ) from error
  with tempfile.TemporaryDirectory(
    dir=options.output, prefix=files.TEMPORARY_PREFIX
  ) as name:
    yield Path(name)
