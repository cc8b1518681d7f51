"""From photos to aligned faces: detection, landmarks, crops."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from fawkes_jax import types
from fawkes_jax.imaging import geometry
from fawkes_jax.models import landmarks, mmod

# A face smaller than this, in pixels of the crop's side, holds too little to
# measure its DSSIM or to recognise anybody.
_LEAST_SIDE = 24


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
  def crop(self) -> Float32[np.ndarray, "size size 3"]:
    """The aligned crop, RGB in 0..255."""
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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Finder:
  """Finds and aligns the faces of photos.

  Attributes:
    detector: finds boxes.
    landmark_model: finds five points in each box.
    crop_size: the largest crop's side in pixels.
    min_face_pixels: the smallest face that is looked for; None for the
      detector's own rule.
  """

  detector: mmod.Detector
  landmark_model: landmarks.LandmarkModel
  crop_size: int
  min_face_pixels: float | None = None

  def find(
    self, photos: Sequence[UInt8[np.ndarray, "height width 3"]]
  ) -> list[list[AlignedFace]]:
    """Finds the faces of photos.

    Args:
      photos: RGB, upright, of any sizes.

    Returns:
      The faces of each photo, by falling confidence.
    """
    found = self.detector.detect(photos, min_face_pixels=self.min_face_pixels)
    return [
      self._align(photo, detections)
      for photo, detections in zip(photos, found, strict=True)
    ]

  def smallest(self, photo: UInt8[np.ndarray, "height width 3"]) -> float:
    """The side of the smallest face that is looked for, in pixels."""
    height, width = photo.shape[:2]
    return self.detector.smallest_face((height, width), self.min_face_pixels)

  def crops(
    self, photo: UInt8[np.ndarray, "height width 3"], faces: list[AlignedFace]
  ) -> Float32[np.ndarray, "n size size 3"]:
    """The crops of known faces from another version of their photo."""
    return np.stack(
      [
        _padded(geometry.extract(photo, face.alignment), self.crop_size)
        for face in faces
      ]
    )

  def at(
    self,
    photo: UInt8[np.ndarray, "height width 3"],
    *,
    box: tuple[int, int, int, int],
    score: float,
    alignment: geometry.Alignment,
  ) -> AlignedFace:
    """A face of a photo that was found before."""
    return AlignedFace(
      box=box,
      score=score,
      alignment=alignment,
      shape=photo.shape[:2],
      size=self.crop_size,
      pixels=geometry.extract(photo, alignment).astype(np.uint8),
    )

  def _align(
    self, photo: np.ndarray, detections: list[types.Detection]
  ) -> list[AlignedFace]:
    if not detections:
      return []
    height, width = photo.shape[:2]
    boxes = np.stack([d.box for d in detections])
    points = self.landmark_model.predict(photo, boxes)
    faces = []
    for detection, five in zip(detections, points, strict=True):
      alignment = geometry.align(five, max_side=self.crop_size)
      if alignment.side < _LEAST_SIDE:
        continue
      if geometry.coverage((height, width), alignment).max() < 0.5:
        continue  # All but outside of the photo.
      limits = (width, height, width, height)
      left, top, right, bottom = (
        int(np.clip(round(value), 0, limit))
        for value, limit in zip(
          (*detection.box[:2], *(detection.box[2:] + 1)), limits, strict=True
        )
      )
      faces.append(
        self.at(
          photo,
          box=(left, top, right, bottom),
          score=float(detection.score),
          alignment=alignment,
        )
      )
    return faces


def _padded(array: np.ndarray, size: int) -> np.ndarray:
  """The array in the upper left corner of a square of zeros."""
  out = np.zeros((size, size, *array.shape[2:]), np.float32)
  out[: array.shape[0], : array.shape[1]] = array
  return out
