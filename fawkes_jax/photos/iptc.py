"""IPTC's information interchange model (IIM 4.2): datasets of a photo."""

import struct

from fawkes_jax.photos import pictures
from fawkes_jax.photos.edits import Edits

_KEYWORDS = 2, 25
_MOST_LENGTH_BYTES = 4


def clean_iptc(datasets: bytes, edits: Edits, lost: set[str]) -> bytes:
  """The datasets that a result carries.

  Args:
    datasets: as they stand in a Photoshop resource or a TIFF tag.
    edits: what is done.
    lost: gets the names of what has to go.
  """
  if not (edits.cloaked or edits.strip_names):
    return datasets
  kept, position = [], 0
  while datasets[position : position + 1] == b"\x1c":
    start = position
    try:
      record, number, size = struct.unpack_from(">BBH", datasets, position + 1)
      position += 5
      if size & 0x8000:
        more = min(size & 0x7FFF, _MOST_LENGTH_BYTES)
        size = int.from_bytes(datasets[position : position + more])
        position += more
    except struct.error:
      position = start
      break
    value = datasets[position : position + size]
    position += size
    if edits.cloaked and pictures.holds(value):
      lost.add("preview")
    elif not edits.strip_names or (
      (record, number) != _KEYWORDS and not edits.is_named_in(value)
    ):
      kept.append(datasets[start:position])
  rest = datasets[position:]
  if rest.strip(b"\x00 "):
    if edits.strip_names or (edits.cloaked and pictures.holds(rest)):
      lost.add("IPTC")
    else:
      kept.append(rest)
  elif kept:
    kept.append(rest)
  cleaned = b"".join(kept)
  if edits.cloaked and pictures.holds(cleaned):
    lost.add("IPTC")
    return b""
  return cleaned
