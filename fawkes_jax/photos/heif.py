"""What is in a HEIF file besides its picture (ISO 23008-12)."""

import struct
from collections.abc import Iterator

_KNOWN = (b"ftyp", b"meta", b"mdat", b"free", b"skip")
_CLIPS = (b"mpvd", b"moov")


def lost_parts(info: dict, data: bytes) -> set[str]:
  """Names of what is not written again, in words.

  Args:
    info: what the decoder says of the file.
    data: the file.
  """
  lost = set()
  if info.get("depth_images"):
    lost.add("depth map")
  for name in info.get("aux") or ():
    lost.add("gain map" if "gain" in str(name).lower() else "second picture")
  if info.get("metadata"):
    lost.add("metadata of another kind")
  for name, box in _boxes(data):
    if name == b"meta" and b"thmb" in box:
      lost.add("preview")
    elif name in _CLIPS:
      lost.add("motion clip")
    elif name not in _KNOWN:
      lost.add("trailing data")
  return lost


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
  """The name of each outer box, and what it holds."""
  position = 0
  while position + 8 <= len(data):
    size, name = struct.unpack_from(">I4s", data, position)
    head = 8
    if size == 1 and position + 16 <= len(data):
      (size,) = struct.unpack_from(">Q", data, position + 8)
      head = 16
    end = position + size if size >= head else len(data)
    yield name, data[position + head : end]
    position = end
