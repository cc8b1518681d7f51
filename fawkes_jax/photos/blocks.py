"""Blocks of DCT coefficients from samples, and the pixels of a few of them.

Pixels come as libjpeg's usual decoder makes them, which Pillow has: the
accurate integer transform of Loeffler, Ligtenberg and Moschytz (1989), the
triangle filter for chroma of half the width or height, and JFIF's colours in
fixed point. All of it is whole numbers, so what a part of a photo will be
decoded to is known to the bit before there is a file;
`tests/photos/test_blocks.py` compares them.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

_FREQUENCY = np.arange(8)[:, np.newaxis]
_DCT = 0.5 * np.cos((2 * np.arange(8) + 1) * _FREQUENCY * np.pi / 16)
_DCT[0] /= np.sqrt(2)
_DCT = _DCT.astype(np.float32)

# JFIF (ITU-T T.871), without the offsets: changes have none.
_TO_YCBCR = np.array(
  [
    [0.299, 0.587, 0.114],
    [-0.299 / 1.772, -0.587 / 1.772, 0.5],
    [0.5, -0.587 / 1.402, -0.114 / 1.402],
  ],
  np.float32,
)

# Bits behind the point: of the transform's factors, of what lies between its
# two passes, and of the factors for colours.
_BITS, _BETWEEN, _COLOUR_BITS = 13, 2, 16


def _fixed(value: float, bits: int) -> int:
  return int(value * (1 << bits) + 0.5)


# By the names that the flow graph's rotations have in the paper.
_C6, _C6_PLUS, _C6_MINUS = (
  _fixed(v, _BITS) for v in (0.541196100, 0.765366865, 1.847759065)
)
_ODD = tuple(
  _fixed(v, _BITS) for v in (0.298631336, 2.053119869, 3.072711026, 1.501321110)
)
_ODD_PAIRS = tuple(
  _fixed(v, _BITS) for v in (0.899976223, 2.562915447, 1.961570560, 0.390180644)
)
_C3 = _fixed(1.175875602, _BITS)


@dataclasses.dataclass(kw_only=True, eq=False)
class Coefficients:
  """The quantised coefficients of a JPEG.

  Attributes:
    height: in pixels.
    width: in pixels.
    planes: for each component int16 [rows, columns, 8, 8], blocks down and
      across, vertical frequency before horizontal.
    tables: for each component uint16 [8, 8].
    sampling: for each component its (vertical, horizontal) sampling factors.
  """

  height: int
  width: int
  planes: list[np.ndarray]
  tables: list[np.ndarray]
  sampling: list[tuple[int, int]]

  @property
  def most(self) -> tuple[int, int]:
    """The largest vertical and horizontal sampling factors."""
    return max(v for v, _ in self.sampling), max(h for _, h in self.sampling)


BlockReader = Callable[[int, int, int, int, int], np.ndarray]
"""Gives the coefficients of blocks: of a component, by its number, the rows
from one to another, and the columns from one to another."""


def components(change: np.ndarray, count: int) -> list[np.ndarray]:
  """A change's Y, Cb and Cr.

  Args:
    change: float32 [h, w, 3], RGB.
    count: how many of them are wanted, the first ones.

  Returns:
    float32 [h, w] each.
  """
  channels = np.ascontiguousarray(change.transpose(2, 0, 1), np.float32)
  return [
    r * channels[0] + g * channels[1] + b * channels[2]
    for r, g, b in _TO_YCBCR[:count]
  ]


def average(plane: np.ndarray, rows: int, columns: int) -> np.ndarray:
  """The mean of each cell of so many rows and columns; [h, w]."""
  if rows == columns == 1:
    return plane
  # Several times as fast as numpy's mean over the two axes of cells.
  cells = [
    plane[y::rows, x::columns] for y in range(rows) for x in range(columns)
  ]
  return sum(cells[1:], start=cells[0]) / np.float32(len(cells))


def quantise(plane: np.ndarray, table: np.ndarray) -> np.ndarray:
  """The coefficients of samples in quantisation steps.

  Args:
    plane: float [h, w], whole blocks.
    table: [8, 8], the steps.

  Returns:
    int16 [h / 8, w / 8, 8, 8].
  """
  width = plane.shape[1]
  rows = _DCT @ plane.astype(np.float32, copy=False).reshape(-1, 8, width)
  both = rows.reshape(len(rows), -1, 8) @ _DCT.T
  both = both.reshape(len(rows), 8, width // 8, 8)
  steps = np.rint(both / table[:, np.newaxis].astype(np.float32))
  return np.ascontiguousarray(steps.swapaxes(1, 2).astype(np.int16))


def samples(
  parts: Sequence[tuple[np.ndarray, np.ndarray]],
) -> list[np.ndarray]:
  """What blocks are decoded to; those of all components in one go.

  Args:
    parts: of each component int16 [rows, columns, 8, 8], and its table.

  Returns:
    uint8 [8 * rows, 8 * columns] each.
  """
  values = np.concatenate(
    [
      (blocks * table.astype(np.int32)).reshape(-1, 8, 8)
      for blocks, table in parts
    ]
  )
  count = len(values)
  # The frequency that is transformed comes first, and all else in one row.
  first = _inverse(values.swapaxes(0, 1).reshape(8, -1), _BITS - _BETWEEN)
  second = first.reshape(8, count, 8).transpose(2, 1, 0).reshape(8, -1)
  last = _inverse(second, _BITS + _BETWEEN + 3) + 128
  pixels = np.clip(last, 0, 255, out=last).astype(np.uint8)
  pixels = pixels.reshape(8, count, 8).transpose(1, 2, 0)
  decoded = []
  for blocks, _ in parts:
    rows, columns = blocks.shape[:2]
    own, pixels = np.split(pixels, [rows * columns])
    whole = own.reshape(rows, columns, 8, 8).swapaxes(1, 2)
    decoded.append(whole.reshape(8 * rows, 8 * columns))
  return decoded


def _inverse(x: np.ndarray, shift: int) -> np.ndarray:
  """The inverse transform along the first axis, in whole numbers.

  Args:
    x: int32 [8, n].
    shift: bits that are rounded off the result.
  """
  shared = (x[2] + x[6]) * _C6
  low, high = shared - x[6] * _C6_MINUS, shared + x[2] * _C6_PLUS
  plus, minus = (x[0] + x[4]) << _BITS, (x[0] - x[4]) << _BITS
  even = (plus + high, minus + low, minus - low, plus - high)

  pairs = [x[7] + x[1], x[5] + x[3], x[7] + x[3], x[5] + x[1]]
  turned = (pairs[2] + pairs[3]) * _C3
  a, b = pairs[0] * _ODD_PAIRS[0], pairs[1] * _ODD_PAIRS[1]
  c = turned - pairs[2] * _ODD_PAIRS[2]
  d = turned - pairs[3] * _ODD_PAIRS[3]
  odd = (
    x[1] * _ODD[3] - a + d,
    x[3] * _ODD[2] - b + c,
    x[5] * _ODD[1] - b + d,
    x[7] * _ODD[0] - a + c,
  )

  half = 1 << (shift - 1)
  out = np.empty_like(x)
  for i in range(4):
    out[i] = (even[i] + odd[i] + half) >> shift
    out[7 - i] = (even[i] - odd[i] + half) >> shift
  return out


def pixels(
  c: Coefficients,
  box: tuple[int, int, int, int],
  block: BlockReader,
) -> np.ndarray:
  """What a part of a photo is decoded to.

  Args:
    c: of the photo.
    box: left, top, right and bottom of the part, inside the photo.
    block: gives the coefficients of blocks.

  Returns:
    uint8 [h, w, 3], RGB; of a greyscale photo three times the same.
  """
  left, top, right, bottom = box
  most_rows, most_columns = c.most
  windows, coded = [], []
  for i, (v, h) in enumerate(c.sampling):
    rows, columns = most_rows // v, most_columns // h
    window = _Window.around(
      (left // columns, top // rows, -(-right // columns), -(-bottom // rows)),
      (-(-c.height * v // most_rows), -(-c.width * h // most_columns)),
    )
    windows.append((window, rows, columns))
    coded.append((block(i, *window.blocks), c.tables[i]))
  planes = []
  for decoded, (window, rows, columns) in zip(
    samples(coded), windows, strict=True
  ):
    full = _upsampled(window.cut(decoded), rows, columns, smooth=window.smooth)
    y, x = top - rows * window.top, left - columns * window.left
    planes.append(full[y : y + bottom - top, x : x + right - left])
  if len(planes) == 1:
    return np.repeat(planes[0][..., np.newaxis], 3, axis=2)
  return _rgb(*planes)


@dataclasses.dataclass(frozen=True)
class _Window:
  """A part of a component with one sample more on each side.

  Attributes:
    left: of the part, in samples.
    top: likewise.
    inner: left, top, right and bottom with those of the margin that there are.
    margins: how many are missing, above and below, left and right.
    smooth: whether libjpeg interpolates the component; it repeats the samples
      of one that has one or two columns.
  """

  left: int
  top: int
  inner: tuple[int, int, int, int]
  margins: tuple[tuple[int, int], tuple[int, int]]
  smooth: bool

  @classmethod
  def around(
    cls, box: tuple[int, int, int, int], size: tuple[int, int]
  ) -> "_Window":
    """That of a box in a component of some height and width."""
    left, top, right, bottom = box
    right, bottom = min(right, size[1]), min(bottom, size[0])
    inner = (
      max(left - 1, 0),
      max(top - 1, 0),
      min(right + 1, size[1]),
      min(bottom + 1, size[0]),
    )
    margins = (
      (1 - (top - inner[1]), 1 - (inner[3] - bottom)),
      (1 - (left - inner[0]), 1 - (inner[2] - right)),
    )
    return cls(left, top, inner, margins, size[1] > 2)

  @property
  def blocks(self) -> tuple[int, int, int, int]:
    """Rows from one to another, and columns, of the blocks it lies in."""
    left, top, right, bottom = self.inner
    return top // 8, -(-bottom // 8), left // 8, -(-right // 8)

  def cut(self, decoded: np.ndarray) -> np.ndarray:
    """Its samples out of those blocks; outside it is like the border."""
    left, top, right, bottom = self.inner
    y, x = 8 * self.blocks[0], 8 * self.blocks[2]
    part = decoded[top - y : bottom - y, left - x : right - x]
    inside = not any(map(any, self.margins))
    return part if inside else np.pad(part, self.margins, mode="edge")


def _upsampled(
  part: np.ndarray, rows: int, columns: int, *, smooth: bool
) -> np.ndarray:
  """Samples at the photo's resolution, as libjpeg interpolates them.

  Args:
    part: uint8 [h + 2, w + 2], with a margin of one sample.
    rows: pixels that a sample has, down.
    columns: and across.
    smooth: whether they are interpolated, where the library can.

  Returns:
    uint8 [rows * h, columns * w].
  """
  inner = part[1:-1, 1:-1]
  if smooth and (rows, columns) == (1, 2):
    near = part[1:-1].astype(np.int32)
    return _halves(near, (1, 2), 2)
  if smooth and (rows, columns) == (2, 2):
    wide = part.astype(np.int32)
    pair = 3 * wide[1:-1] + wide[:-2], 3 * wide[1:-1] + wide[2:]
    return _interleaved([_halves(line, (8, 7), 4) for line in pair])
  if (rows, columns) == (2, 1):
    tall = part[:, 1:-1].astype(np.int32)
    above = (3 * tall[1:-1] + tall[:-2] + 1) >> 2
    below = (3 * tall[1:-1] + tall[2:] + 2) >> 2
    return _interleaved([above.astype(np.uint8), below.astype(np.uint8)])
  return inner.repeat(rows, axis=0).repeat(columns, axis=1)


def _halves(
  wide: np.ndarray, rounding: tuple[int, int], shift: int
) -> np.ndarray:
  """Two columns of each, nearer to the one on their own side."""
  middle = 3 * wide[:, 1:-1]
  out = np.empty((*middle.shape, 2), np.uint8)
  out[..., 0] = (middle + wide[:, :-2] + rounding[0]) >> shift
  out[..., 1] = (middle + wide[:, 2:] + rounding[1]) >> shift
  return out.reshape(len(wide), -1)


def _interleaved(lines: list[np.ndarray]) -> np.ndarray:
  return np.stack(lines, axis=1).reshape(-1, lines[0].shape[1])


_CHROMA = np.arange(256, dtype=np.int64) - 128
_ROUND = 1 << (_COLOUR_BITS - 1)
_RED, _BLUE = (
  ((_fixed(factor, _COLOUR_BITS) * _CHROMA + _ROUND) >> _COLOUR_BITS).astype(
    np.int16
  )
  for factor in (1.402, 1.772)
)
_GREEN_CR, _GREEN_CB = (
  (-_fixed(factor, _COLOUR_BITS) * _CHROMA + add).astype(np.int32)
  for factor, add in ((0.714136286, 0), (0.344136286, _ROUND))
)


def _rgb(y: np.ndarray, cb: np.ndarray, cr: np.ndarray) -> np.ndarray:
  luma = y.astype(np.int16)
  green = (_GREEN_CB.take(cb) + _GREEN_CR.take(cr)) >> _COLOUR_BITS
  out = np.empty((*y.shape, 3), np.uint8)
  for i, added in enumerate((_RED.take(cr), green, _BLUE.take(cb))):
    out[..., i] = np.clip(luma + added, 0, 255)
  return out
