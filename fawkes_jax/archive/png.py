"""The chunks of a PNG file that go along with its pixels."""

import struct
import zlib
from collections.abc import Iterator

from fawkes_jax.archive import metadata

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP_KEYWORD = b"XML:com.adobe.xmp"
# EXIF and XMP are rewritten by themselves; what describes samples or palettes
# (sBIT, bKGD, hIST, tRNS, PLTE) depends on how the pixels are stored.
_CARRIED = frozenset(
  b"gAMA cHRM sRGB iCCP cICP mDCV cLLI pHYs tEXt zTXt iTXt tIME".split()
)
_REWRITTEN = (
  _XMP_KEYWORD,
  b"Raw profile type exif",
  b"Raw profile type APP1",
  b"Raw profile type xmp",
)


def carry_chunks(
  source: bytes, encoded: bytes, *, exif: bytes, xmp: bytes
) -> bytes:
  """Puts the source's colour, resolution, text and time into a new PNG.

  Args:
    source: the source's file.
    encoded: the new file, as the encoder wrote it, without metadata.
    exif: with or without its prefix; empty for none.
    xmp: a packet; empty for none.
  """
  carried = [
    (name, payload)
    for name, payload in _chunks(source)
    if name in _CARRIED and payload.split(b"\x00", 1)[0] not in _REWRITTEN
  ]
  if exif:
    carried.append((b"eXIf", exif.removeprefix(metadata.EXIF_PREFIX)))
  if xmp:
    carried.append((b"iTXt", _XMP_KEYWORD + bytes(5) + xmp))
  own = [c for c in _chunks(encoded) if c[0] in (b"IHDR", b"IDAT", b"IEND")]
  chunks = own[:1] + carried + own[1:]
  return _SIGNATURE + b"".join(_pack(*chunk) for chunk in chunks)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
  position = len(_SIGNATURE)
  while position + 8 <= len(data):
    size, name = struct.unpack_from(">I4s", data, position)
    yield name, data[position + 8 : position + 8 + size]
    position += 12 + size


def _pack(name: bytes, payload: bytes) -> bytes:
  check = struct.pack(">I", zlib.crc32(name + payload))
  return struct.pack(">I", len(payload)) + name + payload + check
