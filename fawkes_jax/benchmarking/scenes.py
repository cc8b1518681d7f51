"""Photos that are made from a seed: one known face in pictures of any size."""

import io

import numpy as np
from PIL import Image

# The head of the astronaut that scikit-image brings: left, top, right, bottom.
_HEAD = (130, 0, 320, 220)
# How wide, in pixels, the grains of the picture's texture are, and how strong.
_TEXTURE = ((1, 2.2), (4, 6.0), (16, 8.0), (64, 10.0))


def scene(
  width: int, height: int, faces: int, *, face: int, quality: int, seed: int
) -> bytes:
  """A photo with faces in a row of cells.

  Args:
    width: of the photo in pixels.
    height: of the photo.
    faces: how many there are.
    face: how wide each head is, in pixels.
    quality: of the JPEG.
    seed: of its texture.

  Returns:
    A JPEG file in 4:2:0.
  """
  import skimage.data

  picture = Image.fromarray(_texture(width, height, seed))
  head = Image.fromarray(skimage.data.astronaut()).crop(_HEAD)
  head = head.resize(
    (face, round(face * head.height / head.width)), Image.Resampling.LANCZOS
  )
  columns = max(1, round(np.sqrt(faces * width / height)))
  rows = -(-faces // columns)
  for index in range(faces):
    row, column = divmod(index, columns)
    left = (2 * column + 1) * width // (2 * columns) - head.width // 2
    top = (2 * row + 1) * height // (2 * rows) - head.height // 2
    picture.paste(head, (left, top))
  buffer = io.BytesIO()
  picture.save(buffer, "JPEG", quality=quality)
  return buffer.getvalue()


def _texture(width: int, height: int, seed: int) -> np.ndarray:
  """Waves of colour under noise of several scales; uint8 [h, w, 3]."""
  rng = np.random.default_rng(seed)
  y, x = np.ogrid[:height, :width]
  grain = np.zeros((height, width), np.float32)
  for size, strength in _TEXTURE:
    noise = rng.normal(size=(height // size + 1, width // size + 1))
    image = Image.fromarray(noise.astype(np.float32))
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    grain += strength * np.asarray(resized)
  channels = [
    120 + 60 * np.sin(x / 230 + i) + 50 * np.cos(y / 190 + 2 * i) + grain
    for i in range(3)
  ]
  return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)
