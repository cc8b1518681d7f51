"""The interface of a way of learning."""

from typing import Any, Protocol

import jax
import numpy as np
import optax

from fawkes_jax.training.batches import Batches
from fawkes_jax.training.network import Network
from fawkes_jax.training.schedule import Moment
from fawkes_jax.training.state import State


class Learning(Protocol):
  """A way of learning: what the student is, and what a batch teaches it.

  Attributes:
    network: the student's.
    batches: that it learns from.
    optimiser: the optimiser of all that is learned.
  """

  network: Network
  batches: Batches
  optimiser: optax.GradientTransformation

  def drawn(self) -> dict[str, Any]:
    """The variables of a student that knows nothing."""
    ...

  def learned(self, student: dict[str, Any]) -> dict[str, Any]:
    """All that is learned: the "student"'s weights, and what goes with them.

    Args:
      student: its variables, to begin with.
    """
    ...

  def learn(
    self, state: State, batch: dict[str, Any], moment: Moment
  ) -> tuple[State, dict[str, jax.Array]]:
    """Learns from a batch.

    Args:
      state: is used up.
      batch: see `Batch.placed`.
      moment: the moment of the run.

    Returns:
      The new state, and what to say of the step, by name.
    """
    ...

  def predicted(
    self, params: dict[str, Any], teacher: str, embeddings: np.ndarray
  ) -> jax.Array:
    """What embeddings of the student say of a teacher's.

    Args:
      params: what was learned.
      teacher: its name.
      embeddings: [n, e].

    Returns:
      Around the teacher's mean, rows of length one, [n, d].
    """
    ...
