"""The marker segments of a JPEG file (ITU-T T.81, annex B)."""

import dataclasses
import re
import struct

import numpy as np

from fawkes_jax.archive import metadata

_APP0, _APP1, _APP2, _APP13, _APP14, _COM = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE
_DQT, _SOS, _EOI = 0xDB, 0xDA, 0xD9
_BARE = {0x01, *range(0xD0, 0xD9)}
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\x00"
_PHOTOSHOP = b"Photoshop 3.0\x00"
_THUMBNAIL_RESOURCES = {0x0409, 0x040C}


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


def cloaked_metadata(
  header: Header, *, upright: bool, transposed: bool, strip_location: bool
) -> list[Segment]:
  """The source's metadata as a cloaked photo, upright or not, may carry it.

  EXIF, XMP, ICC profile, comments, the JFIF density and everything else are
  kept. What could show the face without its cloak is not: thumbnails in
  JFIF, EXIF, XMP and Photoshop segments, extended XMP (which holds whole
  pictures and depth maps), and any other segment with a JPEG inside,
  multi-picture indices included.
  """
  kept = []
  for segment in header.segments:
    if segment.is_metadata:
      payload = _clean(
        segment,
        upright=upright,
        transposed=transposed,
        strip_location=strip_location,
      )
      if payload is not None:
        kept.append(Segment(segment.marker, payload))
  return kept


def _clean(
  segment: Segment, *, upright: bool, transposed: bool, strip_location: bool
) -> bytes | None:
  marker, payload = segment.marker, segment.payload
  if marker == _APP0 and payload.startswith(b"JFIF\x00"):
    return payload[:12] + b"\x00\x00" if len(payload) >= 14 else payload
  if marker == _APP1 and payload.startswith(b"Exif\x00"):
    return (
      metadata.clean_exif(
        payload,
        upright=upright,
        transposed=transposed,
        strip_location=strip_location,
      )
      or None
    )
  if marker == _APP1 and payload.startswith(_XMP):
    xmp = metadata.clean_xmp(
      payload[len(_XMP) :], upright=upright, strip_location=strip_location
    )
    return _XMP + xmp if xmp else None
  if marker == _APP13 and payload.startswith(_PHOTOSHOP):
    cleaned = without_thumbnails(payload[len(_PHOTOSHOP) :])
    return _PHOTOSHOP + cleaned if cleaned else None
  if marker == _APP2 and payload.startswith(b"ICC_PROFILE\x00"):
    return payload
  unsafe = (
    payload.startswith((b"JFXX\x00", b"MPF\x00", b"FPXR\x00", _EXTENDED_XMP))
    or metadata.JPEG_START in payload
  )
  return None if unsafe else payload


def without_location(data: bytes) -> bytes:
  """The file without GPS in EXIF and XMP; everything else verbatim."""
  header = parse(data)
  parts = [b"\xff\xd8"]
  for segment in header.segments:
    payload: bytes = segment.payload
    if segment.marker == _APP1 and payload.startswith(b"Exif\x00"):
      payload = metadata.strip_exif_location(payload)
    elif segment.marker == _APP1 and payload.startswith((_XMP, _EXTENDED_XMP)):
      payload = b"" if metadata.has_xmp_location(payload) else payload
    if payload:
      parts.append(Segment(segment.marker, payload).to_bytes())
  return b"".join(parts) + data[header.scan_offset :]


def without_thumbnails(resources: bytes) -> bytes:
  """Photoshop image resources without thumbnails."""
  kept = []
  position = 0
  while resources[position : position + 4] == b"8BIM":
    name_end = position + 6 + (resources[position + 6] // 2 + 1) * 2
    if name_end + 4 > len(resources):
      break
    (number,) = struct.unpack_from(">H", resources, position + 4)
    (size,) = struct.unpack_from(">I", resources, name_end)
    end = name_end + 4 + size + size % 2
    part = resources[position:end]
    if number not in _THUMBNAIL_RESOURCES and metadata.JPEG_START not in part:
      kept.append(part)
    position = end
  return b"".join(kept)


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
