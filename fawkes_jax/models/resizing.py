"""Photos at the scale at which detectors search them."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def resized(
  photo: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "height width 3"]:
  """Resizes a photo bilinearly, with antialiasing.

  Args:
    photo: RGB.
    size: the wanted height and width.

  Returns:
    The photo itself where it has that size.
  """
  if photo.shape[:2] == size:
    return photo
  image = Image.fromarray(photo)
  return np.asarray(
    image.resize(size[::-1], Image.Resampling.BILINEAR, reducing_gap=2.0)
  )
