"""What flows through the engine, from the photo to its manifest row.

Conventions, for the whole package:

* Images are arrays [height, width, channel], RGB, values in 0..255.
* Points are (x, y), in pixels; the centre of the top left pixel is (0, 0).
* Boxes are [left, top, right, bottom], in pixels of the upright photo.
* A change is what is added to an image; float32, in the same 0..255 units.
"""

import abc
import concurrent.futures
import dataclasses
from collections.abc import Sequence

import numpy as np


class FawkesError(Exception):
  """A mistake or a limit that the user can do something about.

  The message names the file or the flag and the rule that was broken.
  """


class PhotoError(FawkesError):
  """One photo cannot be processed; the message is the manifest's reason."""


class OtherFileError(PhotoError):
  """A file that is no photo, as far as its content says."""


class UnsupportedError(PhotoError):
  """A picture that cannot be cloaked as what it is, but may be converted."""


class UnexpectedError(PhotoError):
  """Something that nobody has foreseen: a fault of ours, or of a library.

  It costs the photo. What was raised is its cause.
  """


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
  """One face found by the detector.

  Attributes:
    box: float32 [4], left, top, right, bottom in pixels of the photo. A face
      at the border may reach outside the photo.
    score: the detector's confidence; above 0 for an accepted face.
    points: float32 [5, 2], x and y of the centres of the eyes, the tip of the
      nose and the corners of the mouth, from left to right in the picture, in
      pixels of the photo; None where the detector does not tell.
  """

  box: np.ndarray
  score: float
  points: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
  """What the detector says of a photo.

  Attributes:
    faces: by falling score.
    likely: where a face is likely of which the detector is not sure enough;
      None where there are faces, or where it is not likely either.
  """

  faces: list[Detection]
  likely: Detection | None = None


class Detector(abc.ABC):
  """What finds the faces of photos.

  Attributes:
    name: for reports.
  """

  name: str

  def detect(
    self,
    photos: Sequence[np.ndarray],
    *,
    min_face_pixels: float | None = None,
    pool: concurrent.futures.Executor | None = None,
  ) -> list[list[Detection]]:
    """Finds the faces of photos; see `look`."""
    looks = self.look(photos, min_face_pixels=min_face_pixels, pool=pool)
    return [look.faces for look in looks]

  @abc.abstractmethod
  def look(
    self,
    photos: Sequence[np.ndarray],
    *,
    min_face_pixels: float | None = None,
    pool: concurrent.futures.Executor | None = None,
  ) -> list[Detections]:
    """Finds the faces of photos, or where they are likely.

    Args:
      photos: uint8 [h, w, 3], RGB, upright, of any sizes.
      min_face_pixels: the side of the smallest faces to look for, in pixels of
        the photo. Halving it makes the search four times as expensive. None
        stands for the detector's own rule.
      pool: of threads that make photos smaller; None for the caller's.

    Returns:
      What is in each photo. Right and bottom of a box are the last pixels
      inside, and it may reach outside the photo.

    Raises:
      ValueError: `min_face_pixels` is not positive.
    """

  @abc.abstractmethod
  def smallest_face(
    self, shape: tuple[int, int], min_face_pixels: float | None = None
  ) -> float:
    """The side of the smallest face that is looked for.

    Args:
      shape: height and width of a photo, in pixels.
      min_face_pixels: see `look`.

    Returns:
      Pixels of the photo.
    """


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Patch:
  """A change to a rectangle of a photo.

  Attributes:
    left: the column of the photo of the patch's first column.
    top: the row of the photo of the patch's first row.
    change: float32 [height, width, 3], added to the photo there. The
      rectangle lies inside the photo.
  """

  left: int
  top: int
  change: np.ndarray

  @property
  def box(self) -> tuple[int, int, int, int]:
    """Left, top, right, bottom; right and bottom are exclusive."""
    height, width = self.change.shape[:2]
    return self.left, self.top, self.left + width, self.top + height
