"""The marker segments of a JPEG file (ITU-T T.81, annex B)."""

import dataclasses
import itertools
import re
import struct

import numpy as np

from fawkes_jax.photos import icc, metadata, photoshop, pictures, xmp
from fawkes_jax.photos.edits import Edits, is_located

_APP0, _APP1, _APP2, _APP13, _APP14, _COM = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE
_DQT, _SOS, _EOI = 0xDB, 0xDA, 0xD9
_BARE = {0x01, *range(0xD0, 0xD9)}
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\x00"
_PHOTOSHOP = b"Photoshop 3.0\x00"
_JFIF, _EXIF, _ICC = b"JFIF\x00", b"Exif\x00\x00", b"ICC_PROFILE\x00"
_LARGEST = 0xFFFF - 2
# What tells a second picture that is a gain map: Adobe's, ISO's and Apple's.
_GAIN_MAPS = b"hdrgm", b"urn:iso:std:iso:ts:21496", b"HDRGainMap"
_CLIP = re.compile(rb"ftyp|MotionPhoto_Data|moov")
_HEAD = 1 << 16
_TIFF = re.compile(rb"II\*\x00|MM\x00\*")
_HEAD_OF_EXIF = 64


@dataclasses.dataclass(frozen=True)
class Segment:
  """One marker segment: its marker's second byte and its payload."""

  marker: int
  payload: bytes

  @property
  def is_metadata(self) -> bool:
    """Whether it is an application segment or a comment."""
    return 0xE0 <= self.marker <= 0xEF or self.marker == _COM

  def to_bytes(self) -> bytes:
    """The segment as it stands in a file."""
    length = struct.pack(">H", len(self.payload) + 2)
    return bytes([0xFF, self.marker]) + length + self.payload


@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
  """What stands before the first scan.

  Attributes:
    segments: all segments before the first scan, in order.
    scan_offset: where the first scan's marker is.
    frame: the frame's marker, 0xC0 baseline, 0xC1 extended, 0xC2 progressive.
    precision: bits per sample.
    height: in pixels, as stored.
    width: in pixels, as stored.
    ids: the component identifiers.
    sampling: (vertical, horizontal) sampling factors of the components.
    table_numbers: the quantisation table of each component.
    jfif: whether there is a JFIF segment.
    adobe_transform: the Adobe segment's colour transform; None without one.
  """

  segments: tuple[Segment, ...]
  scan_offset: int
  frame: int
  precision: int
  height: int
  width: int
  ids: tuple[int, ...]
  sampling: tuple[tuple[int, int], ...]
  table_numbers: tuple[int, ...]
  jfif: bool
  adobe_transform: int | None


def parse(data: bytes) -> Header:
  """Reads the header of a JPEG file.

  Raises:
    ValueError: it has none, or it is damaged.
  """
  segments, offset = _read_segments(data)
  frames = [s for s in segments if s.marker in _FRAMES]
  if len(frames) != 1 or len(frames[0].payload) < 6:
    raise ValueError("not exactly one frame before the first scan")
  payload = frames[0].payload
  precision, height, width, count = struct.unpack_from(">BHHB", payload)
  components = [payload[6 + 3 * i : 9 + 3 * i] for i in range(count)]
  if any(len(c) < 3 for c in components):
    raise ValueError("a frame header that ends early")
  adobe = [
    s.payload[11]
    for s in segments
    if s.marker == _APP14
    and s.payload.startswith(b"Adobe")
    and len(s.payload) >= 12
  ]
  return Header(
    segments=segments,
    scan_offset=offset,
    frame=frames[0].marker,
    precision=precision,
    height=height,
    width=width,
    ids=tuple(c[0] for c in components),
    sampling=tuple((c[1] & 15, c[1] >> 4) for c in components),
    table_numbers=tuple(c[2] for c in components),
    jfif=any(
      s.marker == _APP0 and s.payload.startswith(b"JFIF\x00") for s in segments
    ),
    adobe_transform=adobe[-1] if adobe else None,
  )


def read(data: bytes) -> tuple[Segment, ...]:
  """The segments before the first scan.

  Raises:
    ValueError: there is no scan, or one ends early.
  """
  return _read_segments(data)[0]


def _read_segments(data: bytes) -> tuple[tuple[Segment, ...], int]:
  segments: list[Segment] = []
  position = 2
  while True:
    position = data.index(b"\xff", position)
    start = position
    while data[position : position + 1] == b"\xff":
      position += 1
    marker = data[position : position + 1]
    if not marker or marker[0] == _EOI:
      raise ValueError("no scan")
    position += 1
    if marker[0] == 0 or marker[0] in _BARE:
      continue
    if marker[0] == _SOS:
      return tuple(segments), start
    if position + 2 > len(data):
      raise ValueError("a segment that ends early")
    (length,) = struct.unpack_from(">H", data, position)
    segments.append(Segment(marker[0], data[position + 2 : position + length]))
    position += max(length, 2)


def clean_metadata(
  header: Header, edits: Edits, lost: set[str]
) -> list[Segment]:
  """The source's metadata as a result may carry it.

  EXIF, XMP, ICC profile, comments, the JFIF density and everything else are
  kept, but for what shows, or may show, the face without its cloak.

  Args:
    header: the header of the source.
    edits: what is done.
    lost: gets the names of what has to go.
  """
  cleaned = _clean_segments(header.segments, edits, lost)
  return [s for s in cleaned if s is not None and s.is_metadata]


def _clean_segments(
  segments: tuple[Segment, ...], edits: Edits, lost: set[str]
) -> list[Segment | None]:
  """Each segment as it is kept; None for those that go."""
  kept: list[Segment | None] = list(segments)
  groups: dict[tuple, list[int]] = {}
  for i, segment in enumerate(segments):
    if segment.is_metadata:
      groups.setdefault(_group(segment, i, groups), []).append(i)
  # XMP that goes on elsewhere is referred to by the first packet.
  for key in sorted(groups, key=lambda key: key[0] != _EXTENDED_XMP):
    payloads = [segments[i].payload for i in groups[key]]
    clean = _CLEANERS.get(key[0], _clean_others)
    payloads = clean(key, payloads, edits, lost)
    if key[0] == _EXTENDED_XMP and not payloads:
      edits = dataclasses.replace(edits, extended=False)
    for n, i in enumerate(groups[key]):
      gone = n >= len(payloads) or not payloads[n]
      kept[i] = None if gone else Segment(segments[i].marker, payloads[n])
  return kept


def _group(segment: Segment, number: int, groups: dict) -> tuple:
  """What a segment may continue: its kind first, then what tells them apart."""
  marker, payload = segment.marker, segment.payload
  if marker == _APP1 and payload.startswith(_EXIF):
    begins = payload[6:10] in (b"II*\x00", b"MM\x00*")
    last = [key for key in groups if key[0] == _EXIF]
    return (_EXIF, number) if begins or not last else last[-1]
  if marker == _APP1 and payload.startswith(_XMP):
    return _XMP, number
  if marker == _APP1 and payload.startswith(_EXTENDED_XMP):
    start = len(_EXTENDED_XMP)
    return _EXTENDED_XMP, payload[start : start + 32]
  for name, of in ((_JFIF, _APP0), (_ICC, _APP2), (_PHOTOSHOP, _APP13)):
    if marker == of and payload.startswith(name):
      return name, number if name == _JFIF else 0
  identifier = b"" if marker == _COM else payload[:32].partition(b"\x00")[0]
  return marker, identifier


def _clean_jfif(
  key: tuple, payloads: list[bytes], edits: Edits, lost: set[str]
) -> list[bytes]:
  if not edits.cloaked or len(payloads[0]) <= 14:
    return payloads
  lost.add("preview")
  return [payloads[0][:12] + b"\x00\x00"]


def _clean_exif(
  key: tuple, payloads: list[bytes], edits: Edits, lost: set[str]
) -> list[bytes]:
  bodies = [payload[len(_EXIF) :] for payload in payloads]
  whole = metadata.clean_exif(b"".join(bodies), edits, lost)
  ends = list(itertools.accumulate(map(len, bodies)))
  parts = [whole[e - len(b) : e] for b, e in zip(bodies, ends, strict=True)]
  return [_EXIF + part for part in parts if part]


def _clean_xmp(
  key: tuple, payloads: list[bytes], edits: Edits, lost: set[str]
) -> list[bytes]:
  packet = xmp.clean_xmp(payloads[0][len(_XMP) :], edits, lost)
  if len(packet) > _LARGEST - len(_XMP):
    lost.add("XMP")
    packet = b""
  return [_XMP + packet] if packet else []


def _clean_extended_xmp(
  key: tuple, payloads: list[bytes], edits: Edits, lost: set[str]
) -> list[bytes]:
  """Kept whole or not at all: the first packet has its digest."""
  start = len(_EXTENDED_XMP) + 32
  parts = [p[start + 4 : start + 8] + p[start + 8 :] for p in payloads]
  whole = b"".join(part[4:] for part in sorted(parts, key=lambda p: p[:4]))
  if xmp.clean_xmp(whole, edits, set()) == whole:
    return payloads
  lost.add("extended XMP")
  return []


def _clean_icc(
  key: tuple, payloads: list[bytes], edits: Edits, lost: set[str]
) -> list[bytes]:
  start = len(_ICC) + 2
  ordered = sorted(payloads, key=lambda payload: payload[start - 2 : start - 1])
  whole = b"".join(payload[start:] for payload in ordered)
  if not edits.cloaked or not icc.hides_picture(whole):
    return payloads
  lost.add("colour profile")
  return []


def _clean_photoshop(
  key: tuple, payloads: list[bytes], edits: Edits, lost: set[str]
) -> list[bytes]:
  whole = b"".join(payload[len(_PHOTOSHOP) :] for payload in payloads)
  whole = photoshop.clean_photoshop(whole, edits, lost)
  room = _LARGEST - len(_PHOTOSHOP)
  parts = [whole[i : i + room] for i in range(0, len(whole), room)]
  return [_PHOTOSHOP + part for part in parts]


def _clean_others(
  key: tuple, payloads: list[bytes], edits: Edits, lost: set[str]
) -> list[bytes]:
  """Keeps what shows nothing, by itself or with what it continues."""
  marker, identifier = key
  if marker == _APP14 and identifier.startswith(b"Adobe"):
    if edits.cloaked and any(len(payload) > 12 for payload in payloads):
      lost.add("APP14 segment")
      return [payload[:12] for payload in payloads]
    return payloads
  if (edits.strip_names and any(map(edits.is_named_in, payloads))) or (
    edits.strip_location and any(map(is_located, payloads))
  ):
    return []
  if edits.strip_location:
    payloads = [_clean_unusual_exif(p, edits, lost) for p in payloads]
  if not edits.cloaked:
    return payloads
  if identifier == b"MPF" or identifier.startswith(b"urn:iso:std:iso:ts:21496"):
    return []  # What they promise is named where it is.
  same = itertools.takewhile(
    lambda column: len(set(column)) == 1, zip(*payloads, strict=False)
  )
  shared = sum(1 for _ in same)
  blocks = (
    *payloads,
    b"".join(payloads),
    b"".join(payload[shared:] for payload in payloads),
    b"".join(payload[len(identifier) + 1 :] for payload in payloads),
  )
  if identifier not in (b"JFXX", b"FPXR") and not any(
    map(pictures.holds, blocks)
  ):
    return payloads
  names = {_COM: "comment", _APP0: "preview"}
  lost.add(names.get(marker, f"APP{marker - _APP0} segment"))
  return []


def _clean_unusual_exif(payload: bytes, edits: Edits, lost: set[str]) -> bytes:
  """EXIF behind a head that is not the usual one, as some programs write."""
  found = _TIFF.search(payload, 0, _HEAD_OF_EXIF)
  if found is None:
    return payload
  clean = metadata.clean_exif(payload[found.start() :], edits, lost)
  return payload[: found.start()] + clean if clean else b""


_CLEANERS = {
  _JFIF: _clean_jfif,
  _EXIF: _clean_exif,
  _XMP: _clean_xmp,
  _EXTENDED_XMP: _clean_extended_xmp,
  _ICC: _clean_icc,
  _PHOTOSHOP: _clean_photoshop,
}


def name_trailing(data: bytes) -> set[str]:
  """What is behind the first picture, in words."""
  trailing = data[pictures.jpeg_end(data, 0) :]
  found, position = set(), 0
  rest = b""
  for span in pictures.jpeg_spans(trailing):
    head = trailing[span][:_HEAD]
    is_map = any(mark in head for mark in _GAIN_MAPS)
    found.add("gain map" if is_map else "second picture")
    rest += trailing[position : span.start]
    position = span.stop
  rest += trailing[position:]
  if _CLIP.search(rest):
    found.add("motion clip")
  elif rest.strip(b"\x00\xff \r\n"):
    found.add("trailing data")
  return found


def strip(data: bytes, edits: Edits, lost: set[str]) -> bytes:
  """The file with other metadata; its pixels stay as they are.

  Args:
    data: a whole file.
    edits: what is done, but not `cloaked`.
    lost: gets the names of what has to go.

  Raises:
    ValueError: the file is damaged.
  """
  end = pictures.jpeg_end(data, 0)
  trailing = _strip_trailing(data[end:], edits, lost)
  if len(trailing) < len(data[end:].rstrip(b"\x00")):
    edits = dataclasses.replace(edits, alone=True)
  return _strip(data[:end], edits, lost, in_place=bool(trailing)) + trailing


def _strip(
  data: bytes, edits: Edits, lost: set[str], *, in_place: bool
) -> bytes:
  """One picture with other metadata; of the same size if `in_place`.

  Whatever counts bytes from the beginning of the file is right after that.
  """
  header = parse(data)
  parts = [b"\xff\xd8"]
  cleaned = _clean_segments(header.segments, edits, lost)
  for before, after in zip(header.segments, cleaned, strict=True):
    payload = b"" if after is None else after.payload
    if in_place and len(payload) > len(before.payload):
      lost.add("XMP")  # Nothing else grows, where characters are escaped.
      payload = b""
    if in_place:
      padding = b" " if payload.startswith(_XMP) else b"\x00"
      payload = payload.ljust(len(before.payload), padding)
    if after is not None or in_place:
      parts.append(Segment(before.marker, payload).to_bytes())
  stripped = b"".join(parts)
  if in_place:
    # Any number of these may stand before a marker.
    stripped = stripped.ljust(header.scan_offset, b"\xff")
  return stripped + data[header.scan_offset :]


def _strip_trailing(trailing: bytes, edits: Edits, lost: set[str]) -> bytes:
  """Pictures behind the first, at the same places; clips and the rest go."""
  kept = bytearray()
  for span in pictures.jpeg_spans(trailing):
    try:
      picture = _strip(trailing[span], edits, lost, in_place=True)
    except ValueError:
      lost.add("second picture")
      continue
    kept += bytes(span.start - len(kept)) + picture
  rest = bytearray(trailing)
  for span in pictures.jpeg_spans(trailing):
    rest[span] = bytes(span.stop - span.start)
  if _CLIP.search(rest):
    lost.add("motion clip")
  elif rest.strip(b"\x00\xff \r\n"):
    lost.add("trailing data")
  return bytes(kept)


def replace_metadata(
  data: bytes, kept: list[Segment], ids: tuple[int, ...]
) -> bytes:
  """A JPEG file with other metadata and component identifiers.

  Args:
    data: a whole file, as an encoder wrote it.
    kept: the metadata segments it gets, instead of its own.
    ids: the component identifiers it gets.
  """
  header = parse(data)
  names = dict(zip(header.ids, ids, strict=True))
  parts = [b"\xff\xd8", *(s.to_bytes() for s in kept)]
  for segment in header.segments:
    if segment.marker in _FRAMES:
      frame = bytearray(segment.payload)
      for i, name in enumerate(ids):
        frame[6 + 3 * i] = name
      parts.append(Segment(segment.marker, bytes(frame)).to_bytes())
    elif not segment.is_metadata:
      parts.append(segment.to_bytes())
  scans = bytearray(data[header.scan_offset :])
  for match in re.finditer(rb"\xff\xda", scans):
    first = match.end() + 3
    for i in range(scans[match.end() + 2]):
      scans[first + 2 * i] = names[scans[first + 2 * i]]
  return b"".join(parts) + bytes(scans)


def quantisation_tables(header: Header) -> dict[int, np.ndarray]:
  """The tables before the first scan: number to uint16 [8, 8].

  Vertical frequency comes before horizontal.

  Raises:
    ValueError: a table ends early.
  """
  tables = {}
  for segment in header.segments:
    payload = segment.payload if segment.marker == _DQT else b""
    while payload:
      kind, size = (">u2", 128) if payload[0] >> 4 else ("u1", 64)
      steps = np.frombuffer(payload[1 : 1 + size], kind)
      if len(steps) != 64:
        raise ValueError("a quantisation table that ends early")
      table = np.empty(64, np.uint16)
      table[_ZIGZAG] = steps
      tables[payload[0] & 15] = table.reshape(8, 8)
      payload = payload[1 + size :]
  return tables


def _zigzag() -> np.ndarray:
  """Where in row-major order each coefficient of a file belongs."""
  cells = [(row, column) for row in range(8) for column in range(8)]

  def place(cell: tuple[int, int]) -> tuple[int, int]:
    diagonal = sum(cell)
    return diagonal, cell[0] if diagonal % 2 else cell[1]

  return np.array([8 * r + c for r, c in sorted(cells, key=place)])


_ZIGZAG = _zigzag()


def is_adobe(segment: Segment) -> bool:
  """Whether a segment names Adobe's colour transform."""
  return segment.marker == _APP14 and segment.payload.startswith(b"Adobe")
