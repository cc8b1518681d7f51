"""What a detector's grids should say of scenes, and how far they are off.

Sources: "Generalized Focal Loss" (Li et al., 2020; scores learn how well the
box fits), "Generalized Intersection over Union" (Rezatofighi et al., 2019).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fawkes_jax.models import yunet

# Square roots of the areas of faces, in pixels, that a grid is to find. Where
# two grids share a size, both find the face.
_SIZES = ((0.0, 40.0), (28.0, 112.0), (80.0, 1e9))

# The cells that find a face lie within so much of its box's sides from its
# middle, and so many cells.
_NEAR = 0.3
_NEAR_CELLS = 1.2


def detection(
  grids: Sequence[yunet.Grid],
  boxes: Float[Array, "n k 4"],
  points: Float[Array, "n k 5 2"],
  kinds: Int[Array, "n k"],
) -> dict[str, Float[Array, ""]]:
  """How far grids are off.

  Args:
    grids: of a network.
    boxes: of faces, in pixels.
    points: their landmarks, not a number where unknown.
    kinds: 1 for a face, -1 for what is ignored, 0 for nothing.

  Returns:
    The parts of the loss, "score", "box" and "points".
  """
  sums = {name: jnp.float32(0) for name in ("score", "box", "points")}
  found = jnp.float32(0)
  for grid, stride, sizes in zip(grids, yunet.STRIDES, _SIZES, strict=True):
    parts, count = _of_grid(grid, stride, sizes, boxes, points, kinds)
    sums = {name: sums[name] + parts[name] for name in sums}
    found += count
  return {name: value / jnp.maximum(found, 1) for name, value in sums.items()}


def _of_grid(
  grid: yunet.Grid,
  stride: int,
  sizes: tuple[float, float],
  boxes: jax.Array,
  points: jax.Array,
  kinds: jax.Array,
) -> tuple[dict[str, jax.Array], jax.Array]:
  """Sums over the cells of one grid, and how many of them find a face."""
  n, rows, columns, _ = grid.boxes.shape
  x, y = jnp.meshgrid(jnp.arange(columns), jnp.arange(rows))
  corners = jnp.stack([x, y], axis=-1).reshape(-1, 2).astype(jnp.float32)
  middles = (corners + 0.5) * stride  # [cells, 2]
  face, ignored = _assigned(middles, stride, sizes, boxes, kinds)
  chosen = face >= 0
  index = jnp.maximum(face, 0)
  wanted = jnp.take_along_axis(boxes, index[..., None], axis=1)
  predicted = grid.boxes.reshape(n, -1, 4)
  centre = (corners + predicted[..., :2]) * stride
  half = jnp.exp(jnp.clip(predicted[..., 2:], -6, 6)) * stride / 2
  overlap, general = _overlap(
    jnp.concatenate([centre - half, centre + half], axis=-1), wanted
  )
  sides = jnp.maximum(wanted[..., 2:] - wanted[..., :2], 1)
  middle = (wanted[..., :2] + wanted[..., 2:]) / 2
  off = jnp.abs(centre - middle) / sides
  off += jnp.abs(predicted[..., 2:] - jnp.log(sides / stride))
  box = (1 - general) + 0.3 * _smooth(off).sum(axis=-1)
  marks = jnp.take_along_axis(
    points.reshape(n, -1, 10), index[..., None], axis=1
  )
  known = chosen & jnp.isfinite(marks).all(axis=-1)
  marks = jnp.where(jnp.isfinite(marks), marks, 0).reshape(n, -1, 5, 2)
  spots = grid.points.reshape(n, -1, 5, 2) + corners[:, None]
  away = (spots * stride - marks) / jnp.sqrt(sides.prod(axis=-1))[
    ..., None, None
  ]
  landmark = _smooth(jnp.abs(away) * 4).sum(axis=(-1, -2))
  fit = jax.lax.stop_gradient(jnp.clip(overlap, 0, 1))
  target = jnp.where(chosen, 0.4 + 0.6 * fit, 0)
  logits = grid.scores.mean(axis=-1).reshape(n, -1)
  chance = jax.nn.sigmoid(logits)
  entropy = jax.nn.softplus(logits) - target * logits
  score = jnp.square(chance - target) * entropy
  parts = {
    "score": jnp.where(ignored & ~chosen, 0, score).sum(),
    "box": jnp.where(chosen, box, 0).sum(),
    "points": jnp.where(known, landmark, 0).sum(),
  }
  return parts, chosen.sum()


def _assigned(
  middles: Float[Array, "c 2"],
  stride: int,
  sizes: tuple[float, float],
  boxes: Float[Array, "n k 4"],
  kinds: Int[Array, "n k"],
) -> tuple[Int[Array, "n c"], Bool[Array, "n c"]]:
  """Which face each cell is to find, -1 for none, and what is ignored."""
  sides = boxes[..., 2:] - boxes[..., :2]
  size = jnp.sqrt(jnp.maximum(sides.prod(axis=-1), 0))
  low, high = sizes
  fits = (kinds == 1) & (size >= low) & (size < high)
  centre = (boxes[..., 2:] + boxes[..., :2]) / 2
  away = jnp.abs(middles[:, None] - centre[:, None])  # [n, c, k, 2]
  reach = jnp.clip(_NEAR * sides, 0.5 * stride, _NEAR_CELLS * stride)
  near = (away <= reach[:, None]).all(axis=-1) & fits[:, None]
  distance = away.sum(axis=-1) / jnp.maximum(size, 1)[:, None]
  distance = jnp.where(near, distance, jnp.inf)
  face = jnp.where(near.any(axis=-1), distance.argmin(axis=-1), -1)
  inside = (away <= 0.5 * sides[:, None]).all(axis=-1)
  # Nothing is learned from a face's cells of a grid that is not to find it but
  # might.
  near_size = (size >= 0.7 * low) & (size < 1.4 * high) & (kinds == 1) & ~fits
  ignored = inside & ((kinds == -1) | near_size)[:, None]
  return face, ignored.any(axis=-1)


def _overlap(
  a: Float[Array, "*c 4"], b: Float[Array, "*c 4"]
) -> tuple[Float[Array, "*c"], Float[Array, "*c"]]:
  """Intersection over union, and its generalised form."""
  shared = jnp.maximum(
    jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2]), 0
  ).prod(axis=-1)
  areas = [
    jnp.maximum(box[..., 2:] - box[..., :2], 0).prod(axis=-1) for box in (a, b)
  ]
  union = jnp.maximum(areas[0] + areas[1] - shared, 1e-6)
  around = (
    jnp.maximum(a[..., 2:], b[..., 2:]) - jnp.minimum(a[..., :2], b[..., :2])
  ).prod(axis=-1)
  overlap = shared / union
  return overlap, overlap - (around - union) / jnp.maximum(around, 1e-6)


def _smooth(x: jax.Array) -> jax.Array:
  """Of a distance: its square where it is small, else itself."""
  return jnp.where(x < 0.5, jnp.square(x), x - 0.25)
