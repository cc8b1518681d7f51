"""Changes to photos that are encoded again from their pixels."""

import io
import struct
from collections.abc import Sequence

import numpy as np
from PIL import Image

from fawkes_jax import types
from fawkes_jax.archive import bmp, jpeg, metadata, png, segments, tiff
from fawkes_jax.archive.photo import Photo
from fawkes_jax.archive.regions import regions

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# By how fine a lossy file must be, options of Pillow's encoders.
_LOSSY: dict[str, tuple[dict, ...]] = {
  "WEBP": (
    {"quality": 95, "lossless": False},
    {"quality": 100, "lossless": False},
    {"quality": 100, "lossless": True},
  ),
  "TIFF": (
    {"quality": 95},
    {"quality": 100},
    {"compression": "tiff_adobe_deflate"},
  ),
  "HEIF": ({"quality": 95}, {"quality": 100, "chroma": 444}),
}
_ENCODER_ERRORS = (
  OSError,
  RuntimeError,
  ValueError,
  TypeError,
  KeyError,
  struct.error,
)


def refinements(photo: Photo) -> int:
  """How often `encode` can lose less, see `codec.refinements`."""
  return len(_LOSSY[photo.format]) - 1


def encode(
  photo: Photo,
  patches: Sequence[types.Patch],
  *,
  strip_location: bool,
  finer: int = 0,
) -> bytes:
  """The photo with its changes, in the format of its source, but not JPEG.

  Raises:
    types.PhotoError: the encoder refuses.
  """
  image = _image(photo, patches)
  if photo.format == "TIFF":
    return _encode_tiff(
      photo, image, strip_location=strip_location, finer=finer
    )
  carried = _carried(photo, strip_location=strip_location)
  if photo.format == "PNG":
    exif, xmp = carried.get("exif", b""), carried.get("xmp", b"")
    encoded = _save(image, "PNG", {})
    return png.carry_chunks(photo.source, encoded, exif=exif, xmp=xmp)
  if photo.format == "BMP":
    dpi = carried.get("dpi", (0.0, 0.0))
    if image.mode == "RGBA":
      return bmp.encode_rgba(np.asarray(image), dpi=dpi)
    return _save(image, "BMP", {"dpi": dpi})
  level = len(_LOSSY[photo.format]) - 1 if photo.lossless else finer
  options = carried | _LOSSY[photo.format][level]
  if photo.format == "WEBP":
    options["exact"] = True
  return _save(image, photo.format, options)


def encode_jpeg(
  photo: Photo,
  header: segments.Header,
  patches: Sequence[types.Patch],
  *,
  largest_step: int,
  strip_location: bool,
) -> bytes:
  """A JPEG encoded again from its pixels, with the source's tables.

  Steps above `largest_step`, where that is not 0, are divided as
  `jpeg.add_patches` does.

  Raises:
    types.PhotoError: the encoder refuses.
  """
  tables = photo.jpeg_tables
  if tables is None:
    raise types.PhotoError("a JPEG of this kind cannot be written")
  steps = [table.ravel().tolist() for table in tables]
  if largest_step:
    steps = [[jpeg.finer_step(q, largest_step) for q in t] for t in steps]
  options: dict = {
    "qtables": steps,
    "optimize": True,
    "progressive": header.frame in (0xC2, 0xCA),
  }
  if photo.subsampling in ("4:4:4", "4:2:2", "4:2:0"):
    options["subsampling"] = photo.subsampling
  elif not photo.grey:
    options["subsampling"] = "4:4:4"
  encoded = _save(_image(photo, patches), "JPEG", options)
  kept = segments.cloaked_metadata(
    header,
    upright=True,
    transposed=photo.how.transpose,
    strip_location=strip_location,
  )
  kept = [s for s in kept if not segments.is_adobe(s)]
  ids = segments.parse(encoded).ids
  return segments.replace_metadata(encoded, kept, ids)


def _encode_tiff(
  photo: Photo, image: Image.Image, *, strip_location: bool, finer: int
) -> bytes:
  options = tiff.options(photo.info, strip_location=strip_location)
  if not photo.lossless:
    options |= _LOSSY["TIFF"][finer]
  encoded = _save(image, "TIFF", options)
  return tiff.append_directories(
    encoded, photo.info, strip_location=strip_location
  )


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
  carried = {
    name: info[name] for name in ("icc_profile", "dpi") if name in info
  }
  if "exif" in info:
    carried["exif"] = metadata.clean_exif(
      info["exif"],
      transposed=photo.how.transpose,
      strip_location=strip_location,
    )
  if "xmp" in info:
    carried["xmp"] = metadata.clean_xmp(
      info["xmp"], strip_location=strip_location
    )
  return {name: value for name, value in carried.items() if value}


def _save(image: Image.Image, kind: str, options: dict) -> bytes:
  buffer = io.BytesIO()
  try:
    image.save(buffer, kind, **options)
  except _ENCODER_ERRORS as error:
    raise types.PhotoError(f"cannot be written as {kind}: {error}") from error
  return buffer.getvalue()
