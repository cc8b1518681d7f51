"""Photoshop's image resources (Adobe Photoshop File Formats Specification)."""

import struct

from fawkes_jax.photos import icc, iptc, metadata, pictures, xmp
from fawkes_jax.photos.edits import Edits

_SIGNATURES = (b"8BIM", b"MeSa", b"AgHg", b"PHUT", b"DCSR")
_IPTC, _IPTC_DIGEST = 0x0404, 0x0425
_EXIF = 0x0422, 0x0423
_XMP, _ICC = 0x0424, 0x040F
_THUMBNAILS = 0x0409, 0x040C


def clean_photoshop(resources: bytes, edits: Edits, lost: set[str]) -> bytes:
  """The resources that a result carries.

  Args:
    resources: one after the other.
    edits: what is done.
    lost: gets the names of what has to go.
  """
  if not (edits.cloaked or edits.strip_location or edits.strip_names):
    return resources
  parts, rest = _split(resources)
  if rest.strip(b"\x00 ") and (
    edits.strip_names or edits.strip_location or pictures.holds(rest)
  ):
    lost.add("Photoshop data")
    rest = b""
  cleaned = [
    (number, head, value, _clean(number, head, value, edits, lost))
    for number, head, value in parts
  ]
  edited = any(n == _IPTC and old != new for n, _, old, new in cleaned)
  whole = b"".join(
    head + struct.pack(">I", len(value)) + value + bytes(len(value) % 2)
    for number, head, _, value in cleaned
    if value is not None and not (edited and number == _IPTC_DIGEST)
  )
  whole += rest
  if edits.cloaked and pictures.holds(whole, samples=False):
    lost.add("Photoshop data")
    return b""
  return whole


def _split(
  resources: bytes,
) -> tuple[list[tuple[int, bytes, bytes]], bytes]:
  """Number, head and value of each resource; and what is none."""
  parts, position = [], 0
  while resources[position : position + 4] in _SIGNATURES:
    if position + 7 > len(resources):
      break
    name_end = position + 6 + (resources[position + 6] // 2 + 1) * 2
    if name_end + 4 > len(resources):
      break
    (number,) = struct.unpack_from(">H", resources, position + 4)
    (size,) = struct.unpack_from(">I", resources, name_end)
    start, end = name_end + 4, name_end + 4 + size
    if end > len(resources):
      break
    # Values fill an even number of bytes; some programs write a multiple of 4.
    following = end + size % 2
    for padding in (size % 2, 0, -size % 4):
      if resources[end + padding :][:4] in _SIGNATURES:
        following = end + padding
        break
    head = resources[position:name_end]
    parts.append((number, head, resources[start:end]))
    position = following
  return parts, resources[position:]


def _clean(
  number: int, head: bytes, value: bytes, edits: Edits, lost: set[str]
) -> bytes | None:
  """A resource's value as a result carries it; None where it goes."""
  if number == _IPTC:
    return iptc.clean_iptc(value, edits, lost)
  if number in _EXIF:
    return metadata.clean_exif(value, edits, lost) or None
  if number == _XMP:
    return xmp.clean_xmp(value, edits, lost) or None
  if edits.strip_names and edits.is_named_in(head + value):
    return None
  if edits.cloaked and (
    number in _THUMBNAILS
    or pictures.holds(head)
    or (icc.hides_picture if number == _ICC else pictures.holds)(value)
  ):
    lost.add("preview")
    return None
  return value
