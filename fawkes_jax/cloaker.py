"""Faces in, changes out: recognition, targets and the solver put together."""

import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from fawkes_jax import config, recognition, types
from fawkes_jax.cloaking import solver
from fawkes_jax.engine import embedder, executor, finder
from fawkes_jax.weights import bank as bank_lib


class Cloaker:
  """All that a run loads once, and what it makes of a face.

  Attributes:
    recognition: what finds and embeds faces.
    centres: by extractor, the mean identity of the bank.
    executor: of the solver, for this run's options.
    candidates: by extractor, normalised embeddings of the possible targets,
      one identity a row.
    target_name: how a target is called, a format of its index.
  """

  def __init__(self, options: config.CloakOptions):
    """Loads weights and targets; compiles nothing yet.

    Raises:
      FawkesError: weights, the target bank or the target's photos cannot be
        used.
    """
    self._options = options
    self.recognition = recognition.Recognition(options)
    bank = bank_lib.load(options.extractors)
    self.centres = bank.centres
    # A compiled loop over steps keeps an accelerator busy; on a CPU, XLA runs
    # it several times slower than single steps.
    on_cpu = jax.default_backend() == "cpu"
    self.executor: executor.Executor[Any] = executor.Executor(
      self.recognition.extractors,
      self.centres,
      options.solver,
      slots=self.recognition.batch_size,
      mesh=self.recognition.mesh,
      steps_per_call=1 if on_cpu else 10,
    )
    if options.target_dir is None:
      self.candidates = self.normalised(bank.embeddings)
      self.target_name = "bank/{}"
    else:
      mean = self.recognition.mean_embedding(options.target_dir)
      if mean is None:
        raise types.FawkesError(
          "--target_dir must hold a photo with a face, got"
          f" {options.target_dir}"
        )
      self.candidates = self.normalised({k: e[None] for k, e in mean.items()})
      self.target_name = str(options.target_dir)

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
  ) -> solver.Problem:
    """What the solver needs to know of a face.

    Args:
      face: found by `recognition.finder`.
      own: by extractor, its normalised embedding.
      target: index into `candidates`.
      grey: whether its photo is greyscale.
      seed: of its random views, 0..2**32 - 1.

    Returns:
      The problem, with numpy leaves.
    """
    return solver.Problem(
      original=face.crop,
      coverage=face.coverage,
      weights=face.weights,
      side=np.float32(face.alignment.side),
      colour=np.float32(not grey),
      own=dict(own),
      target={name: e[target] for name, e in self.candidates.items()},
      seed=np.uint32(seed),
    )

  def seconds_per_face(self) -> float:
    """How long all steps of a face take here, with all slots busy.

    Measured on blank faces, after a first round that compiles.
    """
    size = self._options.crop_size
    blank = solver.Problem(
      original=np.full((size, size, 3), 128, np.float32),
      coverage=np.ones((size, size), np.float32),
      weights=np.full((size, size), 1 / size**2, np.float32),
      side=np.float32(size),
      colour=np.float32(1),
      own={name: e[0] for name, e in self.candidates.items()},
      target={name: e[-1] for name, e in self.candidates.items()},
      seed=np.uint32(0),
    )
    problems = [(i, blank) for i in range(self.recognition.batch_size)]
    for _ in range(2):
      started = time.monotonic()
      steps = sum(s.steps for _, s in self.executor.solve(problems))
      seconds = time.monotonic() - started
    return seconds / steps * self._options.solver.steps
