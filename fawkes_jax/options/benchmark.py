"""Options of `fawkes-jax benchmark`."""

import dataclasses
from pathlib import Path
from typing import Any

from fawkes_jax.options import faces, rules
from fawkes_jax.options.cloak import CloakOptions
from fawkes_jax.options.declared import option
from fawkes_jax.options.faces import FaceOptions, PhotoOptions
from fawkes_jax.options.solver import (
  PRECISIONS,
  ModeOptions,
  SolverOptions,
  changed,
)

USUAL_PARTS = ("solver", "detector", "codecs", "pipeline")
"""What `fawkes-jax benchmark` measures unless it is told."""

PARTS = (*USUAL_PARTS, "detection", "host")
"""What it can measure; see docs/performance.md."""


class BenchmarkOptions(ModeOptions, PhotoOptions):
  """A run of `fawkes-jax benchmark`."""

  output: Path = option("folder for the results")
  data: Path | None = option(
    "folder of photos",
    default=None,
    shown="a photo that comes with scikit-image",
    more="It may also be one photo",
  )
  parts: tuple[str, ...] | None = option(
    f"what to measure: {', '.join(PARTS)}",
    rules.some_of(*PARTS),
    default=None,
    shown="all but host, with photos; detection if {data} has annotations.tsv",
  )
  solver_changes: tuple[tuple[str, Any], ...] = option(
    "how the solver differs from the mode", default=(), hidden=True
  )
  ensembles: tuple[tuple[str, ...], ...] = option(
    "recognisers separated by commas; several such groups by semicolons",
    rules.several("ensembles"),
    default=(FaceOptions.extractors,),
    flag="surrogates",
  )
  batch_sizes: tuple[int, ...] | None = option(
    "numbers of faces that are cloaked at once",
    rules.several("numbers"),
    rules.each(faces.BATCH_SIZE),
    default=None,
    shown="1,8,32 on a CPU",
    flag="batch_size",
  )
  precisions: tuple[str, ...] | None = option(
    f"types of computation: {', '.join(PRECISIONS)}",
    rules.some_of(*PRECISIONS),
    default=None,
    shown="float32 on a CPU, else both",
    flag="precision",
    rare=True,
  )
  devices: tuple[int, ...] | None = option(
    "numbers of devices of this host",
    rules.several("numbers"),
    rules.each(rules.within(1, 65_536)),
    default=None,
    shown="one, and all",
  )
  detectors: tuple[str, ...] = option(
    "compared by the part detection: names or files as {detector} takes them,"
    " with commas",
    rules.several("names or files"),
    default=("own",),
    rare=True,
  )
  rounds: int = option(
    "number of rounds, each of which measures everything once",
    rules.within(1, 1000),
    default=5,
  )
  round_seconds: float = option(
    "shortest time of a measurement, in seconds",
    rules.within(0, 3600),
    default=1.0,
    rare=True,
  )
  photos: int | None = option(
    "largest number of photos in the pipeline",
    rules.within(1, 1_000_000),
    default=None,
    shown="8 on a CPU, 512 elsewhere",
  )
  bank: Path | None = option(
    "target identities, made by `fawkes-jax bank`",
    default=None,
    more="None stands for the package's",
    rare=True,
  )
  faces_per_second: float = option(
    "that one accelerator solves, to say how many cores feed it",
    rules.within(0.001, 1e6),
    default=100.0,
    rare=True,
  )
  price_per_hour: float | None = option(
    "price of this host, to work out what a million photos cost",
    rules.within(0, 1e6),
    default=None,
  )
  profile_dir: Path | None = option(
    "folder for a profile of a few steps of the solver", default=None, rare=True
  )

  def __post_init__(self) -> None:
    """Checks the options; see `Options`."""
    super().__post_init__()
    rules.require(
      self,
      "profile_dir",
      "left out where {parts} has no solver",
      self.profile_dir is None or self.parts is None or "solver" in self.parts,
    )
    for ensemble in self.ensembles:
      self.cloak(Path(), Path(), ensemble)  # Checks the rest.

  @property
  def solver(self) -> SolverOptions:
    """How a cloak is computed."""
    return changed(self.mode, *self.solver_changes)

  def cloak(
    self, source: Path, output: Path, ensemble: tuple[str, ...]
  ) -> CloakOptions:
    """The run of `fawkes-jax cloak` that is measured.

    It solves as many faces at once, and in the precision, as it would choose,
    unless there is exactly one.
    """
    sizes, precisions = self.batch_sizes or (), self.precisions or ()
    precision = precisions[0] if len(precisions) == 1 else "auto"
    return CloakOptions(
      input=source,
      output=output,
      solver=dataclasses.replace(self.solver, precision=precision),
      extractors=ensemble,
      bank=self.bank,
      crop_size=self.crop_size,
      detector=self.detector,
      min_face_pixels=self.min_face_pixels,
      max_pixels=self.max_pixels,
      batch_size=sizes[0] if len(sizes) == 1 else None,
      threads=self.threads,
    )
