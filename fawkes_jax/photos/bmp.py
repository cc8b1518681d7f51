"""BMP with an alpha channel, which Pillow does not write; what a BMP has."""

import struct

import numpy as np

_INFO_HEADER, _V5_HEADER = 40, 124
_MASKS = 16


def encode_rgba(pixels: np.ndarray, *, dpi: tuple[float, float]) -> bytes:
  """A 32-bit BMP with a version 4 header.

  Args:
    pixels: uint8 [height, width, 4], RGBA.
    dpi: the resolution across and down, in pixels per inch; 0 for unknown.
  """
  height, width = pixels.shape[:2]
  body = np.ascontiguousarray(pixels[::-1, :, [2, 1, 0, 3]]).tobytes()
  across, down = (round(value / 0.0254) for value in dpi)
  offset = 14 + 108
  header = struct.pack("<2sIHHI", b"BM", offset + len(body), 0, 0, offset)
  header += struct.pack(
    "<IiiHHIIiiII",
    *(108, width, height, 1, 32),
    *(3, len(body), across, down, 0, 0),
  )
  masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
  return header + masks + b"BGRs" + bytes(48) + body


def lost_parts(data: bytes) -> set[str]:
  """Names of what is in a file besides its picture, in words."""
  lost: set[str] = set()
  try:
    (start, size) = struct.unpack_from("<II", data, 10)
    if size < _INFO_HEADER:
      return lost
    fields = struct.unpack_from("<iiHHII", data, 18)
    width, height, _, bits, compression, body = fields
    (colours,) = struct.unpack_from("<I", data, 46)
    if size >= _V5_HEADER and data[70:74] in (b"DEBM", b"KNIL"):
      lost.add("colour profile")
  except struct.error:
    return lost
  palette = 4 * (colours or (1 << bits if bits <= 8 else 0))
  if start > 14 + size + palette + _MASKS:
    lost.add("data before the pixels")
  rows = (width * bits + 31) // 32 * 4 * abs(height)
  end = start + (rows if compression in (0, 3) else body)
  if not lost and data[end:].strip(b"\x00"):
    lost.add("trailing data")
  return lost
