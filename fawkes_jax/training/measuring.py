"""Measures a student on faces that it was never trained on."""

import dataclasses

import numpy as np
from jaxtyping import Float32, Int

from fawkes_jax.options import TrainOptions
from fawkes_jax.training import data, verification
from fawkes_jax.training.learning import Learning
from fawkes_jax.training.material import Material
from fawkes_jax.training.state import State

_PAIRS = 3000
"""Drawn pairs of each kind that are verified."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
  """What a student has reached.

  Attributes:
    cosines: by teacher, between predicted and true embeddings of the
      validation's crops.
    accuracies: by kind of pairs, of verification, and how many pairs.
  """

  cosines: dict[str, float]
  accuracies: dict[str, tuple[float, int]]

  def text(self) -> str:
    """In words; empty where nothing was measured."""
    said = [f"cosine to {k} {v:.4f}" for k, v in self.cosines.items()]
    said += [
      f"verification of {count} {k} pairs {value:.4f}"
      for k, (value, count) in self.accuracies.items()
    ]
    return ", ".join(said)


class Measuring:
  """Measures the students of a run, always on the same faces and pairs."""

  def __init__(
    self,
    options: TrainOptions,
    material: Material,
    learning: Learning,
  ):
    """Chooses the pairs."""
    self._material = material
    self._learning = learning
    faces, split = material.faces, material.split
    self._rows = np.concatenate([split.validation, split.held_out])
    self._pairs = {
      "drawn": verification.draw_pairs(
        faces.identities, self._rows, count=_PAIRS, seed=options.seed
      )
    }
    if options.pairs:
      self._pairs["file"] = data.pairs_of_crops(
        material.pairs, faces, self._rows
      )

  def measure(self, state: State) -> Measured:
    """Measures the averaged student of a state."""
    if not len(self._rows):
      return Measured(cosines={}, accuracies={})
    embeddings = self._learning.network.embeddings(
      state.student(), self._material.faces.crops, self._rows
    )
    return Measured(
      cosines=self._cosines(state, embeddings),
      accuracies=self._accuracies(embeddings),
    )

  def _cosines(
    self, state: State, embeddings: Float32[np.ndarray, "k d"]
  ) -> dict[str, float]:
    """By teacher; of the validation's crops, which come first."""
    rows = self._material.split.validation
    if not len(rows):
      return {}
    cosines = {}
    for name, targets in self._material.targets.items():
      predicted = self._learning.predicted(
        state.average["params"], name, embeddings[: len(rows)]
      )
      products = np.asarray(predicted) * targets[0, rows]
      cosines[name] = float(products.sum(-1).mean())
    return cosines

  def _accuracies(
    self, embeddings: Float32[np.ndarray, "k d"]
  ) -> dict[str, tuple[float, int]]:
    """By kind of pairs, where there are enough."""
    moved = embeddings - embeddings.mean(axis=0)
    unit = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    place: Int[np.ndarray, " n"] = np.full(len(self._material.faces), -1)
    place[self._rows] = np.arange(len(self._rows))
    accuracies = {}
    for name, pairs in self._pairs.items():
      same = pairs[:, 0] == 1
      if len(pairs) < verification.FOLDS or same.all() or not same.any():
        continue
      one, other = unit[place[pairs[:, 1]]], unit[place[pairs[:, 2]]]
      value = verification.accuracy((one * other).sum(-1), same)
      accuracies[name] = value, len(pairs)
    return accuracies
