"""Which subjects a benchmark has, and what surrounds their measurement."""

import contextlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from fawkes_jax import types
from fawkes_jax.benchmarking import (
  archiving,
  detecting,
  device,
  hosting,
  rounds,
  solving,
)
from fawkes_jax.faces import annotations, cloaker
from fawkes_jax.options import USUAL_PARTS, BenchmarkOptions


def parts(options: BenchmarkOptions) -> tuple[str, ...]:
  """What can be measured: without photos only the solver.

  Raises:
    FawkesError: a part was asked for by name that needs photos.
  """
  annotated = (
    options.data is not None and (options.data / annotations.BOXES).is_file()
  )
  if annotated and options.parts is None:
    return (*USUAL_PARTS, "detection")
  if options.data or importlib.util.find_spec("skimage"):
    return options.parts or USUAL_PARTS
  wanted = set(options.parts or ()) - {"solver"}
  if wanted:
    raise types.FawkesError(
      "--data must be a folder of photos, or scikit-image must be installed"
      f" (pip install 'fawkes-jax[evaluate]'), for --parts="
      f"{','.join(sorted(wanted))}"
    )
  return ("solver",)


def subjects(
  options: BenchmarkOptions, parts: Sequence[str], folder: Path
) -> Iterator[rounds.Subject]:
  """All that is to be measured.

  Args:
    options: of the run.
    parts: of `options.PARTS`.
    folder: for photos, before and after.

  Yields:
    The subjects, the solver first: photos and networks are loaded before it,
    so that what is wrong with them is found at once.

  Raises:
    FawkesError: something cannot be loaded.
  """
  solvers = list(solving.subjects(options)) if "solver" in parts else []
  without = {"detection"} if options.data else {"detection", "host"}
  if set(parts) - {"solver", *without}:
    photos = archiving.gather(options, folder / "photos")
  if {"detector", "pipeline"} & set(parts):
    cloak = options.cloak(
      folder / "photos", folder / "cloaked", options.ensembles[0]
    )
    loaded = cloaker.Cloaker(cloak)
  detections = list(detecting.subjects(options)) if "detection" in parts else []
  yield from solvers
  if set(parts) != {"detection"}:
    yield from device.ceilings()
  yield from detections
  if "detector" in parts:
    yield from archiving.finding(loaded, photos)
  if "codecs" in parts:
    yield from archiving.coding(photos, options)
  if "pipeline" in parts:
    yield archiving.Pipeline(options=cloak, loaded=loaded)
  if "host" in parts:
    yield from hosting.subjects(options, folder)


def profile(results: Sequence[rounds.Result], folder: Path) -> None:
  """Traces a few steps of the last solver that could be measured."""
  for result in reversed(results):
    if isinstance(result.subject, solving.Solver) and not result.problem:
      result.subject.profile(folder)
      return


@contextlib.contextmanager
def fresh_programs(folder: Path) -> Iterator[None]:
  """Keeps compiled programs in another folder than usual.

  What earlier runs have compiled would be loaded, not compiled.
  """
  before = getattr(jax.config, "jax_compilation_cache_dir", None)
  _keep_programs(str(folder))
  try:
    yield
  finally:
    _keep_programs(before)


def _keep_programs(folder: str | None) -> None:
  jax.config.update("jax_compilation_cache_dir", folder)
  compilation_cache.reset_cache()
