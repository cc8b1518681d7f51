"""Views of a cached crop: still ones, and random ones for the student.

Pillow does it on the host: it is fast, it knows real JPEG compression, and it
lets go of Python's lock, so that threads draw while a device trains.
"""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fawkes_jax.imaging import geometry

_SHIFT = 0.02  # Standard deviations: of the square's centre, in its sides,
_ZOOM = 0.05  # of the logarithm of its side,
_TURN = 0.08  # of its rotation in radians.


def still(
  crop: UInt8[np.ndarray, "size size 3"],
  template: geometry.Template,
  output: int,
) -> UInt8[np.ndarray, "output output 3"]:
  """A square of a crop at another size, as `imaging.views.still_view` does it.

  Args:
    crop: the square `geometry.CROP`, RGB.
    template: the square of the face frame to show; inside the crop.
    output: the side of the view in pixels.

  Returns:
    The view, RGB.
  """
  left, top, side = (len(crop) * x for x in geometry.CROP.zoom(template))
  box = (
    max(left, 0),
    max(top, 0),
    min(left + side, len(crop)),
    min(top + side, len(crop)),
  )
  image = Image.fromarray(crop).resize(
    (output, output), Image.Resampling.BILINEAR, box=box
  )
  return np.asarray(image)


def augmented(
  crop: UInt8[np.ndarray, "size size 3"],
  template: geometry.Template,
  output: int,
  rng: np.random.Generator,
) -> UInt8[np.ndarray, "output output 3"]:
  """A random view of a crop, as another photo or detector could show it.

  The square is moved, scaled and turned a little; light, contrast, gamma and
  the balance of colours change; some views become grey, blurred, noisy, or go
  through JPEG compression.

  Args:
    crop: the square `geometry.CROP`, RGB.
    template: the square of the face frame to show.
    output: the side of the view in pixels.
    rng: where chance comes from.

  Returns:
    The view, RGB, not mirrored.
  """
  image = _moved(Image.fromarray(crop), template, output, rng)
  image = _recoloured(image, rng)
  chance = rng.random(4)
  if chance[0] < 0.1:
    image = image.convert("L").convert("RGB")
  if chance[1] < 0.25:
    small = int(output * rng.uniform(0.35, 0.9))
    for side in (small, output):
      image = image.resize((side, side), Image.Resampling.BILINEAR)
  if chance[2] < 0.25:
    noise = rng.standard_normal((output, output, 3), np.float32)
    noisy = np.asarray(image) + rng.uniform(1, 10) * noise
    image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
  if chance[3] < 0.25:
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=int(rng.integers(20, 91)))
    image = Image.open(buffer)
  return np.asarray(image)


def _moved(
  image: Image.Image,
  template: geometry.Template,
  output: int,
  rng: np.random.Generator,
) -> Image.Image:
  """A square near the template's; black outside of the crop."""
  left, top, side = geometry.CROP.zoom(template)
  x, y, zoom, turn = rng.standard_normal(4)
  centre = complex(left, top) + side * (
    complex(0.5, 0.5) + _SHIFT * complex(x, y)
  )
  axis = side * np.exp(_ZOOM * zoom + 1j * _TURN * turn)
  # In pixels of the crop; Pillow measures both images from their corners.
  centre, axis = centre * image.width, axis * image.width / output
  corner = centre - axis * complex(output, output) / 2
  return image.transform(
    (output, output),
    Image.Transform.AFFINE,
    (axis.real, -axis.imag, corner.real, axis.imag, axis.real, corner.imag),
    Image.Resampling.BILINEAR,
  )


def _recoloured(image: Image.Image, rng: np.random.Generator) -> Image.Image:
  """Another light: gamma, contrast and brightness of each channel."""
  level = np.linspace(0, 1, 256)
  gamma = np.exp(0.2 * rng.standard_normal())
  contrast = np.exp(0.15 * rng.standard_normal())
  shift = 0.06 * rng.standard_normal() + 0.02 * rng.standard_normal(3)
  curve = contrast * (level[None] ** gamma - 0.5) + 0.5 + shift[:, None]
  table = np.clip(255 * curve, 0, 255).astype(np.uint8)
  return image.point(table.ravel().tolist())
