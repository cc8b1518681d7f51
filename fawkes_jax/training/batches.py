"""The batches of a run, drawn by threads ahead of their use."""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Generator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Float32, Int, UInt8

from fawkes_jax.engine import mesh as mesh_lib
from fawkes_jax.imaging import geometry
from fawkes_jax.options import TrainOptions
from fawkes_jax.training import views
from fawkes_jax.training.material import Material
from fawkes_jax.training.network import Network

_AHEAD = 4
"""Batches that are drawn before they are needed."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
  """What one step sees.

  Attributes:
    images: the student's views, RGB; whole crops where faces are changed on
      the devices.
    targets: by teacher, centred, rows of length one; none where the teachers
      look for themselves.
    labels: the identities, counted among those that are trained on.
  """

  images: UInt8[np.ndarray, "n size size 3"]
  targets: dict[str, Float32[np.ndarray, "n d"]]
  labels: Int[np.ndarray, " n"]

  def placed(self, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """The same by name, on the devices: an equal part on each."""
    return jax.device_put(vars(self), NamedSharding(mesh, mesh_lib.FACES))


class Batches:
  """The batches of a run.

  Attributes:
    identities: how many there are to train on.
  """

  def __init__(
    self,
    options: TrainOptions,
    material: Material,
    network: Network,
    *,
    whole: bool,
  ):
    """Draws nothing yet.

    Args:
      options: the options of the run.
      material: the faces, and what the teachers say of them.
      network: whose views are drawn.
      whole: whether a batch has whole crops instead, and no targets, for
        teachers to look at.
    """
    self._options = options
    self._crops = material.faces.crops
    self._rows = material.split.training
    self._targets: Mapping[str, np.ndarray] = {}
    if whole:
      self._template, self._size = geometry.CROP, self._crops.shape[1]
    else:
      self._template, self._size = network.template, network.size
      self._targets = material.targets
    names, self._labels = np.unique(
      material.faces.identities[self._rows], return_inverse=True
    )
    self.identities = len(names)

  def ahead(self, start: int) -> Generator[Batch, None, None]:
    """The batches from a step on; to be closed where they are not wanted."""
    with concurrent.futures.ThreadPoolExecutor(self._options.threads) as pool:
      ahead = collections.deque(
        pool.submit(self.draw, start + i) for i in range(_AHEAD)
      )
      step = start + _AHEAD
      try:
        while True:
          yield ahead.popleft().result()
          ahead.append(pool.submit(self.draw, step))
          step += 1
      finally:
        for future in ahead:
          future.cancel()

  def draw(self, step: int) -> Batch:
    """The batch of a step: a function of the seed and the step alone."""
    options, rows = self._options, self._rows
    size = options.batch_size
    epoch, turn = divmod(step, len(rows) // size)
    order = np.random.default_rng((options.seed, 0, epoch)).permutation(
      len(rows)
    )
    chosen = order[turn * size : (turn + 1) * size]
    rng = np.random.default_rng((options.seed, 1, step))
    mirrored = rng.integers(0, 2, size)
    images = [
      views.augmented(self._crops[row], self._template, self._size, rng)
      for row in rows[chosen]
    ]
    return Batch(
      images=np.stack(
        [
          image[:, ::-1] if mirror else image
          for image, mirror in zip(images, mirrored, strict=True)
        ]
      ),
      targets={
        name: array[mirrored, rows[chosen]]
        for name, array in self._targets.items()
      },
      labels=self._labels[chosen].astype(np.int32),
    )
