"""dlib's CNN face detector and the sliding of its window over a photo.

Source: King, "Max-Margin Object Detection" (2015), as in dlib's
``dnn_mmod_face_detection_ex``. A fully convolutional network scores every
place of a window of 80x80 pixels. To find faces of all sizes it sees a pyramid
of the photo, each level 5/6 of the one before, tiled into one canvas.

Photos of many sizes are padded to a few bucket sizes, so that an archive needs
few compilations. The canvas of a bucket is laid out once for all its photos;
the pixels that a photo leaves free are zero, like those between the levels.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int, Int32, UInt8
from PIL import Image

from fawkes_jax import types
from fawkes_jax.models import dlib_resnet

LAYERS = (
  # Channels, kernel size, stride, padding.
  (16, 5, 2, 0),
  (32, 5, 2, 0),
  (32, 5, 2, 0),
  (45, 5, 1, 2),
  (45, 5, 1, 2),
  (45, 5, 1, 2),
  (1, 9, 1, 4),
)
"""The network's convolutions, from input to output."""

CELL_STRIDE = 8
"""Pixels of the canvas from one score to the next."""

CELL_OFFSET = 14
"""The pixel of the canvas that the first score looks at."""

LEVEL_GAP = 10
"""Zero pixels between the levels of the pyramid."""

CANVAS_MARGIN = 11
"""Zero pixels around all of them."""

LOWEST_LEVEL = 5
"""The pyramid ends where the height would fall below this."""


def _clear_outside(x: jax.Array, extents: jax.Array) -> jax.Array:
  """Sets [n, h, w, c] to zero from the given rows and columns on."""
  rows, columns = jnp.arange(x.shape[1])[:, None], jnp.arange(x.shape[2])
  heights, widths = extents[:, 0, None, None], extents[:, 1, None, None]
  inside = (rows < heights) & (columns < widths)
  return jnp.where(inside[..., None], x, 0)


class MmodNet(nn.Module):
  """Scores every place of the window.

  Its variables come from ``fawkes_jax.weights.load_detector``.

  Attributes:
    dtype: the type of the computation.
  """

  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, canvases: Float[Array, "n h w 3"], extents: Int[Array, "n 2"]
  ) -> Float32[Array, "n r c"]:
    """Slides the window over images.

    Args:
      canvases: float [n, h, w, 3], RGB, (value - mean) / 256.
      extents: int [n, 2], height and width of the part of each canvas that
        counts, at the top left. The rest must be zero; the scores inside are
        those of a canvas of that size.

    Returns:
      float32 [n, r, c], scores; above 0 is a face. The window of row r and
      column c is centred at y = 8 r + 14, x = 8 c + 14.
    """
    x = canvases.astype(self.dtype)
    for i, (channels, size, stride, padding) in enumerate(LAYERS):
      if i:
        x = nn.relu(x)
      if padding:
        x = _clear_outside(x, extents)
      x = nn.Conv(
        channels,
        (size, size),
        strides=stride,
        padding=padding,
        dtype=self.dtype,
        name=f"conv_{i}",
      )(x)
      extents = (extents + 2 * padding - size) // stride + 1
    return x[..., 0].astype(jnp.float32)


@functools.lru_cache(maxsize=1024)
def layout(
  height: int, width: int
) -> tuple[int, tuple[tuple[int, int, int, int], ...]]:
  """Tiles the pyramid of an image into a canvas, exactly as dlib does.

  The levels go down a first column until the next one fits beside the last
  one, and then up again in a second column that is flush right. dlib:
  ``compute_tiled_image_pyramid_details``. Scores depend on it: a place of the
  score map looks at 189 pixels, and so at the neighbouring levels too.

  Args:
    height: of the image, at least 1.
    width: of the image, at least 1.

  Returns:
    The height of the canvas (its width is `width` and twice `CANVAS_MARGIN`),
    and top, left, height and width of every level, largest first.
  """
  sizes = [(height, width)]
  while True:
    lower, narrower = _next_level(*sizes[-1])
    if lower < LOWEST_LEVEL or narrower < 1:
      break
    sizes.append((lower, narrower))
  below = sum(h + LEVEL_GAP for h, _ in sizes) - 2 * LEVEL_GAP - height
  y = previous = 0
  levels = []
  for h, w in sizes:
    if w <= width - previous - LEVEL_GAP and 2 * (y - height) >= below:
      break
    levels.append((CANVAS_MARGIN + y, CANVAS_MARGIN, h, w))
    y += h + LEVEL_GAP
    previous = w
  bottom = y = CANVAS_MARGIN + y - LEVEL_GAP
  for h, w in sizes[len(levels) :]:
    if y - h < CANVAS_MARGIN + height:
      break  # It would cover the first level.
    levels.append((y - h, CANVAS_MARGIN + width - w, h, w))
    y -= h + LEVEL_GAP
  return bottom + CANVAS_MARGIN, tuple(levels)


def _next_level(height: int, width: int) -> tuple[int, int]:
  return 5 * height // 6, 5 * width // 6


def _resample(
  image: jax.Array, axis: int, size: int, old: jax.Array, new: jax.Array
) -> jax.Array:
  """Resizes one axis bilinearly, corner to corner.

  Only the first `old` entries of the axis are looked at. The result has `size`
  entries of which the first `new` count; the others are zero.
  """
  index = jnp.arange(size)
  place = index * ((old - 1) / jnp.maximum(new - 1, 1))
  first = jnp.clip(jnp.floor(place).astype(jnp.int32), 0, old - 1)
  second = jnp.minimum(first + 1, old - 1)
  shape = [1] * image.ndim
  shape[axis] = size
  fraction = (place - first).reshape(shape)
  blend = (1 - fraction) * jnp.take(image, first, axis, mode="clip")
  blend += fraction * jnp.take(image, second, axis, mode="clip")
  return jnp.where((index < new).reshape(shape), blend, 0)


def tile_pyramid(
  photo: UInt8[Array, "h w 3"], levels: Int[Array, "k 4"], height: int
) -> Float32[Array, "ch cw 3"]:
  """Tiles the pyramid of one padded photo.

  dlib: ``input_rgb_image_pyramid<pyramid_down<6>>``; each level is resampled
  bilinearly from the one before.

  Args:
    photo: uint8 [h, w, 3], RGB, of a bucket's size. Of it only the first level
      is looked at, at the top left.
    levels: top, left, height and width of every level of the photo, from
      `layout` of its own size; a level of height or width 0 leaves no trace.
    height: of the canvas, a static number.

  Returns:
    float32 [height, w + 2 * CANVAS_MARGIN, 3], the canvas, 0 between levels.
  """
  h, w = photo.shape[:2]
  mean = jnp.asarray(dlib_resnet.MEAN_PIXEL, jnp.float32)
  rows, columns = jnp.arange(h)[:, None, None], jnp.arange(w)[:, None]
  inside = (rows < levels[0, 2]) & (columns < levels[0, 3])
  level = jnp.where(inside, (photo.astype(jnp.float32) - mean) / 256, 0)
  canvas = jnp.zeros((height, w + 2 * CANVAS_MARGIN, 3), jnp.float32)
  for k in range(len(levels)):
    if k:
      h, w = (max(side, 1) for side in _next_level(h, w))
      level = _resample(level, 0, h, levels[k - 1, 2], levels[k, 2])
      level = _resample(level, 1, w, levels[k - 1, 3], levels[k, 3])
    # Added, because the zeros that pad a level may cover another one.
    corner = levels[k, 0], levels[k, 1], jnp.zeros_like(levels[k, 0])
    under = jax.lax.dynamic_slice(canvas, corner, level.shape)
    canvas = jax.lax.dynamic_update_slice(canvas, under + level, corner)
  return canvas


@functools.partial(jax.jit, static_argnames=("module", "height"))
def score_photos(
  variables: Any,
  photos: UInt8[Array, "n h w 3"],
  levels: Int32[Array, "n k 4"],
  extents: Int32[Array, "n 2"],
  *,
  module: MmodNet,
  height: int,
) -> Float32[Array, "n r c"]:
  """Scores every place and size of the window in a batch of padded photos.

  Args:
    variables: of `module`.
    photos: uint8 [n, h, w, 3], RGB.
    levels: int32 [n, k, 4], see `tile_pyramid`.
    extents: int32 [n, 2], height and width of each photo's own canvas.
    module: the network.
    height: of the canvas.

  Returns:
    float32 [n, r, c], over the canvas.
  """
  canvases = jax.lax.map(
    lambda pair: tile_pyramid(pair[0], pair[1], height), (photos, levels)
  )
  scores = module.apply(variables, canvases, extents)
  return jnp.asarray(scores)


def window_boxes(
  places: Int[np.ndarray, "k 2"],
  levels: Int[np.ndarray, "l 4"],
  window: tuple[int, int],
) -> Float[np.ndarray, "k 4"]:
  """Maps places of the score map to boxes of the photo.

  Like dlib, a window belongs to the level nearest to its centre.

  Args:
    places: row and column of the score map.
    levels: the photo's levels, from `layout`.
    window: width and height of the detector's window.

  Returns:
    float64 [k, 4], boxes; right and bottom are inclusive.
  """
  centers = CELL_STRIDE * places[:, ::-1] + float(CELL_OFFSET)
  origins = levels[:, 1::-1].astype(float)
  nearest = np.clip(centers[:, None], origins, origins + levels[:, :1:-1] - 1)
  distance = np.linalg.norm(centers[:, None] - nearest, axis=-1)
  level = distance.argmin(axis=1)
  half = (np.array(window) - 1) / 2
  corners = np.stack([centers - half, centers + half], 1)
  # Each level up multiplies by 6/5 and adds 0.3 (dlib: point_up).
  factor = 1.2 ** level[:, None, None]
  boxes = (corners - origins[level][:, None]) * factor + (factor - 1) * 1.5
  return boxes.reshape(-1, 4)


def suppress(
  boxes: Float[np.ndarray, "k 4"],
  scores: Float[np.ndarray, " k"],
  overlap: tuple[float, float],
) -> list[int]:
  """Keeps the best of overlapping boxes.

  dlib: ``test_box_overlap``, which divides the intersection by the smallest
  box around both, not by their union, and rounds boxes to whole pixels.

  Args:
    boxes: [k, 4]; right and bottom are inclusive.
    scores: [k].
    overlap: two boxes overlap when more than `overlap[0]` of the box around
      both, or more than `overlap[1]` of either one, is shared.

  Returns:
    The indices of the kept boxes, by falling score.
  """
  boxes = np.floor(boxes + 0.5)
  areas = _area(boxes[:, :2], boxes[:, 2:])
  kept: list[int] = []
  for i in np.argsort(-scores, kind="stable"):
    a, b = boxes[i], boxes[kept]
    shared = _area(np.maximum(a[:2], b[:, :2]), np.minimum(a[2:], b[:, 2:]))
    around = _area(np.minimum(a[:2], b[:, :2]), np.maximum(a[2:], b[:, 2:]))
    smaller = np.minimum(areas[i], areas[kept])
    hit = (shared > overlap[0] * around) | (shared > overlap[1] * smaller)
    if not hit.any():
      kept.append(int(i))
  return kept


def _area(low: np.ndarray, high: np.ndarray) -> np.ndarray:
  """Counts the pixels from `low` to `high`, both inclusive."""
  return np.maximum(high - low + 1, 0).prod(axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bucket:
  """The shapes of one compiled program.

  Attributes:
    photo: height and width of the padded photos.
    canvas: height of the canvas.
    levels: the number of levels.
  """

  photo: tuple[int, int]
  canvas: int
  levels: int


def bucket_of(height: int, width: int) -> Bucket:
  """Returns the bucket for photos of some size.

  Args:
    height: of the photo as it is searched, at least 1.
    width: likewise.
  """
  photo = _ladder(height), _ladder(width)
  canvas, levels = layout(*photo)
  # Seldom, a photo's canvas is higher than that of its bucket, because its
  # columns break elsewhere; every level needs room for its padding, too.
  needed, (h, _) = 0, photo
  for top, *_ in layout(height, width)[1]:
    needed = max(needed, top + h)
    h, _ = _next_level(h, 0)
  return Bucket(
    photo=photo,
    canvas=canvas if needed <= canvas else 5 * canvas // 4,
    levels=len(levels) + 1,
  )


def _ladder(side: int) -> int:
  """Rounds a side up to 128 * 2 ** (k / 4), in multiples of 8."""
  step = max(0, math.ceil(4 * math.log2(side / 128) - 1e-9))
  return 8 * math.ceil(16 * 2 ** (step / 4))


def _cells(side: int) -> int:
  """Returns the number of scores along a side of the canvas."""
  for _, size, stride, padding in LAYERS:
    side = (side + 2 * padding - size) // stride + 1
  return max(side, 0)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Detector:
  """Finds faces in photos of any size.

  Attributes:
    name: for reports.
    module: the network.
    variables: its weights.
    window: width and height of the window that the network scores.
    overlap: see `suppress`.
    threshold: faces score above it; a higher one finds fewer and surer faces.
    max_pixels: a photo is never searched at more pixels than this, which
      bounds memory: 4 million pixels take about 1 GB in float32. It prevails
      over `min_face_pixels`.
    batch_size: as many small photos of one bucket are searched at once. More
      than one pays on accelerators only.
  """

  name: str
  module: MmodNet
  variables: Any
  window: tuple[int, int]
  overlap: tuple[float, float]
  threshold: float = 0.0
  max_pixels: int = 4_000_000
  batch_size: int = 1

  def detect(
    self,
    photos: Sequence[UInt8[np.ndarray, "h w 3"]],
    *,
    min_face_pixels: float | None = None,
  ) -> list[list[types.Detection]]:
    """Finds the faces of photos.

    Args:
      photos: uint8 [h, w, 3], RGB, upright, of any sizes.
      min_face_pixels: the side of the smallest boxes to look for, in pixels of
        the photo. Halving it makes the search four times as expensive. None
        means `default_min_face` of each photo.

    Returns:
      For each photo its faces, by falling score. Their boxes are dlib's:
      right and bottom are the last pixels inside, and they may reach outside
      the photo.

    Raises:
      ValueError: `min_face_pixels` is not positive.
    """
    if min_face_pixels is not None and min_face_pixels <= 0:
      raise ValueError(f"min_face_pixels must be > 0, got {min_face_pixels}")
    buckets: dict[Bucket, list[tuple[int, tuple[int, int]]]] = {}
    for i, photo in enumerate(photos):
      size = self._search_size(photo.shape[:2], min_face_pixels)
      buckets.setdefault(bucket_of(*size), []).append((i, size))
    found: list[list[types.Detection]] = [[] for _ in photos]
    for bucket, members in buckets.items():
      room = max(1, self.max_pixels // math.prod(bucket.photo))
      batch = min(self.batch_size, room)
      while members:
        count = batch if len(members) >= batch else 1
        chunk, members = members[:count], members[count:]
        padded = np.zeros((count, *bucket.photo, 3), np.uint8)
        levels = np.zeros((count, bucket.levels, 4), np.int32)
        extents = np.zeros((count, 2), np.int32)
        for k, (i, size) in enumerate(chunk):
          padded[k, : size[0], : size[1]] = _resized(photos[i], size)
          height, own = layout(*size)
          levels[k, : len(own)] = own
          extents[k] = height, size[1] + 2 * CANVAS_MARGIN
        scores = score_photos(
          self.variables,
          padded,
          levels,
          extents,
          module=self.module,
          height=bucket.canvas,
        )
        for (i, size), one in zip(chunk, np.asarray(scores), strict=True):
          found[i] = self._faces(one, size, photos[i].shape[:2])
    return found

  def _search_size(
    self, shape: tuple[int, ...], min_face_pixels: float | None
  ) -> tuple[int, int]:
    """Returns height and width at which to search a photo."""
    height, width = shape
    smallest = min_face_pixels or default_min_face(height, width)
    scale = min(
      min(self.window) / smallest,
      math.sqrt(self.max_pixels / (height * width)),
    )
    return max(1, round(height * scale)), max(1, round(width * scale))

  def _faces(
    self,
    scores: np.ndarray,
    size: tuple[int, int],
    shape: tuple[int, ...],
  ) -> list[types.Detection]:
    """Reads the faces of one photo from its score map."""
    height, levels = layout(*size)
    # What lies outside the photo's own canvas only pads the bucket.
    scores = scores[: _cells(height), : _cells(size[1] + 2 * CANVAS_MARGIN)]
    places = np.argwhere(scores > self.threshold)
    confidences = scores[tuple(places.T)]
    boxes = window_boxes(places, np.array(levels), self.window)
    kept = suppress(boxes, confidences, self.overlap)
    # Whole pixels are scaled, so a box is taken at its outer edges.
    edges = np.array([-0.5, -0.5, 0.5, 0.5])
    ratio = np.array([shape[1] / size[1], shape[0] / size[0]] * 2)
    boxes = ((boxes[kept] + 0.5 + edges) * ratio - 0.5 - edges).astype(
      np.float32
    )
    return [
      types.Detection(box=box, score=float(confidences[i]))
      for box, i in zip(boxes, kept, strict=True)
    ]


def default_min_face(height: int, width: int) -> float:
  """Returns the smallest face worth looking for in a photo of some size.

  Args:
    height: of the photo, in pixels.
    width: of the photo, in pixels.

  Returns:
    Pixels: a fortieth of the longer side, but at least 20.
  """
  return max(20.0, max(height, width) / 40)


def _resized(photo: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes uint8 [h, w, 3], bilinearly and with antialiasing."""
  if photo.shape[:2] == size:
    return photo
  image = Image.fromarray(photo)
  return np.asarray(
    image.resize(size[::-1], Image.Resampling.BILINEAR, reducing_gap=2.0)
  )
