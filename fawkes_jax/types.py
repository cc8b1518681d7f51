"""What flows through the engine, from the photo to its manifest row.

Conventions, for the whole package:

* Images are arrays [height, width, channel], RGB, values in 0..255.
* Points are (x, y), in pixels; the centre of the top left pixel is (0, 0).
* Boxes are [left, top, right, bottom], in pixels of the upright photo.
* A change is what is added to an image; float32, in the same 0..255 units.
"""

import dataclasses

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
