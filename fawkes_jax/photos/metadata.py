"""Edits of EXIF that leave every other byte where it was.

EXIF is a TIFF structure full of offsets, some of them inside makers' notes
that nobody documents. So it is edited in place: values are overwritten and
entries removed, nothing moves. Previews, wherever `pictures` finds them, show
the face without its cloak, so a cloaked photo loses them.
"""

import dataclasses
import struct
from collections.abc import Iterator

from fawkes_jax.photos import icc, iptc, pictures, xmp
from fawkes_jax.photos.edits import Edits, is_located

EXIF_PREFIX = b"Exif\x00\x00"
_ORIENTATION = 0x0112
_SIZES = (0x0100, 0x0101), (0xA002, 0xA003)
_SUBJECT_AREA, _SUBJECT_LOCATION = 0x9214, 0xA214
_XMP, _IPTC, _PHOTOSHOP, _ICC = 0x02BC, 0x83BB, 0x8649, 0x8773
_EXIF_IFD, _GPS_IFD, _INTEROP_IFD, _SUB_IFDS = 0x8769, 0x8825, 0xA005, 0x014A
_LINKS = (_EXIF_IFD, _GPS_IFD, _INTEROP_IFD, _SUB_IFDS)
_MAKER_NOTE = 0x927C
# Where texts and settings of any kind are: descriptions, comments, maker notes.
_NOTES = {0x010E, 0x9286, _MAKER_NOTE, *range(0x9C9B, 0x9CA0)}
# Where a directory has its pixels: strips, tiles, a JPEG; and how long.
_PIXELS = (0x0111, 0x0117), (0x0144, 0x0145), (0x0201, 0x0202)
# Keywords, which many programs put names among, as Windows writes them.
_KEYWORDS = 0x9C9E
# Bytes of a value by its type number, 1 to 13.
_TYPE_SIZES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4), 1))
_INLINE = 4
_MOST_DIRECTORIES = 64
_HEADER = 8


def clean_exif(exif: bytes, edits: Edits, lost: set[str]) -> bytes:
  r"""The EXIF that a result carries.

  A structure that cannot be read is kept as it is, unless it could then give
  away what has to go; then it is dropped.

  Args:
    exif: a TIFF structure, with or without the prefix "Exif\0\0".
    edits: what is done.
    lost: gets the names of what has to go.

  Returns:
    As many bytes, with the prefix if it was there; empty when dropped.
  """
  prefix = EXIF_PREFIX if exif.startswith(EXIF_PREFIX) else b""
  body = exif[len(prefix) :]
  try:
    cleaned = _clean(body, edits, lost)
  except (struct.error, IndexError, ValueError):
    sensitive = edits.strip_location or edits.strip_names
    keep = not sensitive and not (edits.cloaked and pictures.holds(body))
    cleaned = body if keep else None
  if cleaned is None:
    lost.add("EXIF")
    return b""
  return prefix + cleaned


def _clean(body: bytes, edits: Edits, lost: set[str]) -> bytes | None:
  """The edited structure; None where a picture is still in it."""
  tiff = _Tiff(body)
  tiff.follow_links(lost)
  if edits.how is not None:
    tiff.turn(edits)
  if edits.cloaked:
    tiff.drop_previews(lost)
  tiff.clean_values(edits, lost)
  if edits.strip_location:
    tiff.drop_location()
  # Behind the header, which begins many a file of pictures.
  if edits.cloaked and pictures.holds(
    bytes(tiff.data[_HEADER:]), samples=False
  ):
    return None
  return bytes(tiff.data)


@dataclasses.dataclass(kw_only=True)
class _Directory:
  """A directory of tags.

  Attributes:
    offset: where it begins.
    link: where its offset is written.
    owner: the directory and the tag that have the link; None for the first.
    chained: whether it follows another one, as previews do.
  """

  offset: int
  link: int
  owner: tuple["_Directory", int] | None = None
  chained: bool = False


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
    first = _Directory(offset=self._read("I", 4), link=4)
    if not self._is_directory(first.offset):
      raise ValueError("no first directory")
    self._directories = [first]

  def follow_links(self, lost: set[str]) -> None:
    """Finds all directories; links to what is none are removed."""
    for directory in self._directories:  # It grows.
      for entry in reversed(list(self._entries(directory))):
        tag = self._read("H", entry)
        if tag not in _LINKS:
          continue
        count = max(1, self._read("I", entry + 4)) if tag == _SUB_IFDS else 1
        count = min(count, _MOST_DIRECTORIES)
        at = entry + 8 if count == 1 else self._read("I", entry + 8)
        owner = directory, tag
        found = [self._add(at + 4 * i, owner=owner) for i in range(count)]
        if not any(found):
          self._remove(directory, entry)
          lost.add("EXIF directory")
      end = self._table(directory).stop
      if (
        (directory.owner is None)
        and end + 4 <= len(self.data)
        and self._read("I", end)
        and not self._add(end, chained=True)
      ):
        self._unlink(end)
        lost.add("EXIF directory")

  def _unlink(self, link: int) -> None:
    """Writes that no directory follows; the bytes may have other uses."""
    tables = [self._table(d) for d in self._directories]
    if not any(t.start < link + 4 and link < t.stop for t in tables):
      self.data[link : link + 4] = bytes(4)

  def _add(
    self,
    link: int,
    *,
    owner: tuple[_Directory, int] | None = None,
    chained: bool = False,
  ) -> bool:
    if link + 4 > len(self.data):
      return False
    offset = self._read("I", link)
    known = any(offset == d.offset for d in self._directories)
    if not known and self._is_directory(offset):
      self._directories.append(
        _Directory(offset=offset, link=link, owner=owner, chained=chained)
      )
      return True
    return False

  def _is_directory(self, offset: int) -> bool:
    if offset < _HEADER or offset + 2 > len(self.data):
      return False
    count = self._read("H", offset)
    entries = range(offset + 2, offset + 2 + 12 * count, 12)
    if not count or entries.stop > len(self.data):
      return False
    sound = sum(self._is_sound(entry) for entry in entries)
    return 2 * sound > count

  def _is_sound(self, entry: int) -> bool:
    kind, count = self._read("H", entry + 2), self._read("I", entry + 4)
    size = _TYPE_SIZES.get(kind, 0) * count
    start = entry + 8 if size <= _INLINE else self._read("I", entry + 8)
    return kind in _TYPE_SIZES and start + size <= len(self.data)

  def turn(self, edits: Edits) -> None:
    """Makes the orientation 1, and turns sizes and places."""
    for directory in self._directories:
      tags = {self._read("H", e): e for e in self._entries(directory)}
      if not directory.chained and _ORIENTATION in tags:
        entry = tags[_ORIENTATION]
        struct.pack_into(self._order + "HI", self.data, entry + 2, 3, 1)
        struct.pack_into(self._order + "HH", self.data, entry + 8, 1, 0)
      for width, height in _SIZES:
        if edits.transposes and width in tags and height in tags:
          one = slice(tags[width] + 2, tags[width] + 12)
          other = slice(tags[height] + 2, tags[height] + 12)
          self.data[one], self.data[other] = self.data[other], self.data[one]
      for tag in _SUBJECT_AREA, _SUBJECT_LOCATION:
        if tag in tags:
          self._turn_area(tags[tag], edits)

  def _turn_area(self, entry: int, edits: Edits) -> None:
    span = self._value(entry)
    if self._read("H", entry + 2) != 3 or span.stop - span.start < 4:
      return
    kind = f"{self._order}{(span.stop - span.start) // 2}H"
    values = struct.unpack_from(kind, self.data, span.start)
    turned = edits.turn_area(values)
    struct.pack_into(kind, self.data, span.start, *turned)

  def drop_previews(self, lost: set[str]) -> None:
    """Blanks what directories have as their pixels, and previews' own."""
    kept: list[_Directory] = []
    gone: list[_Directory] = []
    for directory in self._directories:
      owner, tag = directory.owner or (None, None)
      is_preview = directory.chained or tag == _SUB_IFDS or owner in gone
      (gone if is_preview else kept).append(directory)
      if self._blank_pixels(directory):
        lost.add("preview")
      elif is_preview:
        lost.add("EXIF directory")
    self._directories = kept
    shared = [self._value(e) for d in kept for e in self._entries(d)]
    for directory in gone:
      for entry in self._entries(directory):
        self._blank(self._value(entry), spare=shared)
      if directory.owner is None:
        self._unlink(directory.link)
      elif directory.owner[0] in kept:
        self._remove_tag(*directory.owner)
      self._blank(self._table(directory), spare=shared)
    for gap in self._gaps():
      if self._blank_pictures(gap):
        lost.add("preview")

  def clean_values(self, edits: Edits, lost: set[str]) -> None:
    """Looks into all values: packets of other kinds, and pictures."""
    for directory in self._directories:
      for entry in reversed(list(self._entries(directory))):
        tag, span = self._read("H", entry), self._value(entry)
        if tag in _LINKS or span.stop - span.start <= _INLINE:
          continue
        if not self._clean_packet(tag, span, edits, lost) or (
          edits.cloaked and not self._clean_value(tag, span, lost)
        ):
          self._blank(span)
          self._remove(directory, entry)

  def _clean_packet(
    self, tag: int, span: slice, edits: Edits, lost: set[str]
  ) -> bool:
    """Edits values of known kinds; whether they stay."""
    before, size = bytes(self.data[span]), span.stop - span.start
    if tag == _XMP:
      after = xmp.clean_xmp(before, edits, lost).ljust(size)
    elif tag == _IPTC:
      after = iptc.clean_iptc(before, edits, lost).ljust(size, b"\x00")
    elif edits.strip_location and tag in _NOTES and is_located(before):
      if tag == _MAKER_NOTE:
        lost.add("maker note")
      return False
    else:
      named = tag in (_KEYWORDS, _PHOTOSHOP) or edits.is_named_in(before)
      return not (edits.strip_names and named)
    if len(after) > size:
      lost.add("XMP")
      return False
    self.data[span] = after
    return bool(after.strip(b" \x00"))

  def _clean_value(self, tag: int, span: slice, lost: set[str]) -> bool:
    """Blanks the pictures in a value; whether it stays."""
    if tag == _MAKER_NOTE:
      found = self._blank_pictures(span)
      stays = any(self.data[span])
      if found:
        lost.add("preview" if stays else "maker note")
      return stays
    look = icc.hides_picture if tag == _ICC else pictures.holds
    found = look(bytes(self.data[span]))
    if found:
      lost.add("preview")
    return not found

  def drop_location(self) -> None:
    """Blanks the GPS directory, and the links to it."""
    for directory in list(self._directories):
      if directory.owner is None or directory.owner[1] != _GPS_IFD:
        continue
      self._directories.remove(directory)
      for entry in self._entries(directory):
        self._blank(self._value(entry))
      self._blank(self._table(directory))
    for directory in self._directories:
      self._remove_tag(directory, _GPS_IFD)

  def _read(self, kind: str, offset: int) -> int:
    return struct.unpack_from(self._order + kind, self.data, offset)[0]

  def _entries(self, directory: _Directory) -> Iterator[int]:
    table = self._table(directory)
    return iter(range(table.start + 2, table.stop, 12))

  def _table(self, directory: _Directory) -> slice:
    """A directory's count and entries; its link follows."""
    count = self._read("H", directory.offset)
    return slice(directory.offset, directory.offset + 2 + 12 * count)

  def _value(self, entry: int) -> slice:
    size = _TYPE_SIZES.get(self._read("H", entry + 2), 1)
    size *= self._read("I", entry + 4)
    start = entry + 8 if size <= _INLINE else self._read("I", entry + 8)
    start = min(start, len(self.data))
    return slice(start, min(start + size, len(self.data)))

  def _numbers(self, entry: int) -> list[int]:
    span = self._value(entry)
    kind = {1: "B", 3: "H", 4: "I", 13: "I"}.get(self._read("H", entry + 2))
    if kind is None:
      return []
    step = struct.calcsize(kind)
    ends = range(span.start, span.stop - step + 1, step)
    return [self._read(kind, at) for at in ends]

  def _tables(self) -> list[slice]:
    """What is never blanked: the header and the kept directories."""
    tables = [self._table(directory) for directory in self._directories]
    return [
      slice(0, _HEADER),
      *(slice(t.start, min(t.stop + 4, len(self.data))) for t in tables),
    ]

  def _blank(self, span: slice, *, spare: list[slice] | None = None) -> None:
    kept = [
      (part, bytes(self.data[part])) for part in self._tables() + (spare or [])
    ]
    self.data[span] = bytes(max(span.stop - span.start, 0))
    for part, value in kept:
      self.data[part] = value

  def _blank_pixels(self, directory: _Directory) -> bool:
    """Blanks what a directory calls its pixels, and forgets where they were."""
    tags = {self._read("H", e): e for e in self._entries(directory)}
    spans = []
    for offsets, lengths in _PIXELS:
      if offsets in tags:
        sizes = self._numbers(tags[lengths]) if lengths in tags else []
        for i, start in enumerate(self._numbers(tags[offsets])):
          # Without a length, all that follows may belong to it.
          size = sizes[i] if i < len(sizes) else len(self.data)
          start = min(start, len(self.data))
          spans.append(slice(start, min(start + size, len(self.data))))
    values = [
      self._value(e) for d in self._directories for e in self._entries(d)
    ]
    for span in spans:
      # What claims to be where a directory is says nothing of values, either.
      false = any(
        t.start < span.stop and span.start < t.stop for t in self._tables()
      )
      self._blank(span, spare=values if false else None)
    for pair in _PIXELS:
      for tag in pair:
        self._remove_tag(directory, tag)
    return bool(spans)

  def _gaps(self) -> list[slice]:
    """What no directory names: spans of the structure."""
    used = self._tables() + [
      self._value(e) for d in self._directories for e in self._entries(d)
    ]
    gaps, end = [], 0
    for span in sorted(used, key=lambda s: s.start):
      if span.start > end:
        gaps.append(slice(end, span.start))
      end = max(end, span.stop)
    return [*gaps, slice(end, len(self.data))]

  def _blank_pictures(self, span: slice) -> bool:
    """Blanks the pictures in a span, or all of it where none is whole."""
    block = bytes(self.data[span])
    if not pictures.holds(block):
      return False
    for part in pictures.jpeg_spans(block):
      self._blank(slice(span.start + part.start, span.start + part.stop))
    if pictures.holds(bytes(self.data[span])):
      self._blank(span)
    return True

  def _remove_tag(self, directory: _Directory, tag: int) -> None:
    for entry in reversed(list(self._entries(directory))):
      if self._read("H", entry) == tag:
        self._remove(directory, entry)

  def _remove(self, directory: _Directory, entry: int) -> None:
    """Takes an entry out of its directory; those behind it move up."""
    start, end = directory.offset, self._table(directory).stop + 4
    end = min(end, len(self.data))
    self.data[entry:end] = self.data[entry + 12 : end] + bytes(12)
    count = self._read("H", start) - 1
    struct.pack_into(self._order + "H", self.data, start, count)
    for other in self._directories:
      if entry < other.link < end:
        other.link -= 12
