"""Changes to photos that are encoded again from their pixels."""

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, TiffImagePlugin

from fawkes_jax import types
from fawkes_jax.archive import metadata, segments
from fawkes_jax.archive.photo import Photo
from fawkes_jax.archive.regions import regions

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_LOSSY_QUALITY = 95
_EXIF, _XMP, _ICC = "exif", "xmp", "icc_profile"


def encode(
  photo: Photo, patches: Sequence[types.Patch], *, strip_location: bool
) -> bytes:
  """The photo with its changes, in the format of its source, but not JPEG.

  Raises:
    types.PhotoError: the encoder refuses.
  """
  image = _image(photo, patches)
  if photo.format == "PNG":
    return _png(photo, image, strip_location=strip_location)
  options: dict = _carried(photo, strip_location=strip_location)
  if photo.format == "WEBP":
    options |= {"lossless": photo.lossless, "quality": _LOSSY_QUALITY}
    options |= {"exact": True, "method": 4}
  elif photo.format == "TIFF":
    options = _tiff_options(photo, options)
  elif photo.format == "HEIF":
    options |= {"quality": _LOSSY_QUALITY}
  elif photo.format == "BMP":
    options = {"dpi": options["dpi"]} if "dpi" in options else {}
  return _save(image, photo.format, options)


def encode_jpeg(
  photo: Photo,
  header: segments.Header,
  patches: Sequence[types.Patch],
  *,
  strip_location: bool,
) -> bytes:
  """A JPEG encoded again from its pixels, with the source's tables.

  Raises:
    types.PhotoError: the encoder refuses.
  """
  tables = photo.jpeg_tables
  if tables is None:
    raise types.PhotoError("a JPEG of this kind cannot be written")
  options: dict = {
    "qtables": [table.ravel().tolist() for table in tables],
    "optimize": True,
    "progressive": header.frame in (0xC2, 0xCA),
  }
  if photo.subsampling in ("4:4:4", "4:2:2", "4:2:0"):
    options["subsampling"] = photo.subsampling
  elif not photo.grey:
    options["subsampling"] = "4:4:4"
  encoded = _save(_image(photo, patches), "JPEG", options)
  kept = segments.cloaked_metadata(
    header, transposed=photo.how.transpose, strip_location=strip_location
  )
  kept = [s for s in kept if not segments.is_adobe(s)]
  ids = segments.parse(encoded).ids
  return segments.replace_metadata(encoded, kept, ids)


def is_lossless_webp(data: bytes) -> bool:
  """Whether a WebP file's picture is in a lossless chunk (VP8L)."""
  position = 12
  while position + 8 <= len(data):
    name, size = struct.unpack_from("<4sI", data, position)
    if name in (b"VP8L", b"VP8 "):
      return name == b"VP8L"
    position += 8 + size + size % 2
  return False


def _image(photo: Photo, patches: Sequence[types.Patch]) -> Image.Image:
  """The changed pixels, in the mode that is written."""
  pixels = photo.pixels.copy()
  height, width = pixels.shape[:2]
  for patch in regions(patches, width=width, height=height):
    left, top, right, bottom = patch.box
    change = patch.change
    if photo.grey:
      change = (change @ _LUMA)[..., np.newaxis]
    part = pixels[top:bottom, left:right]
    part[...] = np.clip(np.rint(part + change), 0, 255)
  layers = pixels[..., :1] if photo.grey else pixels
  if photo.alpha is not None:
    layers = np.concatenate([layers, photo.alpha[..., np.newaxis]], axis=2)
  return Image.fromarray(layers[..., 0] if layers.shape[2] == 1 else layers)


def _carried(photo: Photo, *, strip_location: bool) -> dict:
  """ICC profile, EXIF, XMP and resolution for Pillow's encoders."""
  info = photo.info
  carried = {name: info[name] for name in (_ICC, "dpi") if name in info}
  if _EXIF in info:
    carried[_EXIF] = metadata.clean_exif(
      info[_EXIF],
      transposed=photo.how.transpose,
      strip_location=strip_location,
    )
  if _XMP in info:
    carried[_XMP] = metadata.clean_xmp(
      info[_XMP], strip_location=strip_location
    )
  return {name: value for name, value in carried.items() if value}


def _save(image: Image.Image, kind: str, options: dict) -> bytes:
  buffer = io.BytesIO()
  try:
    image.save(buffer, kind, **options)
  except (OSError, ValueError, KeyError, struct.error) as error:
    raise types.PhotoError(f"cannot be written as {kind}: {error}") from error
  return buffer.getvalue()


# TIFF: tags that describe how the pixels are stored, which the encoder sets,
# the orientation, and the directories and previews of other readers.
_TIFF_STORAGE = frozenset(
  (254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 280, 281)
) | frozenset(
  (284, 292, 293, 317, 318, 319, 320, 322, 323, 324, 325, 330, 338, 339, 347)
) | frozenset((512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532))  # fmt: skip
_TIFF_XMP, _TIFF_PHOTOSHOP, _TIFF_EXIF, _TIFF_GPS = 700, 34377, 34665, 34853


def _tiff_options(photo: Photo, options: dict) -> dict:
  tags = photo.info["tags"]
  kept = TiffImagePlugin.ImageFileDirectory_v2()
  del tags, kept
  return options


def _png(photo: Photo, image: Image.Image, *, strip_location: bool) -> bytes:
  del strip_location
  return _save(image, "PNG", {})


def _chunk(name: bytes, payload: bytes) -> bytes:
  check = struct.pack(">I", zlib.crc32(name + payload))
  return struct.pack(">I", len(payload)) + name + payload + check
