"""Countermeasures: how a tracker may change photos before it uses them.

Each maps uint8 RGB [height, width, 3] to the same; it is always the same for
the same photo.
"""

import io
import zlib
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

Pixels = UInt8[np.ndarray, "height width 3"]


def _jpeg(quality: int) -> Callable[[Pixels], Pixels]:
  def apply(pixels: Pixels) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))

  return apply


def _blur(pixels: Pixels) -> Pixels:
  """A Gaussian blur of one pixel."""
  return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1)))


def _noise(pixels: Pixels) -> Pixels:
  """Gaussian noise with a standard deviation of 8."""
  rng = np.random.default_rng(zlib.crc32(pixels.tobytes()))
  noisy = pixels + rng.normal(0, 8, pixels.shape)
  return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def _resize(pixels: Pixels) -> Pixels:
  """To half the size and back."""
  image = Image.fromarray(pixels)
  half = (max(1, image.width // 2), max(1, image.height // 2))
  small = image.resize(half, Image.Resampling.BICUBIC)
  return np.asarray(small.resize(image.size, Image.Resampling.BICUBIC))


CLEAN = "none"
"""What leaves photos as they are."""

COUNTERMEASURES: dict[str, Callable[[Pixels], Pixels]] = {
  CLEAN: lambda pixels: pixels,
  "JPEG 75": _jpeg(75),
  "JPEG 50": _jpeg(50),
  "blur 1": _blur,
  "noise 8": _noise,
  "half size": _resize,
}
"""By name."""
