"""Colour profiles (ICC.1), and what may hide in them."""

import struct

from fawkes_jax.photos import pictures

_HEADER = 128
# Types of tags whose values are tables, curves and texts of colour.
_TYPES = frozenset(
  (
    *(b"XYZ ", b"chad", b"chrm", b"clro", b"clrt", b"cicp", b"crdi", b"curv"),
    *(b"desc", b"devs", b"dtim", b"gbd ", b"mAB ", b"mBA "),
    *(b"meas", b"mft1", b"mft2", b"mluc", b"mmod", b"mpet", b"MSBN", b"ncl2"),
    *(b"ncol", b"ndin", b"para", b"pseq", b"psid", b"rcs2", b"scrn", b"sf32"),
    *(b"sig ", b"text", b"uf32", b"vcgp"),
    *(b"vcgt", b"view", b"ZXML"),
  )
)


def hides_picture(profile: bytes) -> bool:
  """Whether a profile has a picture, or what is no colour and may be one."""
  if pictures.holds(profile, samples=False):
    return True
  if profile[36:40] != b"acsp" or len(profile) < _HEADER + 4:
    return pictures.holds(profile)
  (count,) = struct.unpack_from(">I", profile, _HEADER)
  table = profile[_HEADER + 4 : _HEADER + 4 + 12 * count]
  end = _HEADER + 4 + len(table)
  values = sorted(
    (offset, offset + size)
    for _, offset, size in struct.iter_unpack(
      ">III", table[: len(table) // 12 * 12]
    )
  )
  unknown = []
  for start, stop in values:
    if start > end:
      unknown.append(profile[end:start])
    if profile[start : start + 4] not in _TYPES:
      unknown.append(profile[start:stop])
    end = max(end, stop)
  return any(map(pictures.holds, [*unknown, profile[end:]]))
