"""What blocks are decoded to, compared with the decoder that users have."""

import io

import numpy as np
import pytest
import skimage.data
from PIL import Image

from fawkes_jax.photos import blocks, coefficients, segments

SIZES = [(250, 330), (37, 21), (16, 3), (9, 200), (200, 2)]
# By (vertical, horizontal) factors of luma; chroma has (1, 1).
FACTORS = [(1, 1), (1, 2), (2, 1), (2, 2), (1, 4), (4, 1), (2, 4)]


@pytest.fixture(scope="module")
def astronaut():
  return skimage.data.astronaut()[:256, 100:436]


def coded(pixels, factors, step):
  """Coefficients of a picture, and the file that they make."""
  height, width = pixels.shape[:2]
  rows, columns = factors
  cell = 8 * rows, 8 * columns
  margins = [
    (0, -side % c) for side, c in zip((height, width), cell, strict=True)
  ]
  padded = np.pad(pixels, (*margins, (0, 0)), mode="edge")
  ycc = np.asarray(Image.fromarray(padded).convert("YCbCr")).astype("f4") - 128
  table = np.full((8, 8), step, np.uint16)
  planes = []
  for i, plane in enumerate(np.moveaxis(ycc, 2, 0)):
    factor = (1, 1) if i == 0 else factors
    small = blocks.quantise(blocks.average(plane, *factor), table)
    v, h = factors if i == 0 else (1, 1)
    shape = -(-height * v // (8 * rows)), -(-width * h // (8 * columns))
    planes.append(np.ascontiguousarray(small[: shape[0], : shape[1]]))
  c = blocks.Coefficients(
    height=height,
    width=width,
    planes=planes,
    tables=[table] * 3,
    sampling=[factors, (1, 1), (1, 1)],
  )
  data = coefficients.write(c, progressive=False)
  jfif = segments.Segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
  return c, segments.replace_metadata(data, [jfif], (1, 2, 3))


def part(c, box):
  return blocks.pixels(
    c,
    box,
    lambda i, top, bottom, left, right: c.planes[i][top:bottom, left:right],
  )


@pytest.mark.parametrize("step", [2, 30])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factors", FACTORS)
def test_any_part_is_what_pillow_decodes(astronaut, factors, size, step):
  height, width = size
  c, data = coded(astronaut[:height, :width], factors, step)
  with Image.open(io.BytesIO(data)) as image:
    whole = np.asarray(image.convert("RGB"))
  rng = np.random.default_rng(0)
  boxes = [(0, 0, width, height)]
  for _ in range(5):
    left, top = rng.integers(0, width), rng.integers(0, height)
    right = rng.integers(left + 1, width + 1)
    bottom = rng.integers(top + 1, height + 1)
    boxes.append((left, top, right, bottom))
  for left, top, right, bottom in boxes:
    seen = part(c, (left, top, right, bottom))
    assert np.array_equal(seen, whole[top:bottom, left:right])


def test_coefficients_come_back(astronaut):
  c, data = coded(astronaut, (2, 2), 7)
  again = coefficients.read(data, segments.parse(data))
  assert (again.height, again.width) == (c.height, c.width)
  for before, after in zip(c.planes, again.planes, strict=True):
    assert np.array_equal(before, after)
  assert all(np.array_equal(table, c.tables[0]) for table in again.tables)
