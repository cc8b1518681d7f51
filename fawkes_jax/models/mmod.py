"""dlib's CNN face detector and the sliding of its window over a photo.

Source: King, "Max-Margin Object Detection" (2015), as in dlib's
``dnn_mmod_face_detection_ex``. A fully convolutional network scores every
place of a window of 80x80 pixels. To find faces of all sizes it sees a pyramid
of the photo, each level 5/6 of the one before, tiled into one canvas.

Canvases are padded with zeros to the sides of a coarse ladder, so that photos
of many sizes need few compilations.
"""

import concurrent.futures
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

from fawkes_jax import types
from fawkes_jax.models import dlib_resnet, resizing
from fawkes_jax.xla import compiler

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

DOUBT = -0.8
"""Above this score a face is likely; docs/cloaking.md has the measurement."""

REACH = 10
"""How many scores a border of the canvas is seen from, at most."""


def _clear_outside(x: jax.Array, extents: jax.Array) -> jax.Array:
  """Sets [n, h, w, c] to zero from the given rows and columns on."""
  rows, columns = jnp.arange(x.shape[1])[:, None], jnp.arange(x.shape[2])
  heights, widths = extents[:, 0, None, None], extents[:, 1, None, None]
  inside = (rows < heights) & (columns < widths)
  return jnp.where(inside[..., None], x, 0)


class MmodNet(nn.Module):
  """Scores every place of the window.

  Its variables come from ``fawkes_jax.weights.builtin.load_mmod``.

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


def canvas_size(height: int, width: int) -> tuple[int, int]:
  """Returns height and width of the canvas of an image of some size."""
  return layout(height, width)[0], width + 2 * CANVAS_MARGIN


def _next_level(height: int, width: int) -> tuple[int, int]:
  return 5 * height // 6, 5 * width // 6


def draw_canvas(
  photo: UInt8[np.ndarray, "h w 3"], canvas: Float32[np.ndarray, "3 ch cw"]
) -> None:
  """Draws the pyramid of a photo into the top left of a canvas of zeros.

  dlib: ``input_rgb_image_pyramid<pyramid_down<6>>``; each level is resampled
  bilinearly, corner to corner, from the one before. This is numpy, because it
  takes a few hundredths of the network's time on a CPU, whereas XLA needs
  seconds to compile it for every size.

  Args:
    photo: uint8 [h, w, 3], RGB.
    canvas: float32 [3, ch, cw], changed in place; at least as large as
      `layout(h, w)` says.
  """
  mean = np.array(dlib_resnet.MEAN_PIXEL, np.float32)[:, None, None]
  planes = photo.transpose(2, 0, 1).astype(np.float32, order="C")
  level: np.ndarray = (planes - mean) / 256
  for top, left, height, width in layout(*photo.shape[:2])[1]:
    level = _resample(_resample(level, 1, height), 2, width)
    canvas[:, top : top + height, left : left + width] = level


def _resample(image: np.ndarray, axis: int, size: int) -> np.ndarray:
  """Resizes one axis of [3, h, w] bilinearly, so that its ends coincide."""
  old = image.shape[axis]
  if size == old:
    return image
  place = np.arange(size) * ((old - 1) / max(size - 1, 1))
  first = np.minimum(place.astype(int), old - 1)
  second = np.minimum(first + 1, old - 1)
  fraction = (place - first).astype(np.float32)
  if axis == 1:
    fraction = fraction[:, None]
  blend = image.take(first, axis)
  blend += fraction * (image.take(second, axis) - blend)
  return blend


@functools.cache
def _program() -> jax.stages.Wrapped:
  return compiler.jit(score_canvases, static_argnames="module")


def score_canvases(
  variables: Any,
  canvases: Float32[Array, "n 3 h w"],
  extents: Int32[Array, "n 2"],
  *,
  module: MmodNet,
) -> Float32[Array, "n r c"]:
  """Scores every place of the window; see `MmodNet`, but channels come first.

  Args:
    variables: of `module`.
    canvases: float32 [n, 3, h, w], from `draw_canvas`.
    extents: int32 [n, 2], height and width of each photo's own canvas.
    module: the network.

  Returns:
    float32 [n, r, c], scores.
  """
  scores = module.apply(variables, canvases.transpose(0, 2, 3, 1), extents)
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


def bucket_side(side: int) -> int:
  """Rounds a side of a canvas up to 128 * 2 ** (k / 6), in multiples of 8."""
  step = max(0, math.ceil(6 * math.log2(side / 128) - 1e-9))
  return 8 * math.ceil(16 * 2 ** (step / 6))


def _cells(side: int) -> int:
  """Returns the number of scores along a side of the canvas."""
  for _, size, stride, padding in LAYERS:
    side = (side + 2 * padding - size) // stride + 1
  return max(side, 0)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Detector(types.Detector):
  """Finds faces in photos of any size.

  Attributes:
    name: for reports.
    module: the network.
    variables: its weights.
    window: width and height of the window that the network scores.
    overlap: see `suppress`.
    threshold: faces score above it; a higher one finds fewer and surer faces.
    least_share: the side of the smallest face that is looked for, as a share
      of the photo's longer side. docs/cloaking.md has the measurement of what
      smaller ones cost.
    least_side: that side in pixels of the photo, at least.
    doubt: above it a face is likely.
    max_pixels: a photo is never searched at more pixels than this, which
      bounds memory: its canvas has 43 bytes for each. It prevails over the
      smallest face; `smallest_face` says what is looked for.
    strip_pixels: a larger canvas is scored in strips of rows, see `_score`.
    batch_size: as many small photos of one bucket are searched at once. On a
      CPU one is fastest.
  """

  name: str
  module: MmodNet
  variables: Any
  window: tuple[int, int]
  overlap: tuple[float, float]
  threshold: float = 0.0
  least_share: float = 1 / 48
  least_side: float = 24.0
  doubt: float = DOUBT
  max_pixels: int = 20_000_000
  strip_pixels: int = 6_000_000
  batch_size: int = 1

  def look(
    self,
    photos: Sequence[UInt8[np.ndarray, "h w 3"]],
    *,
    min_face_pixels: float | None = None,
    pool: concurrent.futures.Executor | None = None,
  ) -> list[types.Detections]:
    """Finds the faces of photos, or where they are likely.

    Args:
      photos: uint8 [h, w, 3], RGB, upright, of any sizes.
      min_face_pixels: the side of the smallest boxes to look for, in pixels of
        the photo. Halving it makes the search four times as expensive. None
        means what `least_share` and `least_side` say of each photo.
      pool: of threads that make photos smaller; None for the caller's.

    Returns:
      What is in each photo. Boxes are dlib's: right and bottom are the last
      pixels inside, and they may reach outside the photo.

    Raises:
      ValueError: `min_face_pixels` is not positive.
    """
    if min_face_pixels is not None and min_face_pixels <= 0:
      raise ValueError(f"min_face_pixels must be > 0, got {min_face_pixels}")
    sizes = [self._search_size(p.shape[:2], min_face_pixels) for p in photos]
    buckets: dict[tuple[int, int], list[int]] = {}
    for i, size in enumerate(sizes):
      height, width = canvas_size(*size)
      bucket = bucket_side(height), bucket_side(width)
      if math.prod(bucket) > self.strip_pixels:
        bucket = height, bucket[1]
      buckets.setdefault(bucket, []).append(i)
    variables = jax.device_put(self.variables)
    apply = map if pool is None else pool.map
    found: dict[int, types.Detections] = {}
    for bucket, members in buckets.items():
      room = max(1, self.strip_pixels // math.prod(bucket))
      batch = min(self.batch_size, room)
      while members:
        count = batch if len(members) >= batch else 1
        chunk, members = members[:count], members[count:]
        canvases = np.zeros((count, 3, *bucket), np.float32)
        smaller = apply(
          resizing.resized,
          [photos[i] for i in chunk],
          [sizes[i] for i in chunk],
        )
        for photo, canvas in zip(smaller, canvases, strict=True):
          draw_canvas(photo, canvas)
        extents = np.array([canvas_size(*sizes[i]) for i in chunk], np.int32)
        scores = self._score(variables, canvases, extents)
        for i, one in zip(chunk, scores, strict=True):
          found[i] = self._read(one, sizes[i], photos[i].shape[:2])
    return [found[i] for i in range(len(photos))]

  def smallest_face(
    self, shape: tuple[int, int], min_face_pixels: float | None = None
  ) -> float:
    """See `types.Detector`."""
    height, width = shape
    searched = math.prod(self._search_size(shape, min_face_pixels))
    return min(self.window) / math.sqrt(searched / (height * width))

  def _score(
    self, variables: Any, canvases: np.ndarray, extents: np.ndarray
  ) -> np.ndarray:
    """Scores canvases, those that are large in strips that overlap.

    So memory does not grow with the canvas, and the scores are those of the
    whole: what a strip's border could be seen from is scored in the next.
    """
    height, width = canvases.shape[2:]
    strip = height
    if height * width > self.strip_pixels:
      strip = CELL_STRIDE * (self.strip_pixels // (CELL_STRIDE * width))
      strip = min(height, max(strip, 32 * CELL_STRIDE))
    out = np.empty((len(canvases), _cells(height), _cells(width)), np.float32)
    first = 0
    while True:
      top = CELL_STRIDE * first
      part = canvases[:, :, top : top + strip]
      missing = strip - part.shape[2]
      part = np.pad(part, ((0, 0), (0, 0), (0, missing), (0, 0)))
      below = np.clip(extents - (top, 0), 0, part.shape[2:])
      scores = _program()(
        variables,
        *jax.device_put((part, below.astype(np.int32))),
        module=self.module,
      )
      skip = REACH if first else 0
      kept = jax.device_get(scores)[:, skip:]
      kept = kept[:, : out.shape[1] - first - skip]
      out[:, first + skip : first + skip + kept.shape[1]] = kept
      if top + strip >= height:
        return out
      # The last scores of this strip are overwritten by the next one's.
      first += _cells(strip) - 2 * REACH

  def _search_size(
    self, shape: tuple[int, ...], min_face_pixels: float | None
  ) -> tuple[int, int]:
    """Returns height and width at which to search a photo."""
    height, width = shape
    smallest = min_face_pixels or max(
      self.least_side, self.least_share * max(height, width)
    )
    scale = min(
      min(self.window) / smallest,
      math.sqrt(self.max_pixels / (height * width)),
    )
    return max(1, round(height * scale)), max(1, round(width * scale))

  def _read(
    self,
    scores: np.ndarray,
    size: tuple[int, int],
    shape: tuple[int, ...],
  ) -> types.Detections:
    """Reads what is in one photo from its score map."""
    rows, columns = (_cells(side) for side in canvas_size(*size))
    scores = scores[:rows, :columns]  # The rest only pads the bucket.
    best = scores.max(initial=-np.inf)
    if best > self.threshold or not best > self.doubt:
      return types.Detections(
        faces=self._faces(scores, scores > self.threshold, size, shape)
      )
    [likely, *_] = self._faces(scores, scores == best, size, shape)
    return types.Detections(faces=[], likely=likely)

  def _faces(
    self,
    scores: np.ndarray,
    wanted: np.ndarray,
    size: tuple[int, int],
    shape: tuple[int, ...],
  ) -> list[types.Detection]:
    """The faces at some places of a score map, without those that overlap."""
    places = np.argwhere(wanted)
    confidences = scores[tuple(places.T)]
    boxes = window_boxes(places, np.array(layout(*size)[1]), self.window)
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
