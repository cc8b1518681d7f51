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

import contextlib
import dataclasses
import os
import re
import shutil
import struct
import tempfile
import threading
from collections.abc import Iterator, Sequence

import jpeglib
import numpy as np

from fawkes_jax import types
from fawkes_jax.photos import orientation, segments
from fawkes_jax.photos.edits import Edits
from fawkes_jax.photos.quiet import quiet_natives
from fawkes_jax.photos.regions import regions

# JFIF (ITU-T T.871), without the offsets: changes have none.
_TO_YCBCR = np.array(
  [
    [0.299, 0.587, 0.114],
    [-0.299 / 1.772, -0.587 / 1.772, 0.5],
    [0.5, -0.587 / 1.402, -0.114 / 1.402],
  ]
)
_FREQUENCY = np.arange(8)[:, np.newaxis]
_DCT = 0.5 * np.cos((2 * np.arange(8) + 1) * _FREQUENCY * np.pi / 16)
_DCT[0] /= np.sqrt(2)

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
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.S)

# jpeglib keeps markers and the chosen codec in global variables.
_LOCK = threading.Lock()


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


def add_patches(
  data: bytes,
  header: segments.Header,
  patches: Sequence[types.Patch],
  *,
  how: orientation.Orientation,
  largest_step: int,
  edits: Edits,
  lost: set[str],
) -> bytes | None:
  """The JPEG with its changes added: upright, where `can_turn` allows it.

  Elsewhere the picture stays as it is stored, and its orientation with it.

  Args:
    data: a file that has been decoded without complaint and `is_editable`.
    header: its header.
    patches: the changes, in the upright photo.
    how: how it is turned upright.
    largest_step: coarser quantisation steps are divided; 0 divides none.
    edits: what is done to the metadata.
    lost: gets the names of what of it has to go.

  Returns:
    The new file: optimised Huffman tables, progressive if the source is, no
    restart markers. None if the source has coefficients that 8-bit coding
    does not allow.

  Raises:
    types.PhotoError: jpeglib refuses, or there is no room for its files.
  """
  source = _read(data, header)
  upright = can_turn(header, how)
  if upright:
    source = _turn(source, how)
  else:
    shape = source.height, source.width
    patches = [orientation.stored_patch(p, how, shape) for p in patches]
  if any(_out_of_range(plane) for plane in source.planes):
    return None
  if largest_step:
    _refine(source, largest_step)
  _add(source, patches)
  encoded = _write(source, progressive=header.frame == 0xC2)
  edits = edits if upright else dataclasses.replace(edits, how=None)
  kept = segments.clean_metadata(header, edits, lost)
  return segments.replace_metadata(encoded, kept, header.ids)


def _turn(
  coefficients: Coefficients, how: orientation.Orientation
) -> Coefficients:
  c = coefficients
  flip = (lambda pair: pair[::-1]) if how.transpose else (lambda pair: pair)
  height, width = flip((c.height, c.width))
  return Coefficients(
    height=height,
    width=width,
    planes=[orientation.upright_blocks(p, how) for p in c.planes],
    tables=[t.T if how.transpose else t for t in c.tables],
    sampling=[flip(s) for s in c.sampling],
  )


def _out_of_range(plane: np.ndarray) -> bool:
  flat = plane.reshape(-1, 64)
  return not (
    flat.max() <= _AC_RANGE[1]
    and flat[:, 0].min() >= _DC_RANGE[0]
    and flat[:, 1:].min() >= _AC_RANGE[0]
  )


def _clip(plane: np.ndarray) -> np.ndarray:
  clipped = np.clip(plane, *_AC_RANGE)
  clipped[..., 0, 0] = np.clip(plane[..., 0, 0], *_DC_RANGE)
  return clipped


def finer_step(step: int, largest: int) -> int:
  """The largest divisor of a quantisation step that is not above another."""
  return next(d for d in range(min(step, largest), 0, -1) if step % d == 0)


def _refine(c: Coefficients, largest: int) -> None:
  """Divides quantisation steps in place; what is decoded stays the same.

  Where a coefficient would be larger than the file can hold, by less.
  """
  for i, plane in enumerate(c.planes):
    table = c.tables[i].copy()  # Components share theirs.
    for u, v in np.argwhere(table > largest):
      step = int(table[u, v])
      low, high = _AC_RANGE if u or v else _DC_RANGE
      values = plane[..., u, v].astype(np.int32)
      least, most = int(np.min(values)), int(np.max(values))
      for finer in range(finer_step(step, largest), step):
        factor, rest = divmod(step, finer)
        if not rest and low <= factor * least and factor * most <= high:
          plane[..., u, v] = factor * values
          table[u, v] = finer
          break
    c.tables[i] = table


def _add(c: Coefficients, patches: Sequence[types.Patch]) -> None:
  """Adds changes to coefficients in place."""
  rows, columns = c.most
  cell = 8 * columns, 8 * rows
  for patch in regions(patches, width=c.width, height=c.height, cell=cell):
    for i, plane in enumerate(c.planes):
      v, h = c.sampling[i]
      change = patch.change.astype(np.float64) @ _TO_YCBCR[i]
      steps = _quantise(_average(change, rows // v, columns // h), c.tables[i])
      top = patch.top * v // (8 * rows)
      left = patch.left * h // (8 * columns)
      target = plane[top : top + len(steps), left : left + steps.shape[1]]
      steps = steps[: target.shape[0], : target.shape[1]]
      target[...] = _clip(target + steps)


def _average(change: np.ndarray, rows: int, columns: int) -> np.ndarray:
  height, width = change.shape
  shape = height // rows, rows, width // columns, columns
  return change.reshape(shape).mean(axis=(1, 3))


def _quantise(change: np.ndarray, table: np.ndarray) -> np.ndarray:
  """The change's coefficients in steps; int16 [rows, columns, 8, 8]."""
  height, width = change.shape
  blocks = change.reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2)
  return np.rint(_DCT @ blocks @ _DCT.T / table).astype(np.int16)


def _read(data: bytes, header: segments.Header) -> Coefficients:
  with _LOCK, quiet_natives(), _workspace(len(data)) as folder:
    path = os.path.join(folder, "source.jpg")
    with open(path, "wb") as file:
      file.write(with_end(data))
    image = jpeglib.read_dct(path)
    image.load()
  planes = [image.Y] if image.Cb is None else [image.Y, image.Cb, image.Cr]
  count = len(planes)
  sampling = header.sampling if count == 3 else ((1, 1),)
  return Coefficients(
    height=header.height,
    width=header.width,
    planes=planes,
    tables=[image.get_component_qt(i) for i in range(count)],
    sampling=list(sampling),
  )


def _write(c: Coefficients, *, progressive: bool) -> bytes:
  tables: list[np.ndarray] = []
  numbers = []
  for table in c.tables:
    same = [i for i, t in enumerate(tables) if np.array_equal(t, table)]
    numbers.append(same[0] if same else len(tables))
    if not same:
      tables.append(table)
  image = jpeglib.from_dct(
    *c.planes, qt=np.array(tables, np.uint16), quant_tbl_no=numbers
  )
  image.height, image.width = c.height, c.width
  image.samp_factor = np.array(c.sampling)
  size = sum(p.nbytes for p in c.planes)
  with _LOCK, quiet_natives(), _workspace(size) as folder:
    path = os.path.join(folder, "target.jpg")
    image.write_dct(path, flags=["+OPTIMIZE_CODING"])
    if progressive:
      _make_progressive(path)
    with open(path, "rb") as file:
      return file.read()


def _make_progressive(path: str) -> None:
  """Recodes a JPEG with several scans; the coefficients stay the same."""
  try:
    with jpeglib.version("mozjpeg300"):
      image = jpeglib.read_dct(path)
      image.load()
      image.write_dct(path)
  except RuntimeError:
    return  # this build of jpeglib lacks the encoder; one scan does as well


@contextlib.contextmanager
def _workspace(size: int) -> Iterator[str]:
  """A private temporary folder with room for a few times `size` bytes.

  libjpeg ends the process when it cannot write, so the room is made sure of.
  """
  try:
    with tempfile.TemporaryDirectory(prefix="fawkes-jax-") as folder:
      if shutil.disk_usage(folder).free < 3 * size + 2**20:
        raise types.PhotoError(f"no room for temporary files in {folder}")
      yield folder
  except (OSError, ValueError) as error:  # jpeglib raises both.
    raise types.PhotoError(f"JPEG coefficients: {error}") from error
