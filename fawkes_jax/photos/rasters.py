"""Changes to photos that are encoded again from their pixels."""

import io
import struct
from collections.abc import Sequence

import numpy as np
from PIL import Image

from fawkes_jax import types
from fawkes_jax.photos import (
  bmp,
  icc,
  jpeg,
  metadata,
  png,
  segments,
  tiff,
  webp,
  xmp,
)
from fawkes_jax.photos.edits import Edits
from fawkes_jax.photos.photo import Photo
from fawkes_jax.photos.regions import regions

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
  edits: Edits,
  lost: set[str],
  finer: int = 0,
) -> bytes:
  """The photo with its changes, in the format of its source, but not JPEG.

  Args:
    photo: what `codec.decode` returned.
    patches: the changes.
    edits: what is done to the metadata.
    lost: gets the names of what of it has to go.
    finer: see `codec.encode`.

  Raises:
    types.PhotoError: the encoder refuses.
  """
  image = _image(photo, patches)
  if photo.format == "TIFF":
    return _encode_tiff(photo, image, edits, lost, finer=finer)
  if photo.format == "PNG":
    return png.carry_chunks(photo.source, _save(image, "PNG", {}), edits, lost)
  carried = _carried(photo, edits, lost)
  if photo.format == "BMP":
    lost |= bmp.lost_parts(photo.source)
    dpi = carried.get("dpi", (0.0, 0.0))
    if image.mode == "RGBA":
      return bmp.encode_rgba(np.asarray(image), dpi=dpi)
    return _save(image, "BMP", {"dpi": dpi})
  level = len(_LOSSY[photo.format]) - 1 if photo.lossless else finer
  options = carried | _LOSSY[photo.format][level]
  if photo.format == "WEBP":
    lost |= webp.lost_chunks(photo.source)
    options["exact"] = True
  lost |= photo.info.get("lost", set())
  return _save(image, photo.format, options)


def encode_jpeg(
  photo: Photo,
  header: segments.Header,
  patches: Sequence[types.Patch],
  *,
  largest_step: int,
  edits: Edits,
  lost: set[str],
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
  kept = segments.clean_metadata(header, edits, lost)
  kept = [s for s in kept if not segments.is_adobe(s)]
  ids = segments.parse(encoded).ids
  return segments.replace_metadata(encoded, kept, ids)


def _encode_tiff(
  photo: Photo,
  image: Image.Image,
  edits: Edits,
  lost: set[str],
  *,
  finer: int,
) -> bytes:
  options: dict = {"compression": photo.info.get("compression", "raw")}
  if options["compression"] in tiff.PREDICTABLE and "predictor" in photo.info:
    options["tiffinfo"] = {tiff.PREDICTOR: photo.info["predictor"]}
  if not photo.lossless:
    options |= _LOSSY["TIFF"][finer]
  encoded = _save(image, "TIFF", options)
  try:
    return tiff.carry_tags(photo.source, encoded, edits, lost)
  except (ValueError, struct.error) as error:
    raise types.PhotoError(f"its tags cannot be read: {error}") from error


def changed(photo: Photo, patches: Sequence[types.Patch]) -> np.ndarray:
  """The changed pixels, uint8 [height, width, 3], as `encode` is given them."""
  pixels = photo.pixels.copy()
  height, width = photo.shape
  for patch in regions(patches, width=width, height=height):
    left, top, right, bottom = patch.box
    change = patch.change
    if photo.grey:
      change = (change @ _LUMA)[..., np.newaxis]
    part = pixels[top:bottom, left:right]
    part[...] = np.clip(np.rint(part + change), 0, 255)
  return pixels


def _image(photo: Photo, patches: Sequence[types.Patch]) -> Image.Image:
  """The changed pixels, in the mode that is written."""
  pixels = changed(photo, patches)
  layers = pixels[..., :1] if photo.grey else pixels
  if photo.alpha is not None:
    layers = np.concatenate([layers, photo.alpha[..., np.newaxis]], axis=2)
  return Image.fromarray(layers[..., 0] if layers.shape[2] == 1 else layers)


def _carried(photo: Photo, edits: Edits, lost: set[str]) -> dict:
  """ICC profile, EXIF, XMP and resolution for Pillow's encoders."""
  info = photo.info
  carried = {
    name: info[name] for name in ("icc_profile", "dpi") if name in info
  }
  if edits.cloaked and icc.hides_picture(info.get("icc_profile", b"")):
    lost.add("colour profile")
    del carried["icc_profile"]
  if "exif" in info:
    carried["exif"] = metadata.clean_exif(info["exif"], edits, lost)
  if "xmp" in info:
    carried["xmp"] = xmp.clean_xmp(info["xmp"], edits, lost)
  return {name: value for name, value in carried.items() if value}


def _save(image: Image.Image, kind: str, options: dict) -> bytes:
  buffer = io.BytesIO()
  try:
    image.save(buffer, kind, **options)
  except _ENCODER_ERRORS as error:
    raise types.PhotoError(f"cannot be written as {kind}: {error}") from error
  return buffer.getvalue()
