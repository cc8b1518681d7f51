"""Faces in, changes out: recognition, targets and the solver put together."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt16

from fawkes_jax import types
from fawkes_jax.archive import files
from fawkes_jax.cloaking import solver
from fawkes_jax.engine import embedder, executor
from fawkes_jax.faces import finder, recognition
from fawkes_jax.options import CloakOptions
from fawkes_jax.weights import averages
from fawkes_jax.weights import bank as bank_lib

# The example tables of the JPEG standard (ITU-T T.81, annex K) at libjpeg's
# quality of 75, which halves them.
_ANNEX_K = np.array(
  [
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *[(99,) * 8] * 4,
  ]
).reshape(2, 8, 8)
_QUALITY_75 = (_ANNEX_K + 1) // 2


class Cloaker:
  """All that a run loads once, and what it makes of a face.

  Attributes:
    options: of the run.
    recognition: what finds and embeds faces.
    centres: by extractor, the mean identity of the bank.
    executor: of the solver, for this run's options.
    candidates: by extractor, normalised embeddings of the possible targets,
      one identity a row.
    target_names: what each of them is called.
  """

  def __init__(self, options: CloakOptions, *, photos: int | None = None):
    """Loads weights and targets; compiles nothing yet.

    Args:
      options: of the run.
      photos: how many there are, where that is known, see
        `Recognition`.

    Raises:
      FawkesError: weights, the target bank or the target's photos cannot be
        used.
    """
    self.options = options
    self.recognition = recognition.Recognition(options, photos=photos)
    bank = _bank(self.recognition, options.bank)
    self.centres = bank.centres
    self.executor: executor.Executor[Any] = executor.Executor(
      self.recognition.extractors,
      self.centres,
      options.solver,
      slots=self.recognition.batch_size,
      mesh=self.recognition.mesh,
    )
    if options.target_dir is None:
      self.candidates = self.normalised(bank.embeddings)
      count = len(next(iter(self.candidates.values())))
      self.target_names = [f"bank/{index}" for index in range(count)]
    else:
      mean = self.recognition.mean_embedding(
        options.target_dir, flag="target_dir"
      )
      if mean is None:
        raise types.FawkesError(
          "--target_dir must hold a photo with a face, got"
          f" {files.printable(options.target_dir)}"
        )
      self.candidates = self.normalised({k: e[None] for k, e in mean.items()})
      self.target_names = [files.printable(options.target_dir)]

  def normalised(
    self, embeddings: Mapping[str, Float32[np.ndarray, "n d"]]
  ) -> dict[str, Float32[np.ndarray, "n d"]]:
    """Embeddings centred and scaled to length one, by extractor."""
    return embedder.normalised(embeddings, self.centres)

  def problem(
    self,
    face: finder.AlignedFace,
    *,
    own: Mapping[str, Float32[np.ndarray, " d"]],
    target: int,
    grey: bool,
    seed: int,
    jpeg_tables: UInt16[np.ndarray, "2 8 8"] | None = None,
  ) -> solver.Problem:
    """What the solver needs to know of a face.

    Args:
      face: found by `recognition.finder`.
      own: by extractor, its person's normalised embedding.
      target: index into `candidates`.
      grey: whether its photo is greyscale.
      seed: of its random views, 0..2**32 - 1.
      jpeg_tables: the quantisation tables of its file; None where that is no
        JPEG, to prepare for one of quality 75.

    Returns:
      The problem, with numpy leaves.
    """
    return solver.Problem(
      original=face.crop,
      coverage=face.coverage,
      weights=face.weights,
      side=np.float32(face.alignment.side),
      tables=_tables_in_crop(jpeg_tables, face.alignment.scale),
      colour=np.float32(not grey),
      own=dict(own),
      target={name: e[target] for name, e in self.candidates.items()},
      seed=np.uint32(seed),
    )

  def seconds_for(self, faces: int) -> float:
    """How long so many faces take here, all steps of each, and to begin.

    Measured on random faces, in a first round that compiles and a second one.
    """
    random = random_problem(
      self.options.crop_size,
      own={name: e[0] for name, e in self.candidates.items()},
      target={name: e[-1] for name, e in self.candidates.items()},
    )
    problems = [(i, random) for i in range(self.recognition.batch_size)]
    rounds = []
    for _ in range(2):
      started = time.monotonic()
      steps = sum(s.steps for _, s in self.executor.solve(problems))
      rounds.append(time.monotonic() - started)
    compiling = max(0.0, rounds[0] - rounds[1])
    per_face = rounds[1] / steps * self.options.solver.steps
    # The last ones have as many slots to themselves as the first.
    return compiling + per_face * (-(-faces // len(problems)) * len(problems))


def random_problem(
  size: int,
  *,
  own: Mapping[str, Float32[np.ndarray, " d"]],
  target: Mapping[str, Float32[np.ndarray, " d"]],
) -> solver.Problem:
  """A face of random pixels, to measure time with.

  Args:
    size: the crop's side in pixels, all of it filled.
    own: by extractor, its normalised embedding.
    target: by extractor, the target's.

  Returns:
    The problem, always the same, with numpy leaves.
  """
  pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3))
  return solver.Problem(
    original=pixels.astype(np.float32),
    coverage=np.ones((size, size), np.float32),
    weights=np.full((size, size), 1 / size**2, np.float32),
    side=np.float32(size),
    tables=_tables_in_crop(None, 1.0),
    colour=np.float32(1),
    own=dict(own),
    target=dict(target),
    seed=np.uint32(0),
  )


def _bank(known: recognition.Recognition, file: Path | None) -> bank_lib.Bank:
  """The bank for all extractors.

  To those that the package's does not cover its averaged faces are shown.
  """
  names = [extractor.name for extractor in known.extractors]
  missing = set(names) - bank_lib.names(file)
  if file is not None or not missing:
    return bank_lib.load(names, file=file)
  covered = bank_lib.load([name for name in names if name not in missing])
  averaged = averages.load()
  seen = known.embed_pictures(averaged.faces)
  rest = {name: seen[name][averaged.groups] for name in sorted(missing)}
  return bank_lib.Bank(embeddings={**covered.embeddings, **rest})


def _tables_in_crop(
  tables: UInt16[np.ndarray, "2 8 8"] | None, scale: float
) -> Float32[np.ndarray, "2 8 8"]:
  """Quantisation tables as they act on a crop that was scaled down.

  A frequency of the crop's blocks is `scale` times lower in the photo's.
  """
  if tables is None:
    tables = _QUALITY_75
  index = np.round(np.arange(8) / max(scale, 1)).astype(int)
  return np.maximum(tables[:, index][:, :, index], 1).astype(np.float32)
