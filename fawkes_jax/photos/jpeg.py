"""Changes to JPEG photos in the DCT domain.

A JPEG is not encoded anew. The change is converted to YCbCr, averaged where
chroma is subsampled, transformed, divided by the source's quantisation steps,
rounded, and added to the source's coefficients:

    new = old + round(DCT(change) / q)

so a block that no change touches keeps its coefficients exactly, and a
touched one has no error but the rounding of the change itself. Orientations
are applied to the coefficients, too, without loss. Where steps are so coarse
that a change would be rounded away, they can be divided by whole numbers, and
the coefficients multiplied: the same pixels, more room.

Decoders interpolate subsampled chroma, so a changed chroma block can alter
the pixels of one more column and row than its own block covers (two where
the factor is 4). The DCT itself is blind to borders: a change alters whole
blocks of 8 x 8 samples, 16 x 16 pixels in 4:2:0.
"""

import dataclasses
import functools
import re
import struct
from collections.abc import Sequence

import numpy as np

from fawkes_jax import types
from fawkes_jax.photos import blocks, coefficients, orientation, segments
from fawkes_jax.photos.blocks import Coefficients
from fawkes_jax.photos.edits import Edits
from fawkes_jax.photos.regions import Box, regions

# Blocks of a coding unit that a scan of several components may have.
_MOST_BLOCKS = 10
# What 8-bit Huffman coding can hold.
_DC_RANGE = -1024, 1023
_AC_RANGE = -1023, 1023

_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}
_REFUSED_FRAMES = {
  0xC3: "lossless JPEG is not supported",
  **dict.fromkeys((0xC5, 0xC6, 0xC7), "hierarchical JPEG is not supported"),
  0xCB: "lossless JPEG is not supported",
  **dict.fromkeys((0xCD, 0xCE, 0xCF), "hierarchical JPEG is not supported"),
  0xF7: "JPEG-LS is not supported",
}
_EOI = b"\xff\xd9"
# A marker among coded data, where 0 and restarts are none.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.S)


def refusal(data: bytes) -> str | None:
  """Why a JPEG of this kind is not supported; None where it may be.

  Arithmetic coding is the decoder's business.
  """
  try:
    frame = next(s for s in segments.read(data) if s.marker in _SOF)
    precision = frame.payload[0]
  except (IndexError, StopIteration, ValueError, struct.error):
    return None  # What is damaged gets the decoder's reason.
  if precision > 8 and frame.marker not in _REFUSED_FRAMES:
    return f"JPEG of {precision} bits per sample is not supported"
  return _REFUSED_FRAMES.get(frame.marker)


def with_end(data: bytes) -> bytes:
  """The file with the marker of its end, added where there is none."""
  if _scans(data)[1]:
    return data
  return data.rstrip(b"\xff") + _EOI


def completions(data: bytes) -> list[bytes]:
  """What a decoder can be given to learn whether only the end is missing.

  Cameras that lose power, and some programs, leave the marker of the end out.
  Whether something of the picture is missing, too, a decoder does not say: it
  takes zeros for it. But if other bits in its place make no other picture,
  then nothing is.

  Args:
    data: a JPEG file.

  Returns:
    Nothing for a file that has its end; otherwise files with an end, which
    are decoded to the same pixels if nothing else is missing.

  Raises:
    types.PhotoError: a whole scan is missing.
  """
  scans, ended = _scans(data)
  if ended:
    return []
  # What is left of each coefficient: of none, nothing has come yet.
  missing: dict[int, list[bool]] = {}
  for number in segments.parse(data).ids:
    missing[number] = [True] * 64
  for scan in scans:
    count = scan[0]
    first, last, approximation = scan[1 + 2 * count : 4 + 2 * count]
    for number in scan[1 : 1 + 2 * count : 2]:
      for i in range(first, min(last, 63) + 1):
        missing[number][i] = bool(approximation & 15)
  if any(map(any, missing.values())):
    raise types.PhotoError("truncated: a scan is missing")
  body = data.rstrip(b"\xff")
  return [body + bytes([fill]) * 64 + _EOI for fill in (0x00, 0xAA, 0x55)]


def _scans(data: bytes) -> tuple[list[bytes], bool]:
  """The headers of all scans, and whether the end is marked.

  Raises:
    ValueError: there is none, or a header is damaged.
  """
  scans: list[bytes] = []
  position = segments.parse(data).scan_offset
  while match := _MARKER.search(data, position):
    marker, position = match[1][0], match.end()
    if marker == _EOI[1]:
      return scans, True
    if position + 2 > len(data):
      break
    (length,) = struct.unpack_from(">H", data, position)
    if marker == 0xDA:
      header = data[position + 2 : position + length]
      if not header or len(header) < 4 + 2 * header[0]:
        raise ValueError("a scan that ends early")
      scans.append(header)
    position += length
  return scans, False


def is_editable(header: segments.Header) -> bool:
  """Whether the coefficients can be edited.

  That takes 8-bit Huffman coding, baseline or progressive, greyscale or
  YCbCr, each component with one sample for a whole number of pixels.
  """
  if header.frame not in (0xC0, 0xC1, 0xC2) or header.precision != 8:
    return False
  if len(header.sampling) == 1:
    return True
  if len(header.sampling) != 3:
    return False
  is_rgb = bytes(header.ids) == b"RGB"
  is_ycbcr = header.jfif or header.adobe_transform == 1
  if not is_ycbcr and (header.adobe_transform is not None or is_rgb):
    return False
  rows, columns = zip(*header.sampling, strict=True)
  return (
    min(rows + columns) > 0
    and not any(max(rows) % v or max(columns) % h for v, h in header.sampling)
    and sum(v * h for v, h in header.sampling) <= _MOST_BLOCKS
  )


def can_turn(header: segments.Header, how: orientation.Orientation) -> bool:
  """Whether the coefficients can be turned upright without loss.

  A flip needs the flipped axis to be filled with whole coding units. Unusual
  sampling is never turned.
  """
  if how == orientation.Orientation():
    return True
  v, h = (1, 1) if len(header.sampling) == 1 else header.sampling[0]
  if any(chroma != (1, 1) for chroma in header.sampling[1:]):
    return False
  height, width = header.height, header.width
  if how.transpose:
    height, width, v, h = width, height, h, v
  columns_fit = not how.flip_columns or width % (8 * h) == 0
  rows_fit = not how.flip_rows or height % (8 * v) == 0
  return columns_fit and rows_fit


class Editor:
  """The coefficients of a photo, to which changes can be added.

  Only the blocks that a change touches are ever computed, and `preview` those
  of a part of the photo: the file is decoded and encoded once. The coefficients
  of a large photo take much memory: `encode` changes them where they are, and
  whatever comes after it reads them again.
  """

  def __init__(
    self, data: bytes, header: segments.Header, how: orientation.Orientation
  ):
    """Reads the coefficients.

    Elsewhere than where `can_turn` allows it the picture stays as it is
    stored, and its orientation with it.

    Args:
      data: a file that has been decoded without complaint and `is_editable`.
      header: its header.
      how: how it is turned upright.

    Raises:
      types.PhotoError: the library refuses, or there is no room.
    """
    self._data = data
    self._header = header
    self._how = how
    self._upright = can_turn(header, how)
    self._c = self._read()
    self._known: dict[int, tuple[list[np.ndarray], Coefficients]] = {}
    self._least = [_over_blocks(np.minimum, plane) for plane in self._c.planes]
    self._most = [_over_blocks(np.maximum, plane) for plane in self._c.planes]

  @property
  def fits(self) -> bool:
    """Whether all coefficients are such as 8-bit coding allows."""
    return all(
      _is_inside(least) and _is_inside(most)
      for least, most in zip(self._least, self._most, strict=True)
    )

  def preview(
    self,
    patches: Sequence[types.Patch],
    boxes: Sequence[Box],
    *,
    largest_step: int,
  ) -> list[np.ndarray]:
    """What parts of the photo are decoded to, once it is encoded.

    Args:
      patches: the changes, in the upright photo.
      boxes: of the parts, in the upright photo.
      largest_step: as in `encode`.

    Returns:
      uint8 [h, w, 3] each, upright.
    """
    self._restore()
    factors, c = self._refined(largest_step)
    steps = self._steps(patches, c.tables)

    def block(
      i: int, top: int, bottom: int, left: int, right: int
    ) -> np.ndarray:
      return self._changed(i, (left, top, right, bottom), factors[i], steps[i])

    if self._upright:
      return [blocks.pixels(c, box, block) for box in boxes]
    stored = self._c.height, self._c.width
    return [
      orientation.upright_pixels(
        blocks.pixels(c, orientation.stored_box(box, self._how, stored), block),
        self._how,
      )
      for box in boxes
    ]

  def encode(
    self,
    patches: Sequence[types.Patch],
    *,
    largest_step: int,
    edits: Edits,
    lost: set[str],
  ) -> bytes:
    """The JPEG with its changes added.

    Args:
      patches: the changes, in the upright photo.
      largest_step: coarser quantisation steps are divided; 0 divides none.
      edits: what is done to the metadata.
      lost: gets the names of what of it has to go.

    Returns:
      The new file: optimised Huffman tables, progressive if the source is, no
      restart markers.

    Raises:
      types.PhotoError: the library refuses, or there is no room.
    """
    self._restore()
    factors, c = self._refined(largest_step)
    steps = self._steps(patches, c.tables)
    changed = [
      [
        (box, self._changed(i, box, factors[i], steps[i]))
        for box, _ in steps[i]
      ]
      for i in range(len(c.planes))
    ]
    for plane, factor, parts in zip(c.planes, factors, changed, strict=True):
      if (factor > 1).any():
        plane *= factor
      for (left, top, right, bottom), part in parts:
        plane[top:bottom, left:right] = part
    try:
      encoded = coefficients.write(c, progressive=self._header.frame == 0xC2)
    finally:
      c.planes.clear()  # They are others now, and large.
    edits = edits if self._upright else dataclasses.replace(edits, how=None)
    kept = segments.clean_metadata(self._header, edits, lost)
    return segments.replace_metadata(encoded, kept, self._header.ids)

  def _read(self) -> Coefficients:
    """The coefficients of the file, turned upright where they can be."""
    source = coefficients.read(with_end(self._data), self._header)
    return _turn(source, self._how) if self._upright else source

  def _restore(self) -> None:
    """Reads the coefficients again that `encode` has changed and dropped."""
    if not self._c.planes:
      self._c.planes.extend(self._read().planes)

  def _refined(
    self, largest_step: int
  ) -> tuple[list[np.ndarray], Coefficients]:
    """Divides quantisation steps; what is decoded stays the same.

    Where a coefficient would be larger than the file can hold, by less.

    Returns:
      By what the coefficients of each component are multiplied, int16 [8, 8],
      and the photo with its new tables and its old coefficients.
    """
    if largest_step in self._known:
      return self._known[largest_step]
    factors = [np.ones((8, 8), np.int16) for _ in self._c.planes]
    tables = [table.copy() for table in self._c.tables]
    for i, table in enumerate(self._c.tables):
      least, most = self._least[i].tolist(), self._most[i].tolist()
      coarse = np.argwhere(table > largest_step) if largest_step else table[:0]
      for u, v in coarse.tolist():
        low, high = _AC_RANGE if u or v else _DC_RANGE
        for smaller, factor in _finer_steps(int(table[u, v]), largest_step):
          if low <= factor * least[u][v] and factor * most[u][v] <= high:
            factors[i][u, v] = factor
            tables[i][u, v] = smaller
            break
    finer = factors, dataclasses.replace(self._c, tables=tables)
    self._known[largest_step] = finer
    return finer

  def _steps(
    self, patches: Sequence[types.Patch], tables: Sequence[np.ndarray]
  ) -> list[list[tuple[Box, np.ndarray]]]:
    """What changes add to each component's coefficients.

    Returns:
      For each component boxes of blocks that do not overlap, with int16 [rows,
      columns, 8, 8].
    """
    c = self._c
    if not self._upright:
      shape = c.height, c.width
      patches = [orientation.stored_patch(p, self._how, shape) for p in patches]
    rows, columns = c.most
    cell = 8 * columns, 8 * rows
    steps: list[list[tuple[Box, np.ndarray]]] = [[] for _ in c.planes]
    for patch in regions(patches, width=c.width, height=c.height, cell=cell):
      changes = blocks.components(patch.change, len(c.planes))
      for i, change in enumerate(changes):
        v, h = c.sampling[i]
        plane = blocks.average(change, rows // v, columns // h)
        added = blocks.quantise(plane, tables[i])
        top = patch.top * v // (8 * rows)
        left = patch.left * h // (8 * columns)
        height, width = c.planes[i].shape[:2]
        added = added[: height - top, : width - left]
        box = left, top, left + added.shape[1], top + added.shape[0]
        steps[i].append((box, added))
    return steps

  def _changed(
    self,
    i: int,
    box: Box,
    factors: np.ndarray,
    steps: list[tuple[Box, np.ndarray]],
  ) -> np.ndarray:
    """The coefficients of a component's blocks with all changes added."""
    left, top, right, bottom = box
    part = self._c.planes[i][top:bottom, left:right] * factors
    for (x0, y0, x1, y1), added in steps:
      x, y = max(left, x0), max(top, y0)
      x_end, y_end = min(right, x1), min(bottom, y1)
      if x < x_end and y < y_end:
        target = part[y - top : y_end - top, x - left : x_end - left]
        target += added[y - y0 : y_end - y0, x - x0 : x_end - x0]
        target[...] = _clip(target)
    return part


def _turn(c: Coefficients, how: orientation.Orientation) -> Coefficients:
  flip = (lambda pair: pair[::-1]) if how.transpose else (lambda pair: pair)
  height, width = flip((c.height, c.width))
  return Coefficients(
    height=height,
    width=width,
    planes=[orientation.upright_blocks(p, how) for p in c.planes],
    tables=[t.T if how.transpose else t for t in c.tables],
    sampling=[flip(s) for s in c.sampling],
  )


def _over_blocks(reduction: np.ufunc, plane: np.ndarray) -> np.ndarray:
  """The least or the largest coefficients of blocks.

  Args:
    reduction: np.minimum or np.maximum.
    plane: int16 [rows, columns, 8, 8].

  Returns:
    int16 [8, 8].
  """
  # Over long rows first, which is several times as fast.
  of_columns = reduction.reduce(plane.reshape(len(plane), -1), axis=0)
  return reduction.reduce(of_columns.reshape(-1, 8, 8), axis=0)


def _is_inside(block: np.ndarray) -> bool:
  """Whether 8-bit coding can hold a block."""
  return np.array_equal(_clip(block), block)


def _clip(block: np.ndarray) -> np.ndarray:
  """Coefficients [..., 8, 8], as near to them as 8-bit coding allows."""
  clipped = np.clip(block, *_AC_RANGE)
  clipped[..., 0, 0] = np.clip(block[..., 0, 0], *_DC_RANGE)
  return clipped


@functools.lru_cache(maxsize=4096)
def _finer_steps(step: int, largest: int) -> list[tuple[int, int]]:
  """How a quantisation step can be divided.

  Args:
    step: what is divided.
    largest: what the result is not to be above, where possible.

  Returns:
    The quotients below the step from `finer_step` on, each with its divisor.
  """
  quotients = range(finer_step(step, largest), step)
  return [(q, step // q) for q in quotients if step % q == 0]


def finer_step(step: int, largest: int) -> int:
  """The largest divisor of a quantisation step that is not above another."""
  return next(d for d in range(min(step, largest), 0, -1) if step % d == 0)
