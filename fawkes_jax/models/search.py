"""Searching photos for faces with YuNet's network, in all sizes and turns.

The network knows upright faces, and not all sizes. So a photo is looked at in
two sizes; it is turned where it seems to lie on its side; and faces that are
tilted are looked at again, upright.
"""

import concurrent.futures
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float32, UInt8

from fawkes_jax import types
from fawkes_jax.imaging import geometry
from fawkes_jax.models import resizing
from fawkes_jax.models.yunet import (
  MULTIPLE,
  Faces,
  Grid,
  YuNet,
  decode,
  likelihood,
  suppress,
)
from fawkes_jax.xla import compiler

_ROOM = 1.6
"""A photo is searched again where its longer side is more than this times the
largest face that is found well."""

_LEAST_AGAIN = 1.5
"""What is found in a smaller copy counts from this times `least_side` on."""

DOUBT = 0.2
"""From this likelihood on a face is likely; docs/cloaking.md has the
measurement."""

# A face that is tilted by more than this is looked at again, upright, in a crop
# of so many pixels; up to so many times, until it turns by less than the last.
_TILTED = math.radians(8)
_CLOSE = 128
_CLOSE_LOOKS = 3
_SETTLED = math.radians(3)


@functools.cache
def _program() -> jax.stages.Wrapped:
  """Looks for faces in images: gives grids, and how likely each place is."""

  def look(
    variables: Any, images: UInt8[Array, "n h w 3"]
  ) -> tuple[list[Grid], list[jax.Array]]:
    grids: Any = YuNet().apply(variables, images)
    return grids, [likelihood(grid.scores) for grid in grids]

  return compiler.jit(look)


_Shape = tuple[int, ...]  # Height and width.
_Map = Callable[..., Iterable[Any]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Detector(types.Detector):
  """Finds faces and their landmarks in photos of any size.

  Photos are searched at a scale at which the smallest face that is looked for
  has `least_side` pixels; where the network knows no faces as large as they may
  be there, a second time at a smaller one. A photo may lie on its side, as
  scanned ones do: where no face is beyond doubt, it is searched turned by one,
  two and three quarters, too; and tilted faces are looked at again, upright.
  Canvases have a coarse ladder of sizes, so that photos of many sizes need few
  compilations.

  Attributes:
    name: for reports.
    variables: the weights of the network.
    threshold: the least likelihood of a face, 0..1.
    doubt: the least likelihood with which a face is likely.
    overlap: see `decode`.
    least_side: the side of the smallest face that the network finds well.
    most_side: that of the largest one; None where it finds all.
    certain: the likelihood from which on a face is beyond doubt, so that its
      photo is upright; None where photos and faces are only looked at as they
      are.
    turned_threshold: the least likelihood of a face in a turned photo, where
      `threshold` is not higher.
    max_pixels: a photo is never searched at more pixels than this, which bounds
      memory. It prevails over the smallest face; `smallest_face` says what is
      looked for.
    batch_size: as many photos of one size of canvas are searched at once. On a
      CPU one is fastest.
  """

  name: str
  variables: Any
  threshold: float = 0.6
  doubt: float = DOUBT
  overlap: float = 0.3
  least_side: float = 16.0
  most_side: float | None = None
  certain: float | None = None
  turned_threshold: float = 0.6
  max_pixels: int = 4_000_000
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
      photos: uint8 [h, w, 3], RGB, of any sizes; upright, unless `certain` is
        given.
      min_face_pixels: the side of the smallest faces to look for, in pixels of
        the photo. Halving it makes the search four times as expensive. None
        means `default_min_face` of each photo.
      pool: of threads that make photos smaller and cut out faces; None for the
        caller's.

    Returns:
      What is in each photo, with landmarks. Right and bottom of a box are the
      last pixels inside, and it may reach outside the photo.

    Raises:
      ValueError: `min_face_pixels` is not positive.
    """
    if min_face_pixels is not None and min_face_pixels <= 0:
      raise ValueError(f"min_face_pixels must be > 0, got {min_face_pixels}")
    apply = map if pool is None else pool.map
    shapes = [photo.shape[:2] for photo in photos]
    sizes = [self._search_sizes(shape, min_face_pixels) for shape in shapes]
    looks = [(i, size) for i, some in enumerate(sizes) for size in some]
    images = iter(
      apply(
        resizing.resized,
        [photos[i] for i, _ in looks],
        [size for _, size in looks],
      )
    )
    scaled = [[next(images) for _ in some] for some in sizes]
    searched = self._all_searched(scaled)
    upright = [
      self._joined(some, shape, self.threshold)
      for some, shape in zip(searched, shapes, strict=True)
    ]
    if self.certain is not None:
      doubtful = [
        i
        for i, faces in enumerate(upright)
        if not (faces.scores >= self.certain).any()
      ]
      upright = self._straightened(photos, upright, apply)
      turned = self._turned(
        [photos[i] for i in doubtful], [scaled[i] for i in doubtful], apply
      )
      for i, more in zip(doubtful, turned, strict=True):
        upright[i] = Faces.together(upright[i], more)
    found: list[types.Detections] = []
    for faces, some, shape in zip(upright, searched, shapes, strict=True):
      faces = self._best(faces)
      likely = None
      if not faces.scores.size:
        doubted = _listed(self._joined(some, shape, self.doubt))
        likely = max(doubted, key=lambda face: face.score, default=None)
      found.append(types.Detections(faces=_listed(faces), likely=likely))
    return found

  def _all_searched(
    self, scaled: Sequence[Sequence[np.ndarray]]
  ) -> list[list[tuple[_Shape, Faces]]]:
    """Each photo's images with their faces; the images' sizes beside them."""
    faces = iter(self._searched([image for some in scaled for image in some]))
    return [[(i.shape[:2], next(faces)) for i in some] for some in scaled]

  def _searched(
    self, images: Sequence[UInt8[np.ndarray, "h w 3"]]
  ) -> list[Faces]:
    """The faces of images at the scale at which they are searched."""
    if not images:
      return []
    canvases: dict[tuple[int, int], list[int]] = {}
    for i, image in enumerate(images):
      height, width = image.shape[:2]
      bucket = canvas_side(height), canvas_side(width)
      canvases.setdefault(bucket, []).append(i)
    variables = jax.device_put(self.variables)
    found: dict[int, Faces] = {}
    for bucket, members in canvases.items():
      while members:
        count = self.batch_size if len(members) >= self.batch_size else 1
        chunk, members = members[:count], members[count:]
        canvas = np.zeros((count, *bucket, 3), np.uint8)
        for i, place in zip(chunk, canvas, strict=True):
          height, width = images[i].shape[:2]
          place[:height, :width] = images[i]
        grids, likely = jax.device_get(
          _program()(variables, jax.device_put(canvas))
        )
        # What is less likely does not suppress what is likelier.
        least = min(self.doubt, self.threshold)
        read = decode(grids, likely, threshold=least, overlap=self.overlap)
        found.update(zip(chunk, read, strict=True))
    return [found[i] for i in range(len(images))]

  def _turned(
    self,
    photos: Sequence[UInt8[np.ndarray, "h w 3"]],
    scaled: Sequence[Sequence[np.ndarray]],
    apply: _Map,
  ) -> list[Faces]:
    """The faces of photos that are not upright.

    Args:
      photos: as they are.
      scaled: each at the scales at which it is searched.
      apply: as for `_straightened`.
    """
    quarters = 1, 2, 3
    least = max(self.turned_threshold, self.threshold)
    turned = [np.rot90(photo, q) for photo in photos for q in quarters]
    searched = self._all_searched(
      [[np.rot90(s, q) for s in some] for some in scaled for q in quarters]
    )
    found = [
      self._joined(some, photo.shape[:2], least)
      for some, photo in zip(searched, turned, strict=True)
    ]
    faces = iter(self._straightened(turned, found, apply))
    return [
      Faces.together(
        *(_turned_back(next(faces), q, photo.shape[:2]) for q in quarters)
      )
      for photo in photos
    ]

  def _straightened(
    self,
    photos: Sequence[UInt8[np.ndarray, "h w 3"]],
    found: Sequence[Faces],
    apply: _Map,
  ) -> list[Faces]:
    """Places the landmarks of tilted faces better.

    The network knows upright faces and takes others for less tilted than they
    are. So each is cut out and turned by what was seen of its tilt, and looked
    at again, until it is upright.

    Args:
      photos: in which the faces are.
      found: the faces of each.
      apply: `map`, or that of a pool.

    Returns:
      The faces with other landmarks; a tilted one is as likely as it is when it
      is upright.
    """
    faces = [Faces(f.boxes, f.points.copy(), f.scores.copy()) for f in found]
    tilted = []
    for i, some in enumerate(faces):
      for j, points in enumerate(some.points):
        seen = _close(points)
        if abs(np.angle(seen.axis)) > _TILTED:
          tilted.append((i, j, seen))
    for _ in range(_CLOSE_LOOKS):
      crops = apply(
        lambda face: geometry.extract(photos[face[0]], face[2]), tilted
      )
      looks = self._searched([np.rint(crop).astype(np.uint8) for crop in crops])
      left = []
      for (i, j, before), look in zip(tilted, looks, strict=True):
        centres = look.boxes.reshape(-1, 2, 2).mean(axis=1)
        inside = (np.abs(centres - _CLOSE / 2) < _CLOSE / 4).all(axis=1)
        if not inside.any():
          continue
        best = np.flatnonzero(inside)[0]
        faces[i].points[j] = before.in_photo(look.points[best] - 0.5) + 0.5
        faces[i].scores[j] = look.scores[best]
        seen = _close(faces[i].points[j])
        if abs(np.angle(seen.axis / before.axis)) > _SETTLED:
          left.append((i, j, seen))
      tilted = left
    return faces

  def _joined(
    self,
    looks: Sequence[tuple[_Shape, Faces]],
    shape: _Shape,
    least: float,
  ) -> Faces:
    """The faces of a photo that was searched at one or two scales.

    What the first search finds beyond the sizes that the network knows may be a
    part of a face; it is kept where the second finds no face.

    Args:
      looks: the size at which it was searched, and what was found, of each.
      shape: of the photo.
      least: the likelihood that counts.
    """
    looks = [(size, f.some(f.scores >= least)) for size, f in looks]
    (size, faces), *again = looks
    sides = _sides(faces)
    faces = _scaled(faces, size, shape)
    for size, others in again:
      large = _sides(others) >= _LEAST_AGAIN * self.least_side
      others = _scaled(others.some(large), size, shape)
      doubtful = sides > (self.most_side or np.inf)
      part = [
        unsure and bool((_covered(box, others.boxes) > 0.5).any())
        for unsure, box in zip(doubtful, faces.boxes, strict=True)
      ]
      faces = faces.some(~np.array(part, bool))
      faces = self._best(faces, others)
    inside = (faces.boxes[:, :2] < shape[::-1]).all(axis=1)
    return faces.some(np.asarray(inside))

  def _best(self, *parts: Faces) -> Faces:
    """The likeliest of faces that overlap."""
    faces = Faces.together(*parts)
    kept = suppress(faces.boxes, faces.scores, self.overlap)
    return faces.some(np.array(kept, int))

  def smallest_face(
    self, shape: tuple[int, int], min_face_pixels: float | None = None
  ) -> float:
    """See `types.Detector`."""
    size = self._search_sizes(shape, min_face_pixels)[0]
    return self.least_side * shape[0] / size[0]

  def _search_sizes(
    self, shape: tuple[int, ...], min_face_pixels: float | None
  ) -> list[tuple[int, int]]:
    """Heights and widths at which a photo is searched, one or two."""
    height, width = shape
    smallest = min_face_pixels or default_min_face(height, width)
    scales = [
      min(
        self.least_side / smallest,
        math.sqrt(self.max_pixels / (height * width)),
      )
    ]
    # No face is larger than the photo.
    longest = max(shape)
    if (
      self.most_side is not None
      and scales[0] * longest > _ROOM * self.most_side
    ):
      scales.append(_ROOM * self.most_side / longest)
    return [
      (max(1, round(height * scale)), max(1, round(width * scale)))
      for scale in scales
    ]


def _close(points: Float32[np.ndarray, "5 2"]) -> geometry.Alignment:
  """Where a face is upright in a crop of `_CLOSE` pixels, by its landmarks."""
  return geometry.align_arcface(points - np.float32(0.5), side=_CLOSE)


def _sides(faces: Faces) -> np.ndarray:
  """The square roots of the areas of boxes."""
  boxes = faces.boxes
  return np.sqrt(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1))


def _scaled(faces: Faces, size: _Shape, shape: _Shape) -> Faces:
  """Faces of a photo that was searched at some height and width."""
  ratio = np.array([shape[1] / size[1], shape[0] / size[0]], np.float32)
  return Faces(
    faces.boxes * np.tile(ratio, 2), faces.points * ratio, faces.scores
  )


def _turned_back(faces: Faces, quarters: int, shape: _Shape) -> Faces:
  """Faces of a photo of some shape that `np.rot90` has turned."""
  height, width = shape
  boxes, points = faces.boxes.reshape(-1, 2, 2), faces.points
  for quarter in range(quarters, 0, -1):
    # What this quarter has turned was so wide.
    side = width if quarter % 2 else height
    boxes, points = (
      np.stack([np.float32(side) - at[..., 1], at[..., 0]], axis=-1)
      for at in (boxes, points)
    )
  boxes = np.concatenate([boxes.min(axis=1), boxes.max(axis=1)], axis=1)
  return Faces(boxes, points, faces.scores)


def _listed(faces: Faces) -> list[types.Detection]:
  """Faces with their boxes from edges to the last pixels inside."""
  return [
    types.Detection(
      box=box - np.array([0, 0, 1, 1], np.float32),
      score=float(score),
      points=point - np.float32(0.5),
    )
    for box, point, score in zip(*faces, strict=True)
  ]


def _covered(box: np.ndarray, others: np.ndarray) -> np.ndarray:
  """How much of a box each of others covers, 0..1."""
  shared = np.maximum(
    np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0
  ).prod(axis=1)
  return shared / max(float((box[2:] - box[:2]).prod()), 1e-9)


def default_min_face(height: int, width: int) -> float:
  """The smallest face worth looking for in a photo of some size.

  Args:
    height: of the photo, in pixels.
    width: of the photo, in pixels.

  Returns:
    Pixels: 1/64 of the longer side, but at least 16.
  """
  return max(16.0, max(height, width) / 64)


def canvas_side(side: int) -> int:
  """Rounds a side up to 128 * 2 ** (k / 4), in multiples of `MULTIPLE`."""
  step = max(0, math.ceil(4 * math.log2(side / 128) - 1e-9))
  return MULTIPLE * math.ceil(128 / MULTIPLE * 2 ** (step / 4) - 1e-9)


TWIN_MOST_SIDE = 160.0
"""The largest faces that a twin places well; see `Detector.most_side`."""

TWIN_CERTAIN, TWIN_TURNED = 0.9, 0.65
"""See `Detector.certain` and `Detector.turned_threshold`; docs/cloaking.md has
the measurement."""
