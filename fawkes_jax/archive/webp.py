"""The chunks of a WebP file (RFC 9649)."""

import struct
from collections.abc import Iterator

_HEADER = 12
_CARRIED = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP", b"EXIF", b"XMP "}


def is_lossless(data: bytes) -> bool:
  """Whether the picture is in a lossless chunk (VP8L)."""
  names = (name for name, _ in _chunks(data))
  return next((n for n in names if n in (b"VP8L", b"VP8 ")), b"") == b"VP8L"


def lost_chunks(data: bytes) -> set[str]:
  """Names of what is in a file besides its picture and known metadata."""
  lost, end = set(), _HEADER
  for name, stop in _chunks(data):
    if name not in _CARRIED:
      lost.add(f"WebP chunk {name.decode('latin-1').strip()}")
    end = stop
  if data[end:].strip(b"\x00"):
    lost.add("trailing data")
  return lost


def _chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
  """The name of each chunk, and where it ends."""
  position = _HEADER
  (size,) = struct.unpack_from("<I", data, 4)
  while position + 8 <= min(len(data), 8 + size):
    name, size_ = struct.unpack_from("<4sI", data, position)
    position += 8 + size_ + size_ % 2
    yield name, position
