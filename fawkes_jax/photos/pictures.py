"""Finds pictures that hide in blocks of bytes, whatever holds the block.

A cloaked photo must not carry a second picture of the face without its cloak,
and there is no end of places for one. So nothing here knows places. A block is
looked at as it is, and as what it may stand for (digits of base 64 or 16 in
any layout, decimal numbers, bytes in wider numbers, compressed streams, one in
the other), for

* files of pictures, films, documents and archives, by how they begin; where
  that is too short to be sure of, they are opened;
* JPEG streams without a beginning, by their frame header;
* samples without any header, by what they show: neighbours that differ
  little, and now in the one direction, now in the other;
* what is as dense as compressed samples are, and may therefore be some.

A false alarm costs a block of metadata, and its loss is told; so where in
doubt, a block holds a picture.
"""

import binascii
import contextlib
import io
import itertools
import re
import string
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from fawkes_jax.photos.quiet import quiet_pillow

JPEG_START = b"\xff\xd8\xff"
_LEAST = 48
"""No picture of fewer bytes shows a face."""
_LARGEST = 4 << 20
"""Larger blocks are not looked through: they may hold one."""
_DEPTH = 4
_INFLATED = _LARGEST + 1
_PIECE = 1 << 8
_MOST = 256
"""So many doubtful beginnings are looked at; more would take too long."""

_BEGINNINGS = re.compile(
  b"|".join(
    re.escape(start)
    for start in (
      *(JPEG_START, b"\x89PNG\r\n", b"GIF87a", b"GIF89a", b"jP  \r\n\x87\n"),
      *(b"\xffO\xffQ\x00", b"JXL \r\n\x87\n", b"8BPS\x00", b"8B64", b"BPG\xfb"),
      *(b"qoif", b"FLIF", b"v/1\x01", b"#?RADIANCE", b"#?RGBE", b"DDS |"),
      *(b"Y\xa6j\x95", b"%PDF-", b"%!PS", b"PK\x03\x04", b"BZh91AY&SY"),
      *(b"\xfd7zXZ\x00", b"(\xb5/\xfd", b"7z\xbc\xaf'\x1c", b"Rar!\x1a\x07"),
      *(b"\x1aE\xdf\xa3", b"II\xbc\x01", b"IIU\x00", b"FUJIFILMCCD-RAW"),
    )
  )
  + rb"|IHDR\x00\x00|VP8[ LX].{2}\x00\x00|\x00jp2c|RIFF.{4}(?:WEBP|AVI )"
  rb"|.ftyp[ -~]{4}|\x00(?:moov|mdat)",
  re.DOTALL,
)
_DOUBTFUL = re.compile(
  rb"BM.{4}\x00{4}|P[1-7]\s|\xff\x0a|\x0a[\x00-\x05]\x01[\x01-\x08]"
  rb"|II[*+]\x00|MM\x00[*+]|\x01\xda[\x00\x01][\x01\x02]",
  re.DOTALL,
)
# A frame header of 8 bits and one, three or four components.
_FRAME = re.compile(rb"\xff[\xc0-\xc2]\x00[\x0b\x11\x14]\x08")
# Some cameras write a preview with another first byte.
_MUTED_START = re.compile(rb"\xd8\xff[\xc0-\xfe]")
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_COMPRESSED = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08")

# Numbers of 16 bits below 256; wider ones are these, twice.
_WIDE = re.compile(rb"(?:[\x00-\xff]\x00){48,}", re.DOTALL)
# White space and quotes, as they are and as XML and C write them.
_LAYOUT = re.compile(
  rb"<!\[CDATA\[|\]\]>|[\s\x00\"',\\]"
  rb"|&#(?:x0*(?:9|a|d|20)|0*(?:9|10|13|32));|\\[nrt]",
  re.IGNORECASE,
)
_CDATA = re.compile(rb"<!\[CDATA\[|\]\]>|&#x?[0-9A-Fa-f]+;")
_TAG = re.compile(rb"<[^<>]*>")
_BASE_64 = re.compile(rb"[A-Za-z0-9+/_-]{128,}")
_LEAST_OTHERS = 0.2
"""The least share of digits that are no small letters; prose has fewer."""
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_BASE_16 = re.compile(rb"[0-9A-Fa-f]{96,}")
_BEFORE_HEX = re.compile(rb"\\?[0x]x|[%:-]")
_DECIMAL = re.compile(rb"[0-9\s,;]{96,}")

_WINDOW = 512
_LONG = 1 << 17
"""From so many bytes on, windows do not overlap."""
_NEAR = 0.5
_ALIKE = 0.6
"""The least share of neighbours whose difference is below `_NEAR` standard
deviations. All of 500 thumbnails of 32 x 32 pixels had more, as RGB and grey,
and white noise has 0.3; measured on Labeled Faces in the Wild."""
_TURNS = 0.1
"""The least share of changes of direction; tables and curves have fewer."""
_DENSE_WINDOW = 2048
_DENSE, _DENSE_TEXT = 0.97, 0.72
"""What compression leaves of what is already compressed, as bytes and as
printable characters; of makers' notes it leaves 0.9, of prose 0.6."""


def holds(block: bytes, *, samples: bool = True) -> bool:
  """Whether a block holds a picture, or may hold one that cannot be read.

  Args:
    block: any bytes.
    samples: whether samples without any header are looked for, too; False for
      what is known to have tables of its own.
  """
  return _holds(block, _DEPTH, samples=samples)


def _holds(block: bytes, depth: int, *, samples: bool) -> bool:
  if len(block) < _LEAST or not any(block):
    return False
  if len(block) > _LARGEST:
    return True
  text = is_text(block)
  if _BEGINNINGS.search(block) or _FRAME.search(block):
    return True
  if any(_opens(block[start:]) for start in _doubtful(block)):
    return True
  if any(_is_muted_jpeg(block[m.start() :]) for m in _muted(block)):
    return True
  # A character may have two bytes.
  bare = block if text else _WIDE.sub(b"", block)
  if samples and not text and (_shows(bare) or _is_dense(bare, _DENSE)):
    return True
  if samples and text and _is_dense(_LAYOUT.sub(b"", block), _DENSE_TEXT):
    return True
  return depth > 0 and any(
    _holds(view, depth - 1, samples=samples)
    for view in _views(block, digits=text or depth == _DEPTH)
  )


def jpeg_spans(block: bytes) -> list[slice]:
  """Where JPEG files are; one that is damaged ends with the block."""
  spans = []
  start = block.find(JPEG_START)
  while start >= 0:
    end = jpeg_end(block, start)
    spans.append(slice(start, end))
    start = block.find(JPEG_START, end)
  return spans


def jpeg_end(block: bytes, start: int) -> int:
  """Where a JPEG ends, or else the end of the block."""
  position, scanned = start + 2, False
  while block[position : position + 1] == b"\xff":
    while block[position : position + 1] == b"\xff":
      position += 1
    marker = block[position : position + 1]
    position += 1
    if marker == b"\xd9":
      return position
    if not marker or position + 2 > len(block):
      break
    if marker == b"\xd8" and scanned:
      return position - 2
    if marker[0] > 1 and not 0xD0 <= marker[0] <= 0xD8:
      position += struct.unpack_from(">H", block, position)[0]
    if marker == b"\xda":
      following = _NEXT_MARKER.search(block, position)
      if following is None:
        break
      position, scanned = following.start(), True
  return len(block)


def is_text(block: bytes) -> bool:
  """Whether nearly all of a block is printable ASCII, or it is UTF-8."""
  counts = np.bincount(np.frombuffer(block, np.uint8), minlength=256)
  high = int(counts[128:].sum())
  control = int(counts[:32].sum() - counts[[9, 10, 13]].sum())
  if high > 0.02 * len(block):
    try:
      block.decode()
    except UnicodeDecodeError:
      return False
    high = 0
  return bool(control + high <= 0.02 * len(block) + 1)


def _doubtful(block: bytes) -> Iterator[int]:
  found = (match.start() for match in _DOUBTFUL.finditer(block))
  return itertools.islice(found, _MOST)


def _muted(block: bytes) -> Iterator[re.Match[bytes]]:
  return itertools.islice(_MUTED_START.finditer(block), _MOST)


def _is_muted_jpeg(block: bytes) -> bool:
  data = b"\xff" + block
  return b"\xff\xda" in data[: jpeg_end(data, 0)] and _opens(data)


def _opens(block: bytes) -> bool:
  """Whether Pillow knows what begins here, and finds a picture in it."""
  try:
    with quiet_pillow(), Image.open(io.BytesIO(block)) as image:
      return min(image.size) >= 8
  except Exception:
    # Whatever a decoder says of what is none.
    return False


def _views(block: bytes, *, digits: bool) -> Iterator[bytes]:
  """What a block may stand for; as `digits`, too, where it may have some."""
  yield from _inflated(block)
  yield from _narrow(block)
  if not digits:
    return
  plain = _LAYOUT.sub(b"", block)
  untagged = _TAG.sub(b"", plain)
  yield from _digits(plain)
  if untagged != plain:
    yield from _digits(untagged)
  words = _CDATA.sub(b"", block)
  for match in _DECIMAL.finditer(words + b"|" + _TAG.sub(b"", words)):
    numbers = [int(number) for number in re.findall(rb"\d{1,9}", match[0])]
    if max(numbers, default=256) <= 255:
      yield bytes(numbers)


def _digits(plain: bytes) -> Iterator[bytes]:
  """What digits of base 64 and 16 stand for."""
  for match in _BASE_64.finditer(plain):
    digits = match[0].translate(_URL_SAFE)
    if len(digits.translate(None, string.ascii_lowercase.encode())) < (
      _LEAST_OTHERS * len(digits)
    ):
      continue
    for phase in range(4):
      yield _from_base_64(digits[phase:])
  for match in _BASE_16.finditer(_BEFORE_HEX.sub(b"", plain)):
    text = match[0].decode()
    for phase in range(2):
      yield bytes.fromhex(text[phase : len(text) - (len(text) - phase) % 2])


def _from_base_64(digits: bytes) -> bytes:
  return binascii.a2b_base64(digits[: len(digits) // 4 * 4])


def _inflated(block: bytes) -> Iterator[bytes]:
  """What zlib and gzip streams hold, those that are damaged up to there."""
  starts = (match.start() for match in _COMPRESSED.finditer(block))
  for start in itertools.islice(starts, _MOST):
    stream, held = zlib.decompressobj(47), b""
    with contextlib.suppress(zlib.error):
      for at in range(start, len(block), _PIECE):
        held += stream.decompress(block[at : at + _PIECE], _INFLATED)
        if stream.eof or len(held) > _LARGEST:
          break
    yield held


def _narrow(block: bytes) -> Iterator[bytes]:
  """Bytes that wider numbers, or characters, hold one each."""
  for match in _WIDE.finditer(block):
    yield match[0][::2]


def _shows(block: bytes) -> bool:
  """Whether samples without a header show something.

  Grey or planar samples have their neighbours beside them, RGB ones at a
  distance of 3 bytes, those of 16 bits at 2, and so on.
  """
  data = np.frombuffer(block, np.uint8).astype(np.int16)
  return any(_is_smooth(data, distance) for distance in (1, 2, 3, 4))


def _is_smooth(data: np.ndarray, distance: int) -> bool:
  window = _WINDOW * (2 if distance < 3 else 1)
  rows = data[: len(data) // distance * distance].reshape(-1, distance).T
  if rows.shape[1] < window:
    return False
  windows = np.lib.stride_tricks.sliding_window_view(rows, window, axis=1)
  hop = window // 2 if len(data) < _LONG else window
  windows = windows[:, ::hop]  # [distance, places, window]
  steps = np.diff(windows, axis=2)
  deviation = windows.std(axis=2)
  moving = steps != 0
  count = np.maximum(moving.sum(axis=2), 1)
  near = moving & (np.abs(steps) <= _NEAR * deviation[..., np.newaxis])
  alike = near.sum(axis=2) / count
  # A change of direction between one step that is none and the one before it.
  turns = (steps[..., 1:] * steps[..., :-1] < 0).sum(axis=2) / count
  varied = (count >= 0.4 * window) & (turns >= _TURNS)
  quiet = deviation < 8
  smooth = varied & (alike >= _ALIKE) & ~quiet
  if distance == 2:
    # The lower bytes of 16 bits are noise.
    fits = smooth.any(axis=0) & (smooth | quiet | varied).all(axis=0)
  else:
    fits = smooth.any(axis=0) & (smooth | quiet).all(axis=0)
  return bool(fits.any())


def _is_dense(block: bytes, least: float) -> bool:
  """Whether compression has hardly any effect on a part of a block."""
  step = _DENSE_WINDOW // 2
  return any(
    len(zlib.compress(block[start : start + _DENSE_WINDOW], 1))
    > least * _DENSE_WINDOW
    for start in range(0, len(block) - _DENSE_WINDOW + 1, step)
  )
