"""Recognises files that cannot be cloaked by their content.

A file's name says nothing here. What Pillow would make of some of these is
worse than a refusal: of a camera's raw file it opens the preview.
"""

import dataclasses
import re
import struct
from collections.abc import Iterator

_TIFF = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
_RAW = (
  # Where its mark is, the mark, and what such files are called.
  (0, b"FUJIFILMCCD-RAW", "RAF"),
  (0, b"IIRO", "ORF"),
  (0, b"IIRS", "ORF"),
  (0, b"MMOR", "ORF"),
  (0, b"IIU\0", "RW2"),
  (0, b"\0MRM", "MRW"),
  (0, b"FOVb", "X3F"),
  (0, b"NOKIARAW", "NRW"),
  (4, b"ftypcrx ", "CR3"),
  (6, b"HEAPCCDR", "CRW"),
  (6, b"HEAPJPGM", "CRW"),
  (0, b"II*\0\x10\0\0\0CR\x02", "CR2"),
)
# Phase One's, in either order of bytes; half of it could be ordinary pixels.
_IIQ = re.compile(rb"(II\*\0|MM\0\*).{4}(IIII.waR|MMMMRaw.)", re.S)
_PICTURES = (
  (0, b"\xff\x0a", "JPEG XL"),
  (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
  (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
  (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
  (0, b"8BPS", "Photoshop (PSD)"),
  (0, b"gimp xcf ", "GIMP (XCF)"),
  (0, b"v/1\x01", "OpenEXR"),
  (0, b"#?RADIANCE", "Radiance (HDR)"),
  (0, b"BPG\xfb", "BPG"),
  (0, b"FLIF", "FLIF"),
  (0, b"II\xbc\x01", "JPEG XR"),
  (128, b"DICM", "DICOM"),
)
_OTHERS = (
  (0, b"%PDF-", "a PDF document"),
  (0, b"%!PS", "a PostScript document"),
  (0, b"PK\x03\x04", "a ZIP archive, or a document in one"),
  (0, b"PK\x05\x06", "an empty ZIP archive"),
  (0, b"Rar!", "a RAR archive"),
  (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
  (0, b"\x1f\x8b", "a file compressed with gzip"),
  (0, b"BZh", "a file compressed with bzip2"),
  (0, b"\xfd7zXZ\0", "a file compressed with xz"),
  (257, b"ustar", "a tar archive"),
  (8, b"AVI ", "a video (AVI)"),
  (8, b"WAVE", "a sound file (WAV)"),
  (0, b"\x1aE\xdf\xa3", "a video (Matroska or WebM)"),
  (0, b"\0\0\x01\xba", "a video (MPEG)"),
  (0, b"\0\0\x01\xb3", "a video (MPEG)"),
  (0, b"FLV\x01", "a video (FLV)"),
  (0, b"0&\xb2u\x8ef\xcf\x11", "a video (WMV)"),
  (0, b"OggS", "a sound or video file (Ogg)"),
  (0, b"ID3", "a sound file (MP3)"),
  (0, b"fLaC", "a sound file (FLAC)"),
  (4, b"ftyp", "a video (MP4, MOV or a relative)"),
  (4, b"moov", "a video (MOV)"),
  (4, b"mdat", "a video (MOV)"),
  (4, b"wide", "a video (MOV)"),
)
_PICTURE_BRANDS = (
  *(b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"),
  *(b"mif1", b"mif2", b"msf1", b"miaf"),
)

_DNG_VERSION = 50706
_COMPRESSION, _PHOTOMETRIC, _MAKE, _SUB_IFDS = 259, 262, 271, 330
_WIDTH, _HEIGHT = 256, 257
# The samples of a sensor: one colour each, or linear.
_RAW_PHOTOMETRICS = (32803, 34892)
_RAW_COMPRESSIONS = (
  *(32767, 32769, 32770),  # Sony, Epson, Samsung
  *(34713, 65000, 65535),  # Nikon, Kodak, Pentax
)
_BY_MAKE = {
  b"NIKON": "NEF",
  b"SONY": "ARW",
  b"PENTAX": "PEF",
  b"RICOH": "PEF",
  b"SAMSUNG": "SRW",
  b"EPSON": "ERF",
  b"HASSELBLAD": "3FR",
  b"KODAK": "DCR",
  b"EASTMAN KODAK": "DCR",
  b"LEAF": "MOS",
  b"MAMIYA": "MEF",
  b"PANASONIC": "RAW",
}
_MOST_DIRECTORIES = 64
_SIZES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), 1))
_SIZES |= {16: 8, 17: 8, 18: 8}
_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
  """What a file is that is not one of the photos that can be cloaked.

  Attributes:
    reason: why it is left out, in words.
    picture: whether it holds a picture, as a photographer would say.
    raw: whether it is a camera's raw file, or a like one: a decoder would take
      its preview for the picture.
  """

  reason: str
  picture: bool = False
  raw: bool = False


def identify(data: bytes) -> Kind | None:
  """What a file is.

  Args:
    data: its bytes.

  Returns:
    None for what may be a photo: the decoder will say.
  """
  if (kind := _raw(data)) is not None:
    return kind
  for place, mark, name in _PICTURES:
    if data.startswith(mark, place):
      return Kind(reason=f"{name} is not supported", picture=True)
  if data.startswith(b"ftyp", 4) and _brands(data) & {*_PICTURE_BRANDS}:
    return None
  for place, mark, name in _OTHERS:
    if data.startswith(mark, place):
      return Kind(reason=f"not a photo: {name}")
  start = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
  if start.startswith((b"<?xml", b"<!", b"<svg")) and b"<svg" in start:
    return Kind(reason="not a photo: a drawing (SVG)")
  return None


def _brands(data: bytes) -> set[bytes]:
  """The brands that a file of ISO's base format names."""
  (size,) = struct.unpack_from(">I", data)
  box = data[8 : min(size, 256)]
  return {box[i : i + 4] for i in range(0, len(box) - 3, 4) if i != 4}


def _raw(data: bytes) -> Kind | None:
  """Whether a file is a camera's raw file, or its like."""
  for place, mark, name in _RAW:
    if data.startswith(mark, place):
      return _raw_kind(name)
  if _IIQ.match(data):
    return _raw_kind("IIQ")
  order = _TIFF.get(data[:4])
  return _raw_tiff(data, order) if order else None


def _raw_kind(name: str) -> Kind:
  return Kind(
    reason=f"raw files of cameras ({name}) are not supported: cloak the JPEG"
    " or TIFF that is made of it",
    picture=True,
    raw=True,
  )


def _raw_tiff(data: bytes, order: str) -> Kind | None:
  """The same of a TIFF file, by the pictures that its directories name.

  What decides is a picture of a sensor's samples, or one that is larger than
  the first, which is all that a reader of TIFF files would show.
  """
  directories = [*_directories(data, order)]
  if not directories:
    return None
  _, first = directories[0]
  if _DNG_VERSION in first:
    return _raw_kind("DNG")
  for _, directory in directories:
    if (
      _one(directory, _PHOTOMETRIC) in _RAW_PHOTOMETRICS
      or _one(directory, _COMPRESSION) in _RAW_COMPRESSIONS
    ):
      make = bytes(v & 255 for v in first.get(_MAKE, ())).strip(b"\0 ").upper()
      names = (n for maker, n in _BY_MAKE.items() if make.startswith(maker))
      return _raw_kind(next(names, "with a sensor's samples"))
  if any(_pixels(d) > _pixels(first) for is_sub, d in directories if is_sub):
    return Kind(
      reason="the first picture of this TIFF is a preview of a larger one,"
      " which cannot be read",
      picture=True,
      raw=True,
    )
  return None


def _one(directory: dict[int, list[int]], tag: int) -> int:
  """The first value of a tag, or 0."""
  return next(iter(directory.get(tag, ())), 0)


def _pixels(directory: dict[int, list[int]]) -> int:
  return _one(directory, _WIDTH) * _one(directory, _HEIGHT)


def _directories(
  data: bytes, order: str
) -> Iterator[tuple[bool, dict[int, list[int]]]]:
  """The directories of a TIFF file: whether one belongs to another, its tags.

  A damaged one ends them.
  """
  big = data[2:4] in (b"+\0", b"\0+")
  count_code, offset_code = ("Q", "Q") if big else ("H", "I")
  head, entry_size = (8, 20) if big else (2, 12)
  link = struct.calcsize(offset_code)
  seen: set[int] = set()
  try:
    (first,) = struct.unpack_from(order + offset_code, data, 8 if big else 4)
    waiting = [(False, first)]
    while waiting and len(seen) < _MOST_DIRECTORIES:
      is_sub, place = waiting.pop(0)
      if not place or place in seen:
        continue
      seen.add(place)
      (count,) = struct.unpack_from(order + count_code, data, place)
      start = place + head
      count = min(count, (len(data) - start) // entry_size)
      tags = {}
      for at in range(start, start + entry_size * count, entry_size):
        tag, kind = struct.unpack_from(order + "HH", data, at)
        tags[tag] = _values(data, order, at, kind, offset_code)
      yield is_sub, tags
      waiting += [(True, sub) for sub in tags.get(_SUB_IFDS, [])]
      end = start + entry_size * count
      if not is_sub and end + link <= len(data):
        waiting.append(
          (False, *struct.unpack_from(order + offset_code, data, end))
        )
  except (OverflowError, struct.error):
    return


def _values(
  data: bytes, order: str, at: int, kind: int, offset_code: str
) -> list[int]:
  """The first values of an entry, whole numbers or bytes."""
  room = struct.calcsize(offset_code)
  (count,) = struct.unpack_from(order + offset_code, data, at + 4)
  place = at + 4 + room
  count = min(count, _MOST_DIRECTORIES)
  if count * _SIZES.get(kind, 1) > room:
    (place,) = struct.unpack_from(order + offset_code, data, place)
  code = _CODES.get(kind, "B")
  count = max(0, min(count, (len(data) - place) // struct.calcsize(code)))
  return list(struct.unpack_from(f"{order}{count}{code}", data, place))
