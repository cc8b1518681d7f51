"""The chunks of a WebP file (RFC 9649)."""

import struct
from collections.abc import Iterator

from fawkes_jax.photos import metadata, xmp
from fawkes_jax.photos.edits import Edits

_HEADER = 12
_CARRIED = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP", b"EXIF", b"XMP "}

# What cleans a chunk, and its flag in the first chunk.
_CLEANERS = {
  b"EXIF": (metadata.clean_exif, 0x08),
  b"XMP ": (xmp.clean_xmp, 0x04),
}


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


def strip(data: bytes, edits: Edits, lost: set[str]) -> bytes:
  """The file with other metadata; its pixels stay as they are.

  Args:
    data: a whole file.
    edits: what is done, but not `cloaked`.
    lost: gets the names of what has to go.
  """
  parts, start, flags = [], _HEADER, 0xFF
  for name, stop in _chunks(data):
    (size,) = struct.unpack_from("<I", data, start + 4)
    payload = data[start + 8 : start + 8 + size]
    if name in _CLEANERS:
      clean, flag = _CLEANERS[name]
      payload = clean(payload, edits, lost)
      flags &= 0xFF if payload else ~flag
    if payload:
      head = struct.pack("<4sI", name, len(payload))
      parts.append(head + payload + bytes(len(payload) % 2))
    start = stop
  if data[start:].strip(b"\x00"):
    lost.add("trailing data")
  body = bytearray(b"".join(parts))
  if body[:4] == b"VP8X":
    body[8] &= flags
  return struct.pack("<4sI4s", b"RIFF", len(body) + 4, b"WEBP") + bytes(body)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
  """The name of each chunk, and where it ends."""
  position = _HEADER
  (size,) = struct.unpack_from("<I", data, 4)
  while position + 8 <= min(len(data), 8 + size):
    name, size_ = struct.unpack_from("<4sI", data, position)
    position += 8 + size_ + size_ % 2
    yield name, position
