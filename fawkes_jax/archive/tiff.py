"""The tags of a TIFF file that go along with its pixels."""

import struct

from PIL import TiffImagePlugin

from fawkes_jax.archive import metadata, segments

_EXIF, _GPS = 34665, 34853
_XMP, _PHOTOSHOP = 700, 34377
# How the pixels are stored, which the encoder decides; the orientation, as
# pixels are upright; directories and previews for other readers.
_STORAGE = {*range(254, 260), 262, 266, 273, 274, *range(277, 282), 284, 292}
_STORAGE |= {293, *range(318, 321), *range(322, 326), 330, 338, 339, 347}
_STORAGE |= {*range(512, 522), *range(529, 533), 34675, _EXIF, _GPS}
_PREDICTOR = 317
_PREDICTABLE = ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "zstd")


def read_tags(image: TiffImagePlugin.TiffImageFile) -> dict:
  """The tags that are kept, read before the pixels are.

  Returns:
    `tags`, of the picture itself, and `ifds`, the EXIF and GPS directories
    by their tag's number.
  """
  tags = TiffImagePlugin.ImageFileDirectory_v2()
  for tag, value in image.tag_v2.items():
    if tag not in _STORAGE:
      tags.tagtype[tag] = image.tag_v2.tagtype[tag]
      tags[tag] = value
  if image.info.get("compression") not in _PREDICTABLE:
    tags.pop(_PREDICTOR, None)
  exif = image.getexif()
  ifds = {tag: dict(exif.get_ifd(tag)) for tag in (_EXIF, _GPS) if tag in exif}
  return {"tags": tags, "ifds": ifds}


def options(info: dict, *, strip_location: bool) -> dict:
  """What Pillow's encoder needs to write the source's tags."""
  tags = TiffImagePlugin.ImageFileDirectory_v2()
  for tag, value in info["tags"].items():
    if tag == _XMP:
      value = metadata.clean_xmp(bytes(value), strip_location=strip_location)
    if tag == _PHOTOSHOP:
      value = segments.without_thumbnails(bytes(value))
    if value not in (None, b""):
      tags.tagtype[tag] = info["tags"].tagtype[tag]
      tags[tag] = value
  chosen = {"tiffinfo": tags, "compression": info.get("compression", "raw")}
  if "icc_profile" in info:
    chosen["icc_profile"] = info["icc_profile"]
  return chosen


def append_directories(
  data: bytes, info: dict, *, strip_location: bool
) -> bytes:
  """Adds the EXIF and GPS directories to an encoded little-endian TIFF.

  libtiff, which writes the compressed ones, leaves them out.
  """
  ifds = {
    tag: ifd
    for tag, ifd in info["ifds"].items()
    if ifd and not (strip_location and tag == _GPS)
  }
  if not ifds:
    return data
  (first,) = struct.unpack_from("<I", data, 4)
  (count,) = struct.unpack_from("<H", data, first)
  end = first + 2 + 12 * count
  entries = [data[i : i + 12] for i in range(first + 2, end, 12)]
  out = bytearray(data)
  for tag, ifd in ifds.items():
    out += bytes(len(out) % 2)
    entries.append(struct.pack("<HHII", tag, 4, 1, len(out)))
    out += _directory(ifd, offset=len(out))
  out += bytes(len(out) % 2)
  struct.pack_into("<I", out, 4, len(out))
  entries.sort(key=lambda entry: struct.unpack_from("<H", entry))
  return bytes(
    out + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
  )


def _directory(values: dict, *, offset: int) -> bytes:
  directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
  for tag, value in values.items():
    if not isinstance(value, dict):
      directory[tag] = value
  return directory.tobytes(offset)
