"""Two detectors as one: dlib's for larger faces, a fast one for all.

dlib's network hardly ever takes anything else for a face, and its boxes give
the surest landmarks; but it sees 80 pixels of each face, so that a search for
small ones is slow. A network of YuNet's class searches at a fifth of that size,
knows turned and dark faces that dlib's does not, and errs more often.
"""

import concurrent.futures
import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from fawkes_jax import types
from fawkes_jax.models import mmod, yunet

LARGE_SHARE = 1 / 32
"""dlib's detector looks for faces of this share of a photo's longer side,"""

LARGE_SIDE = 32.0
"""and at least so many pixels."""

SURER = 0.65
"""Where dlib's has looked in vain, the other's likelihood is at least this.
Half of what is no face goes, and one face of a hundred (docs/cloaking.md)."""

_LOOKED = 1.25
"""It has looked for faces this many times as large as its smallest."""

_SAME = 0.5
"""Two boxes are of one face if they share so much of the smaller one."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Detector(types.Detector):
  """Finds the faces that either of two detectors finds.

  Attributes:
    name: for reports.
    large: finds larger faces; its box stands where both find one.
    small: finds faces of all sizes.
  """

  name: str
  large: mmod.Detector
  small: yunet.Detector

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
      min_face_pixels: the side of the smallest faces to look for, in pixels of
        the photo; None means what `small` looks for.
      pool: of threads that make photos smaller; None for the caller's.

    Returns:
      What is in each photo: the faces that `large` finds, by falling score,
      then those that only `small` finds, which have landmarks.

    Raises:
      ValueError: `min_face_pixels` is not positive.
    """
    ours = self.small.look(photos, min_face_pixels=min_face_pixels, pool=pool)
    least = max(self.large.least_side, min_face_pixels or 0)
    large = dataclasses.replace(self.large, least_side=least)
    theirs = large.look(photos, pool=pool)
    return [
      self._joined(large.smallest_face(photo.shape[:2]), *found)
      for photo, *found in zip(photos, theirs, ours, strict=True)
    ]

  def smallest_face(
    self, shape: tuple[int, int], min_face_pixels: float | None = None
  ) -> float:
    """See `types.Detector`."""
    return self.small.smallest_face(shape, min_face_pixels)

  def _joined(
    self, looked: float, large: types.Detections, small: types.Detections
  ) -> types.Detections:
    """What both say of a photo in which `large` has looked for this size."""
    sure = [
      face
      for face in small.faces
      if face.score >= SURER or _side(face.box) < _LOOKED * looked
    ]
    if faces := joined(large.faces, sure):
      return types.Detections(faces=faces)
    doubtful = max(small.faces, key=lambda face: face.score, default=None)
    likely = large.likely or doubtful or small.likely
    return types.Detections(faces=[], likely=likely)


def joined(
  first: Sequence[types.Detection], second: Sequence[types.Detection]
) -> list[types.Detection]:
  """The faces of one photo, those that two detectors found only once.

  Args:
    first: the faces that one of them found; all are kept.
    second: those that the other found.

  Returns:
    `first`, then what is new in `second`.
  """
  known = np.array([face.box for face in first]).reshape(-1, 4)
  return [
    *first,
    *(face for face in second if not (_shared(face.box, known) > _SAME).any()),
  ]


def _side(box: np.ndarray) -> float:
  """The square root of a box's area."""
  return float(np.sqrt(np.prod(box[2:] - box[:2] + 1)))


def _shared(box: np.ndarray, others: np.ndarray) -> np.ndarray:
  """How much of the smaller of two boxes is in both, 0..1.

  Right and bottom of boxes are the last pixels inside.
  """
  sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(
    box[:2], others[:, :2]
  )
  areas = np.prod(others[:, 2:] - others[:, :2] + 1, axis=1)
  smaller = np.minimum(areas, np.prod(box[2:] - box[:2] + 1))
  return np.prod(np.maximum(sides + 1, 0), axis=1) / smaller
