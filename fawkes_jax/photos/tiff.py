"""The tags of a TIFF file that go along with its pixels.

They are copied as they stand, with the types that the source gives them. So
what encoders think of a tag does not matter; they only write the pixels.
"""

import dataclasses
import struct

from fawkes_jax.photos import metadata, photoshop, pictures, xmp
from fawkes_jax.photos.edits import Edits

PREDICTOR = 317
PREDICTABLE = ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "zstd")
_XMP, _PHOTOSHOP, _SUB_IFDS = 700, 34377, 330
_EXIF, _GPS, _INTEROP = 34665, 34853, 40965
_LINKS = (_EXIF, _GPS, _INTEROP)
# How the pixels are stored, which the encoder decides; the orientation, as
# pixels are upright; directories and previews for other readers.
_STORAGE = {*range(254, 260), 262, 266, 273, 274, *range(277, 282), 284, 292}
_STORAGE |= {293, *range(317, 321), *range(322, 326), _SUB_IFDS, 338, 339, 347}
_STORAGE |= {*range(512, 522), *range(529, 533)}
# Where on the earth a picture is (GeoTIFF).
_GEOGRAPHY = {33550, 33922, 34264, *range(34735, 34738)}
# The bytes of a type's smallest part, and of a value.
_PARTS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 1, 7: 1, 8: 2, 9: 4, 10: 4, 11: 4}
_PARTS |= {12: 8, 13: 4}
_SIZES = _PARTS | {5: 8, 10: 8}
_BIG = 43


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Entry:
  """A tag, in the byte order that is written, the least first.

  Attributes:
    kind: the number of its type.
    value: its bytes.
    stored: the same as they were, in the source's order.
    directory: what it links to, instead of a value.
  """

  kind: int
  value: bytes = b""
  stored: bytes = b""
  directory: "dict[int, _Entry] | None" = None


def carry_tags(
  source: bytes, encoded: bytes, edits: Edits, lost: set[str]
) -> bytes:
  """Gives an encoded TIFF the tags of its source.

  Args:
    source: the source's file.
    encoded: the new file, little-endian, with the tags of its pixels.
    edits: what is done to the metadata.
    lost: gets the names of what has to go.
  """
  tags = _read(source, lost)
  if _SUB_IFDS in tags:
    lost.add("second picture")
  gone = _STORAGE | (_GEOGRAPHY if edits.strip_location else set())
  tags = {tag: entry for tag, entry in tags.items() if tag not in gone}
  if edits.cloaked:
    tags = _without_pictures(tags, lost)
  tags = {tag: e for tag, e in tags.items() if e.value or e.directory}
  # Packets are cleaned by themselves, so that they may change their sizes.
  packets = {}
  for tag, clean in (
    (_XMP, xmp.clean_xmp),
    (_PHOTOSHOP, photoshop.clean_photoshop),
  ):
    if entry := tags.pop(tag, None):
      value = clean(entry.value, edits, lost)
      if value:
        packets[tag] = _Entry(kind=1, value=value)
  # All that is known of EXIF holds for the other tags.
  packed = b"II*\x00" + struct.pack("<I", 8) + _pack(tags, offset=8)
  cleaned = metadata.clean_exif(packed, edits, lost) if tags else b""
  carried = (_read(cleaned, lost) if cleaned else {}) | packets
  own = _read_first(encoded)
  for tag in own.keys() & carried.keys():
    del own[tag]
  out = bytearray(encoded) + bytes(len(encoded) % 2)
  struct.pack_into("<I", out, 4, len(out))
  return bytes(out) + _pack(carried, offset=len(out), ready=own)


def predictor(source: bytes) -> int | None:
  """The predictor of a file's compression; None where it names none."""
  entry = _read(source, set()).get(PREDICTOR)
  if entry is None or len(entry.value) < 2:
    return None
  return int.from_bytes(entry.value, "little")


def _read(data: bytes, lost: set[str]) -> dict[int, _Entry]:
  """The tags of the first directory, and of those that it links to.

  Raises:
    ValueError: the file is damaged.
  """
  order = {b"II": "<", b"MM": ">"}.get(data[:2])
  if order is None:
    raise ValueError("not a TIFF file")
  try:
    (version,) = struct.unpack_from(order + "H", data, 2)
    big = version == _BIG
    at = struct.unpack_from(
      order + ("Q" if big else "I"), data, 8 if big else 4
    )
    return _read_directory(data, order, big, at[0], lost)
  except struct.error as error:
    raise ValueError("a directory beyond the end") from error


def _read_directory(
  data: bytes,
  order: str,
  big: bool,
  offset: int,
  lost: set[str],
  depth: int = 2,
) -> dict[int, _Entry]:
  head, layout, room = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
  (count,) = struct.unpack_from(order + head, data, offset)
  start = offset + struct.calcsize(order + head)
  width = struct.calcsize(order + layout) + room
  tags = {}
  for entry in range(start, start + width * count, width):
    if entry + width > len(data):
      lost.add("EXIF directory")
      break
    tag, kind, number = struct.unpack_from(order + layout, data, entry)
    at = entry + width - room
    (pointer,) = struct.unpack_from(order + ("Q" if big else "I"), data, at)
    if tag in _LINKS:
      try:
        if depth and (
          directory := _read_directory(
            data, order, big, pointer, lost, depth - 1
          )
        ):
          tags[tag] = _Entry(kind=4, directory=directory)
      except (struct.error, OverflowError):
        lost.add("EXIF directory")
      continue
    size = _SIZES.get(kind, 0) * number
    at = at if size <= room else pointer
    if size and at + size <= len(data):
      value = stored = data[at : at + size]
      if order == ">":
        value = _swapped(stored, _PARTS[kind])
      tags[tag] = _Entry(kind=kind, value=value, stored=stored)
    elif tag not in _STORAGE:
      lost.add(f"TIFF tag {tag}")
  return tags


def _without_pictures(
  tags: dict[int, _Entry], lost: set[str]
) -> dict[int, _Entry]:
  """Leaves out what was a picture in the source's order of bytes."""
  kept = {}
  for tag, entry in tags.items():
    if entry.directory is not None:
      directory = _without_pictures(entry.directory, lost)
      kept[tag] = dataclasses.replace(entry, directory=directory)
    elif entry.stored == entry.value or not pictures.holds(entry.stored):
      kept[tag] = entry
    else:
      lost.add("preview")
  return kept


def _swapped(value: bytes, part: int) -> bytes:
  """Numbers of `part` bytes in the other byte order."""
  return b"".join(value[i : i + part][::-1] for i in range(0, len(value), part))


def _read_first(encoded: bytes) -> dict[int, bytes]:
  """The entries of a new file, as they stand."""
  (first,) = struct.unpack_from("<I", encoded, 4)
  (count,) = struct.unpack_from("<H", encoded, first)
  entries = [encoded[first + 2 + 12 * i :][:12] for i in range(count)]
  return {int.from_bytes(entry[:2], "little"): entry for entry in entries}


def _pack(
  tags: dict[int, _Entry], *, offset: int, ready: dict[int, bytes] | None = None
) -> bytes:
  """A directory that begins at an offset, with its values behind it.

  Args:
    tags: what is packed.
    offset: where the directory will be, an even number.
    ready: entries whose values are elsewhere.
  """
  entries = dict(ready or {})
  end = offset + 2 + 12 * (len(tags) + len(entries)) + 4
  values = b""
  for tag, entry in sorted(tags.items()):
    if entry.directory is not None:
      value, number = _pack(entry.directory, offset=end + len(values)), 1
    else:
      value, number = entry.value, len(entry.value) // _SIZES[entry.kind]
    if entry.directory is None and len(value) <= 4:
      place = value.ljust(4, b"\x00")
    else:
      place = struct.pack("<I", end + len(values))
      values += value + bytes(len(value) % 2)
    entries[tag] = struct.pack("<HHI", tag, entry.kind, number) + place
  listed = b"".join(entry for _, entry in sorted(entries.items()))
  return struct.pack("<H", len(entries)) + listed + bytes(4) + values
