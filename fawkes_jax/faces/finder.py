"""From photos to aligned faces: detection, landmarks, crops."""

import concurrent.futures
import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from fawkes_jax import types
from fawkes_jax.imaging import geometry
from fawkes_jax.models import landmarks

LEAST_SIDE = 24
"""A face smaller than this, in pixels of the crop's side, holds too little to
measure its DSSIM or to recognise anybody."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AlignedFace:
  """One face of a photo and its aligned crop.

  Attributes:
    box: int [4], left, top, right, bottom in pixels of the photo, clipped to
      it; right and bottom are exclusive.
    score: the detector's confidence.
    alignment: between the photo and the crop.
    shape: height and width of the photo.
    size: of the arrays below; whatever lies beyond `alignment.side` is zero.
    pixels: the aligned crop, RGB.
  """

  box: tuple[int, int, int, int]
  score: float
  alignment: geometry.Alignment
  shape: tuple[int, int]
  size: int
  pixels: UInt8[np.ndarray, "side side 3"]

  @property
  def area(self) -> tuple[int, int, int, int]:
    """The part of the photo that the box and the crop are cut from."""
    return area(self.shape, self.box, self.alignment)

  def cut(
    self,
    pixels: UInt8[np.ndarray, "height width 3"],
    *,
    corner: tuple[int, int] = (0, 0),
  ) -> Float32[np.ndarray, "size size 3"]:
    """The crop from a version of the photo, in 0..255, not rounded.

    Args:
      pixels: the photo, or a part of it that has `area`.
      corner: x and y of the part's first pixel in the photo.
    """
    crop = geometry.extract(pixels, self.alignment, corner=corner)
    return _padded(crop, self.size)

  @property
  def crop(self) -> Float32[np.ndarray, "size size 3"]:
    """The aligned crop, RGB, whole numbers in 0..255."""
    return _padded(self.pixels, self.size)

  @property
  def coverage(self) -> Float32[np.ndarray, "size size"]:
    """How far each pixel may change, 0..1."""
    return _padded(geometry.coverage(self.shape, self.alignment), self.size)

  @property
  def weights(self) -> Float32[np.ndarray, "size size"]:
    """How much each pixel counts towards the DSSIM."""
    coverage = geometry.coverage(self.shape, self.alignment)
    return _padded(geometry.budget_weights(coverage), self.size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Likely:
  """A face that there may be, of which the detector is not sure enough.

  Attributes:
    box: left, top, right, bottom in pixels of the photo, clipped to it; right
      and bottom are exclusive.
    score: the detector's confidence.
  """

  box: tuple[int, int, int, int]
  score: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Look:
  """What is seen in a photo.

  Attributes:
    faces: by falling confidence.
    likely: the likeliest place of a face, where none was found but one is
      likely.
  """

  faces: list[AlignedFace]
  likely: Likely | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Finder:
  """Finds and aligns the faces of photos.

  Attributes:
    detector: finds boxes, and perhaps landmarks.
    landmark_model: finds dlib's five points in the boxes of which the detector
      tells no landmarks; None where it always does.
    crop_size: the largest crop's side in pixels.
    min_face_pixels: the smallest face that is looked for; None for the
      detector's own rule.
  """

  detector: types.Detector
  landmark_model: landmarks.LandmarkModel | None
  crop_size: int
  min_face_pixels: float | None = None

  def find(
    self,
    photos: Sequence[UInt8[np.ndarray, "height width 3"]],
    pool: concurrent.futures.Executor | None = None,
  ) -> list[list[AlignedFace]]:
    """Finds the faces of photos; see `look`."""
    return [look.faces for look in self.look(photos, pool)]

  def look(
    self,
    photos: Sequence[UInt8[np.ndarray, "height width 3"]],
    pool: concurrent.futures.Executor | None = None,
  ) -> list[Look]:
    """Finds the faces of photos, or where they are likely.

    Args:
      photos: RGB, upright, of any sizes.
      pool: of threads that make photos smaller and align faces; None for the
        caller's.

    Returns:
      What is seen in each photo.
    """
    found = self.detector.look(
      photos, min_face_pixels=self.min_face_pixels, pool=pool
    )
    align = map if pool is None else pool.map
    return list(align(self._looked, photos, found))

  def smallest(self, photo: UInt8[np.ndarray, "height width 3"]) -> float:
    """The side of the smallest face that is looked for, in pixels."""
    height, width = photo.shape[:2]
    return self.detector.smallest_face((height, width), self.min_face_pixels)

  def at(
    self,
    part: UInt8[np.ndarray, "height width 3"],
    *,
    shape: tuple[int, int],
    box: tuple[int, int, int, int],
    score: float,
    alignment: geometry.Alignment,
    corner: tuple[int, int] = (0, 0),
  ) -> AlignedFace:
    """A face at a known place.

    Args:
      part: the photo, or a part of it that has the face's `area`.
      shape: height and width of the photo.
      box: of the face in the photo.
      score: the detector's confidence.
      alignment: between the photo and the crop.
      corner: x and y of the part's first pixel in the photo.
    """
    crop = geometry.extract(part, alignment, corner=corner)
    return AlignedFace(
      box=box,
      score=score,
      alignment=alignment,
      shape=shape,
      size=self.crop_size,
      pixels=np.rint(crop).astype(np.uint8),
    )

  def _looked(self, photo: np.ndarray, found: types.Detections) -> Look:
    likely = None
    if found.likely is not None:
      box = _clipped(found.likely.box, photo)
      likely = Likely(box=box, score=float(found.likely.score))
    return Look(faces=self._align(photo, found.faces), likely=likely)

  def _align(
    self, photo: np.ndarray, detections: list[types.Detection]
  ) -> list[AlignedFace]:
    if not detections:
      return []
    height, width = photo.shape[:2]
    faces = []
    for detection, alignment in zip(
      detections, self._alignments(photo, detections), strict=True
    ):
      if alignment.side < LEAST_SIDE:
        continue
      if geometry.coverage((height, width), alignment).max() < 0.5:
        continue  # All but outside of the photo.
      faces.append(
        self.at(
          photo,
          shape=(height, width),
          box=_clipped(detection.box, photo),
          score=float(detection.score),
          alignment=alignment,
        )
      )
    return faces

  def _alignments(
    self, photo: np.ndarray, detections: list[types.Detection]
  ) -> list[geometry.Alignment]:
    """By the landmarks of the detector, or else of the landmark model."""
    found = {
      i: geometry.align_centres(
        np.asarray(detection.points), max_side=self.crop_size
      )
      for i, detection in enumerate(detections)
      if detection.points is not None
    }
    bare = [i for i in range(len(detections)) if i not in found]
    if bare:
      assert self.landmark_model is not None
      boxes = np.stack([detections[i].box for i in bare])
      for i, five in zip(
        bare, self.landmark_model.predict(photo, boxes), strict=True
      ):
        found[i] = geometry.align(five, max_side=self.crop_size)
    return [found[i] for i in range(len(detections))]


def area(
  shape: tuple[int, int],
  box: tuple[int, int, int, int],
  alignment: geometry.Alignment,
) -> tuple[int, int, int, int]:
  """The part of a photo that a face's box and crop are cut from.

  Args:
    shape: height and width of the photo.
    box: left, top, right and bottom of the face, inside the photo.
    alignment: of the face.

  Returns:
    Left, top, right and bottom.
  """
  a, b = box, geometry.reach(shape, alignment)
  return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _clipped(box: np.ndarray, photo: np.ndarray) -> tuple[int, int, int, int]:
  """A detector's box, whose right and bottom are inside, within the photo."""
  height, width = photo.shape[:2]
  edges = (*box[:2], *(box[2:] + 1))
  left, top, right, bottom = (
    int(np.clip(round(value), 0, limit))
    for value, limit in zip(edges, (width, height) * 2, strict=True)
  )
  return left, top, right, bottom


def _padded(array: np.ndarray, size: int) -> np.ndarray:
  """The array in the upper left corner of a square of zeros."""
  out = np.zeros((size, size, *array.shape[2:]), np.float32)
  out[: array.shape[0], : array.shape[1]] = array
  return out
