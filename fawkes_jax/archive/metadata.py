"""Edits of EXIF and XMP that leave every other byte where it was.

EXIF is a TIFF structure full of offsets, some of them inside makers' notes
that nobody documents. So it is edited in place: values are overwritten and
entries removed, nothing moves.

Embedded previews (the EXIF thumbnail, XMP thumbnails, makers' preview
pictures) show the face without its cloak, so a cloaked photo loses them.
"""

import re
import struct
from collections.abc import Iterator

JPEG_START = b"\xff\xd8\xff"
EXIF_PREFIX = b"Exif\x00\x00"
_ORIENTATION = 0x0112
_EXIF_IFD = 0x8769
_GPS_IFD = 0x8825
_MAKER_NOTE = 0x927C
_PIXEL_WIDTH = 0xA002
_PIXEL_HEIGHT = 0xA003
_THUMBNAIL_OFFSET = 0x0201
_THUMBNAIL_LENGTH = 0x0202
# Bytes of a value by its type number, 1 to 13.
_TYPE_SIZES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), 1))


def clean_exif(
  exif: bytes,
  *,
  upright: bool = True,
  transposed: bool = False,
  strip_location: bool = False,
) -> bytes:
  r"""The EXIF of a cloaked photo.

  The orientation of an upright one becomes 1, the thumbnail and makers' notes
  that hold a JPEG are blanked, and the rest stays. A structure that cannot be
  read is kept as it is, unless it could then give away what has to go; then it
  is dropped.

  Args:
    exif: a TIFF structure, with or without the prefix "Exif\0\0".
    upright: whether pixels were turned; otherwise the orientation stays.
    transposed: whether width and height changed places.
    strip_location: whether the GPS directory is removed.

  Returns:
    The edited bytes, with the prefix if it was there; empty when dropped.
  """
  prefix = EXIF_PREFIX if exif.startswith(EXIF_PREFIX) else b""
  try:
    tiff = _Tiff(exif[len(prefix) :])
    if upright:
      tiff.set_orientation()
    tiff.drop_previews()
    if transposed:
      tiff.swap_dimensions()
    if strip_location:
      tiff.drop_location()
  except (struct.error, IndexError, ValueError):
    return b"" if strip_location or JPEG_START in exif else exif
  return prefix + bytes(tiff.data)


def strip_exif_location(exif: bytes) -> bytes:
  """The EXIF without its GPS directory; empty when it cannot be read."""
  prefix = EXIF_PREFIX if exif.startswith(EXIF_PREFIX) else b""
  try:
    tiff = _Tiff(exif[len(prefix) :])
    tiff.drop_location()
  except (struct.error, IndexError, ValueError):
    return b""
  return prefix + bytes(tiff.data)


def clean_xmp(
  xmp: bytes, *, upright: bool = True, strip_location: bool = False
) -> bytes:
  """The XMP of a cloaked photo; empty when it has to go.

  The orientation of an upright one becomes 1 and thumbnails are removed. With
  `strip_location` a packet that carries GPS is dropped as a whole.
  """
  if strip_location and has_xmp_location(xmp):
    return b""
  if upright:
    xmp = re.sub(rb'(tiff:Orientation\s*=\s*["\'])[0-9]', rb"\g<1>1", xmp)
    xmp = re.sub(rb"(<tiff:Orientation>)[0-9]", rb"\g<1>1", xmp)
  pattern = rb"<(xmp|xap):Thumbnails\b.*?</\1:Thumbnails\s*>"
  return re.sub(pattern, b"", xmp, flags=re.DOTALL)


def has_xmp_location(xmp: bytes) -> bool:
  """Whether an XMP packet carries GPS coordinates."""
  return b"GPS" in xmp


class _Tiff:
  """A TIFF structure that is edited in place.

  Raises struct.error, IndexError or ValueError where it is damaged.
  """

  def __init__(self, data: bytes):
    self.data = bytearray(data)
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
      raise ValueError("not a TIFF structure")
    self._order = order
    self._first = self._read("I", 4)

  def set_orientation(self) -> None:
    for entry in self._entries(self._first):
      if self._read("H", entry) == _ORIENTATION:
        struct.pack_into(self._order + "HI", self.data, entry + 2, 3, 1)
        struct.pack_into(self._order + "HH", self.data, entry + 8, 1, 0)

  def swap_dimensions(self) -> None:
    tags = {}
    for ifd in self._sub_ifds(_EXIF_IFD):
      tags.update({self._read("H", e): e for e in self._entries(ifd)})
    if _PIXEL_WIDTH in tags and _PIXEL_HEIGHT in tags:
      one = slice(tags[_PIXEL_WIDTH] + 2, tags[_PIXEL_WIDTH] + 12)
      other = slice(tags[_PIXEL_HEIGHT] + 2, tags[_PIXEL_HEIGHT] + 12)
      self.data[one], self.data[other] = self.data[other], self.data[one]

  def drop_previews(self) -> None:
    link = self._first + 2 + 12 * self._read("H", self._first)
    thumbnail = self._read("I", link) if link + 4 <= len(self.data) else 0
    if thumbnail:
      self._blank_thumbnail(thumbnail)
      self._blank_ifd(thumbnail)
      struct.pack_into(self._order + "I", self.data, link, 0)
    for ifd in self._sub_ifds(_EXIF_IFD):
      for entry in self._entries(ifd):
        value = self._value(entry)
        if (
          self._read("H", entry) == _MAKER_NOTE
          and JPEG_START in self.data[value]
        ):
          self._blank(value)
    if JPEG_START in self.data:
      raise ValueError("a preview in an unknown place")

  def drop_location(self) -> None:
    for ifd in self._sub_ifds(_GPS_IFD):
      self._blank_ifd(ifd)
    self._remove_entry(self._first, _GPS_IFD)

  def _read(self, kind: str, offset: int) -> int:
    return struct.unpack_from(self._order + kind, self.data, offset)[0]

  def _entries(self, ifd: int) -> Iterator[int]:
    count = self._read("H", ifd)
    if ifd + 2 + 12 * count > len(self.data):
      raise ValueError("a directory beyond the end")
    return iter(range(ifd + 2, ifd + 2 + 12 * count, 12))

  def _sub_ifds(self, tag: int) -> list[int]:
    entries = self._entries(self._first)
    return [
      self._read("I", e + 8) for e in entries if self._read("H", e) == tag
    ]

  def _value(self, entry: int) -> slice:
    size = _TYPE_SIZES.get(self._read("H", entry + 2), 1)
    size *= self._read("I", entry + 4)
    start = entry + 8 if size <= 4 else self._read("I", entry + 8)
    return slice(start, min(start + size, len(self.data)))

  def _blank(self, span: slice) -> None:
    self.data[span] = bytes(max(span.stop - span.start, 0))

  def _blank_thumbnail(self, ifd: int) -> None:
    tags = {self._read("H", e): e for e in self._entries(ifd)}
    if _THUMBNAIL_OFFSET in tags and _THUMBNAIL_LENGTH in tags:
      start = self._read("I", tags[_THUMBNAIL_OFFSET] + 8)
      stop = start + self._read("I", tags[_THUMBNAIL_LENGTH] + 8)
      self._blank(slice(start, min(stop, len(self.data))))

  def _blank_ifd(self, ifd: int) -> None:
    entries = list(self._entries(ifd))
    for entry in entries:
      self._blank(self._value(entry))
    self._blank(slice(ifd, ifd + 2 + 12 * len(entries)))

  def _remove_entry(self, ifd: int, tag: int) -> None:
    entries = list(self._entries(ifd))
    end = min(ifd + 2 + 12 * len(entries) + 4, len(self.data))
    for entry in reversed(entries):
      if self._read("H", entry) == tag:
        kept = self.data[entry + 12 : end]
        self.data[entry:end] = kept + bytes(12)
        struct.pack_into(
          self._order + "H", self.data, ifd, self._read("H", ifd) - 1
        )
