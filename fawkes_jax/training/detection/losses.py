"""How far what a detector says of scenes is from what it should say.

That is what its teacher says, corrected by what is known of the scenes: halfway
for small faces, of which annotations miss some, and further for larger ones.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32

from fawkes_jax.faces import annotations
from fawkes_jax.models import yunet

_NOWHERE = 0.05
"""What is said of a cell without a face counts for so much of one with one,
where nobody believes that there is one."""

_OTHER = 0.2
"""And of no face if so little is shared with every one."""

_LEAST = 0.02
"""What a teacher believes less than this, it does not see."""

_TRUST, _TRUST_LARGE = 0.5, 0.85
"""How far the teacher is corrected, in boxes of any size and in large ones."""

_LARGE = 32.0
"""Pixels of the side of a large box."""


def corrected(
  taught: Sequence[yunet.Grid],
  boxes: Float32[Array, "n k 4"],
  known: Bool[Array, "n k"],
) -> list[Float32[Array, "n r c 2"]]:
  """What a student should believe.

  Of a face that is known, the likeliest cell whose box is the face's is
  believed more than the teacher does; cells whose boxes are of no face, less.

  Args:
    taught: what the teacher says of scenes.
    boxes: left, top, right, bottom in pixels of what may be a face; empty ones
      are of nothing.
    known: which of them are faces that must be found.

  Returns:
    For each grid both chances of each cell, 0..1.
  """
  cells = jnp.concatenate(list(map(_boxes, taught, yunet.STRIDES)), axis=1)
  likely = jnp.concatenate(
    [yunet.likelihood(g.scores).reshape(len(cells), -1) for g in taught], axis=1
  )
  shared = _overlaps(cells, boxes)
  seen = jnp.where(shared >= annotations.SAME, likely[..., None], 0)
  best, most = seen.argmax(axis=1), seen.max(axis=1)
  chosen = jnp.arange(cells.shape[1])[:, None] == best[:, None]
  raised = (chosen & (known & (most >= _LEAST))[:, None]).any(axis=-1)
  lowered = shared.max(axis=-1) < _OTHER
  large = (cells[..., 2:] - cells[..., :2]).prod(axis=-1) >= _LARGE**2
  trust = jnp.where(large, _TRUST_LARGE, _TRUST) * (raised | lowered)
  ends = np.cumsum([grid.scores[0, ..., 0].size for grid in taught])[:-1]
  believed = []
  for grid, far, face in zip(
    taught,
    jnp.split(trust, ends, axis=1),
    jnp.split(raised, ends, axis=1),
    strict=True,
  ):
    chances = jax.nn.sigmoid(grid.scores)
    shape = (*chances.shape[:-1], 1)
    off = face.reshape(shape) - chances
    believed.append(chances + far.reshape(shape) * off)
  return believed


def _boxes(grid: yunet.Grid, stride: int) -> Float32[Array, "n m 4"]:
  """The boxes of all cells, in pixels."""
  n, rows, columns, _ = grid.boxes.shape
  corners = jnp.stack(
    jnp.meshgrid(jnp.arange(columns), jnp.arange(rows)), axis=-1
  )
  centre = grid.boxes[..., :2] + corners
  half = jnp.exp(jnp.minimum(grid.boxes[..., 2:], 8)) / 2
  boxes = jnp.concatenate([centre - half, centre + half], axis=-1)
  return stride * boxes.reshape(n, -1, 4)


def _overlaps(
  cells: Float32[Array, "n m 4"], boxes: Float32[Array, "n k 4"]
) -> Float32[Array, "n m k"]:
  """The intersections of boxes over their unions."""
  a, b = cells[:, :, None], boxes[:, None]
  sides = jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(
    a[..., :2], b[..., :2]
  )
  shared = jnp.maximum(sides, 0).prod(axis=-1)
  areas = [(x[..., 2:] - x[..., :2]).prod(axis=-1) for x in (a, b)]
  return shared / jnp.maximum(areas[0] + areas[1] - shared, 1e-6)


def imitation(
  grids: Sequence[yunet.Grid],
  taught: Sequence[yunet.Grid],
  believed: Sequence[Float32[Array, "n r c 2"]],
) -> dict[str, Float[Array, ""]]:
  """How far grids are off.

  Cells count as much as they should believe that there is a face, and what is
  said of them as much as they do, too.

  Args:
    grids: of a student.
    taught: of its teacher, whose boxes and points they should have.
    believed: the chances that they should have.

  Returns:
    The parts of the loss: "score", the divergence of both likelihoods of a
    cell; "box" and "points", the mean distance of a number, in cells. All are
    0 where both say the same.
  """
  sums = {name: jnp.float32(0) for name in ("score", "box", "points")}
  total = jnp.float32(0)
  for grid, wanted, chances in zip(grids, taught, believed, strict=True):
    face = jnp.sqrt(chances.prod(axis=-1))
    invented = jax.lax.stop_gradient(yunet.likelihood(grid.scores))
    divergence = _cross_entropy(grid.scores, chances)
    divergence -= jax.scipy.special.entr(chances)
    divergence -= jax.scipy.special.entr(1 - chances)
    weight = jnp.maximum(face, invented) + _NOWHERE
    sums["score"] += (divergence.sum(axis=-1) * weight).sum()
    for name, own, theirs in (
      ("box", grid.boxes, wanted.boxes),
      ("points", grid.points, wanted.points),
    ):
      sums[name] += (jnp.abs(own - theirs).mean(axis=-1) * face).sum()
    total += face.sum()
  return {name: value / (total + 1) for name, value in sums.items()}


def _cross_entropy(logits: jax.Array, believed: jax.Array) -> jax.Array:
  """That of logits to chances."""
  return jax.nn.softplus(logits) - believed * logits
