"""The chunks of a PNG file that go along with its pixels."""

import re
import struct
import zlib
from collections.abc import Iterator

from fawkes_jax.photos import icc, iptc, metadata, photoshop, pictures, xmp
from fawkes_jax.photos.edits import Edits, is_located

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP_KEYWORD = b"XML:com.adobe.xmp"
# What describes samples or palettes depends on how the pixels are stored, which
# the encoder decides; the rest is about the colours of any.
_STORAGE = frozenset(b"IHDR PLTE IDAT IEND tRNS sBIT bKGD hIST".split())
_COLOURS = frozenset(
  b"gAMA cHRM sRGB cICP mDCV cLLI mDCv cLLi pHYs tIME".split()
)
_TEXTS = frozenset(b"tEXt zTXt iTXt".split())
_LARGEST_TEXT = 256 << 20
_PROFILE = re.compile(rb"Raw profile type (\w+)", re.IGNORECASE)
_CONTROL = bytes({*range(32), *range(127, 160)} - {9, 10, 13})
_MOST_CONTROL = 0.02
_LONGEST_COLOUR = 32
"""Bytes of a chunk about colours, at most."""
_XMP_MARK = b"http://ns.adobe.com/xap/1.0/\x00"
_PHOTOSHOP_MARK = b"Photoshop 3.0\x00"


def carry_chunks(
  source: bytes, encoded: bytes, edits: Edits, lost: set[str]
) -> bytes:
  """Puts the source's colour, resolution, text and time into a new PNG.

  Args:
    source: the source's file.
    encoded: the new file, as the encoder wrote it, without metadata.
    edits: what is done to the metadata.
    lost: gets the names of what has to go.
  """
  carried, end = [], len(_SIGNATURE)
  for name, payload in _chunks(source):
    end += 12 + len(payload)
    kept = _clean(name, payload, edits, lost)
    if kept is not None:
      carried.append((name, kept))
  if source[end:].strip(b"\x00"):
    lost.add("trailing data")
  own = [c for c in _chunks(encoded) if c[0] in (b"IHDR", b"IDAT", b"IEND")]
  chunks = own[:1] + carried + own[1:]
  return _SIGNATURE + b"".join(_pack(*chunk) for chunk in chunks)


def strip(data: bytes, edits: Edits, lost: set[str]) -> bytes:
  """The file with other metadata; its pixels stay as they are.

  Args:
    data: a whole file.
    edits: what is done, but not `cloaked`.
    lost: gets the names of what has to go.
  """
  kept, end = [], len(_SIGNATURE)
  for name, payload in _chunks(data):
    end += 12 + len(payload)
    clean = payload if name in _STORAGE else _clean(name, payload, edits, lost)
    if clean is not None:
      kept.append((name, clean))
  if data[end:].strip(b"\x00"):
    lost.add("trailing data")
  return _SIGNATURE + b"".join(_pack(*chunk) for chunk in kept)


def _clean(
  name: bytes, payload: bytes, edits: Edits, lost: set[str]
) -> bytes | None:
  """A chunk's payload as a result carries it; None where it goes."""
  if name in _STORAGE:
    return None
  label = name.decode("latin-1")
  if name in _COLOURS:
    if len(payload) > _LONGEST_COLOUR:
      lost.add(f"PNG chunk {label}")
      return None
    return payload
  if name == b"eXIf":
    return metadata.clean_exif(payload, edits, lost) or None
  if name in _TEXTS:
    return _clean_text(name, payload, edits, lost)
  if name == b"iCCP":
    profile = _inflate(payload.partition(b"\x00")[2][1:])
    if edits.cloaked and (profile is None or icc.hides_picture(profile)):
      lost.add("colour profile")
      return None
    return payload
  # A capital fourth letter says: not to be copied where the pixels change.
  if edits.cloaked and (name[3:].isupper() or pictures.holds(payload)):
    lost.add(f"PNG chunk {label}")
    return None
  return payload


def _clean_text(
  name: bytes, payload: bytes, edits: Edits, lost: set[str]
) -> bytes | None:
  keyword, text = _text(name, payload)
  if text is None:
    lost.add("text")
    return None
  profile = _PROFILE.fullmatch(keyword)
  if keyword == _XMP_KEYWORD:
    cleaned = xmp.clean_xmp(text, edits, lost)
    if not cleaned:
      return None
    return payload if cleaned == text else _repack(name, payload, cleaned)
  if profile is not None:
    cleaned_profile = _clean_profile(profile[1].lower(), text, edits, lost)
    if not cleaned_profile:
      return None
    if cleaned_profile == text:
      return payload
    return _repack(name, payload, cleaned_profile)
  if edits.strip_location and (is_located(keyword) or is_located(text)):
    return None
  if edits.strip_names and (
    keyword.lower() == b"keywords" or edits.is_named_in(text)
  ):
    return None
  if edits.cloaked and (
    pictures.holds(text) or pictures.holds(payload) or _is_binary(text)
  ):
    lost.add("text")
    return None
  return payload


def _text(name: bytes, payload: bytes) -> tuple[bytes, bytes | None]:
  """A text chunk's keyword and text; None where it cannot be read."""
  keyword, _, rest = payload.partition(b"\x00")
  if name == b"tEXt":
    return keyword, rest
  if name == b"zTXt":
    return keyword, _inflate(rest[1:])
  _, _, text = rest[2:].partition(b"\x00")
  _, _, text = text.partition(b"\x00")
  return keyword, _inflate(text) if rest[:1] == b"\x01" else text


def _is_binary(text: bytes) -> bool:
  """Whether so many bytes are no characters of Latin-1 that it is no text."""
  control = len(text) - len(text.translate(None, _CONTROL))
  return len(text) > _LONGEST_COLOUR and control > _MOST_CONTROL * len(text)


def _repack(name: bytes, payload: bytes, text: bytes) -> bytes:
  """A text chunk's payload with another text."""
  keyword, _, rest = payload.partition(b"\x00")
  if name == b"tEXt":
    return keyword + b"\x00" + text
  if name == b"zTXt":
    return keyword + b"\x00\x00" + zlib.compress(text)
  language, _, more = rest[2:].partition(b"\x00")
  translated, _, _ = more.partition(b"\x00")
  text = zlib.compress(text) if rest[:1] == b"\x01" else text
  return b"\x00".join([keyword, rest[:2] + language, translated, text])


def _clean_profile(
  kind: bytes, text: bytes, edits: Edits, lost: set[str]
) -> bytes:
  """A block in hexadecimal digits, as ImageMagick writes it."""
  data = raw_profile(text)
  if data is None:
    cleaned = None if edits.cloaked else text
    if cleaned is None:
      lost.add("text")
    return cleaned or b""
  if kind in (b"exif", b"app1") and not data.startswith(_XMP_MARK):
    kept = metadata.clean_exif(data, edits, lost)
  elif kind in (b"xmp", b"app1"):
    mark = _XMP_MARK if data.startswith(_XMP_MARK) else b""
    packet = xmp.clean_xmp(data[len(mark) :], edits, lost)
    kept = mark + packet if packet else b""
  elif kind in (b"iptc", b"8bim", b"app13"):
    mark = _PHOTOSHOP_MARK if data.startswith(_PHOTOSHOP_MARK) else b""
    body = data[len(mark) :]
    clean = (
      photoshop.clean_photoshop if body[:4] == b"8BIM" else iptc.clean_iptc
    )
    body = clean(body, edits, lost)
    kept = mark + body if body else b""
  elif edits.cloaked and (
    icc.hides_picture(data)
    if kind in (b"icc", b"icm")
    else pictures.holds(data)
  ):
    lost.add("text")
    kept = b""
  else:
    kept = data
  if kept == data or not kept:
    return text if kept else b""
  digits = kept.hex().encode()
  lines = [digits[i : i + 72] for i in range(0, len(digits), 72)]
  head = b"\n%s\n%8d\n" % (kind, len(kept))
  return head + b"\n".join(lines) + b"\n"


def raw_profile(text: bytes) -> bytes | None:
  """The bytes that "Raw profile type ..." writes; None if it is damaged."""
  lines = text.split(b"\n", 3)
  if len(lines) < 4:
    return None
  try:
    return bytes.fromhex(lines[3].decode("ascii"))
  except ValueError:
    return None


def _inflate(stream: bytes) -> bytes | None:
  try:
    inflater = zlib.decompressobj()
    text = inflater.decompress(stream, _LARGEST_TEXT)
  except zlib.error:
    return None
  return text if inflater.eof else None


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
  position = len(_SIGNATURE)
  while position + 8 <= len(data):
    size, name = struct.unpack_from(">I4s", data, position)
    yield name, data[position + 8 : position + 8 + size]
    position += 12 + size
    if name == b"IEND":
      return


def _pack(name: bytes, payload: bytes) -> bytes:
  check = struct.pack(">I", zlib.crc32(name + payload))
  return struct.pack(">I", len(payload)) + name + payload + check
