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

_SAME = 0.5
"""Two boxes are of one face if they share so much of the smaller one."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Detector:
  """Finds the faces that either of two detectors finds.

  Attributes:
    name: for reports.
    large: finds larger faces; its box stands where both find one.
    small: finds faces of all sizes.
  """

  name: str
  large: mmod.Detector
  small: yunet.Detector

  def detect(
    self,
    photos: Sequence[UInt8[np.ndarray, "h w 3"]],
    *,
    min_face_pixels: float | None = None,
    pool: concurrent.futures.Executor | None = None,
  ) -> list[list[types.Detection]]:
    """Finds the faces of photos.

    Args:
      photos: uint8 [h, w, 3], RGB, upright, of any sizes.
      min_face_pixels: the side of the smallest faces to look for, in pixels of
        the photo; None means what `small` looks for.
      pool: of threads that make photos smaller; None for the caller's.

    Returns:
      For each photo the faces that `large` finds, by falling score, then those
      that only `small` finds; these have landmarks.

    Raises:
      ValueError: `min_face_pixels` is not positive.
    """
    small = self.small.detect(
      photos, min_face_pixels=min_face_pixels, pool=pool
    )
    large = dataclasses.replace(
      self.large,
      least_side=max(self.large.least_side, min_face_pixels or 0),
    ).detect(photos, pool=pool)
    return list(map(joined, large, small))

  def smallest_face(
    self, shape: tuple[int, int], min_face_pixels: float | None = None
  ) -> float:
    """The side of the smallest face that is looked for.

    Args:
      shape: height and width of a photo, in pixels.
      min_face_pixels: see `detect`.

    Returns:
      Pixels of the photo.
    """
    return self.small.smallest_face(shape, min_face_pixels)


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
