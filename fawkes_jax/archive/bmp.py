"""BMP with an alpha channel, which Pillow reads but does not write."""

import struct

import numpy as np


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
