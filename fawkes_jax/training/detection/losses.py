"""How far what a detector says of scenes is from what its teacher says."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fawkes_jax.models import yunet

_NOWHERE = 0.05
"""What is said of a cell without a face counts for so much of one with one."""


def imitation(
  grids: Sequence[yunet.Grid], taught: Sequence[yunet.Grid]
) -> dict[str, Float[Array, ""]]:
  """How far grids are off.

  Cells count as much as the teacher believes that there is a face.

  Args:
    grids: of a student.
    taught: of its teacher.

  Returns:
    The parts of the loss: "score", the divergence of both likelihoods of a
    cell; "box" and "points", the mean distance of a number, in cells. All are
    0 where both say the same.
  """
  sums = {name: jnp.float32(0) for name in ("score", "box", "points")}
  total = jnp.float32(0)
  for grid, wanted in zip(grids, taught, strict=True):
    face = yunet.likelihood(wanted.scores)
    believed = jax.nn.sigmoid(wanted.scores)
    divergence = _entropy(grid.scores, believed)
    divergence -= _entropy(wanted.scores, believed)
    sums["score"] += (divergence.sum(axis=-1) * (face + _NOWHERE)).sum()
    for name, own, theirs in (
      ("box", grid.boxes, wanted.boxes),
      ("points", grid.points, wanted.points),
    ):
      sums[name] += (jnp.abs(own - theirs).mean(axis=-1) * face).sum()
    total += face.sum()
  return {name: value / (total + 1) for name, value in sums.items()}


def _entropy(logits: jax.Array, believed: jax.Array) -> jax.Array:
  """The cross entropy of logits to chances."""
  return jax.nn.softplus(logits) - believed * logits
