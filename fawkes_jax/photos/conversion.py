"""Converts pictures whose own format cannot hold a cloak."""

import contextlib
import io

import numpy as np
from PIL import Image, ImageCms, ImageOps

from fawkes_jax import types
from fawkes_jax.photos import kinds
from fawkes_jax.photos.quiet import quiet_natives, quiet_pillow

# Of these a JPEG is made, unless there is transparency; of others a PNG.
_LOSSY = ("AVIF", "HEIF", "JPEG", "JPEG2000", "JXL", "MPO")
_QUALITY = 95


def convert(data: bytes, *, max_pixels: int) -> tuple[bytes, str, str]:
  """Makes a PNG or a JPEG of a picture.

  Its first frame, 8 bits per sample, grey or RGB, with EXIF and, where the
  colours stay what they are, the ICC profile.

  Args:
    data: the file's bytes.
    max_pixels: the largest number of pixels that is decoded.

  Returns:
    The new file, the suffix of its name, and what became of the picture, in
    words.

  Raises:
    types.PhotoError: no decoder can read it, or it is too large.
  """
  kind = kinds.identify(data)
  _register_decoders()
  try:
    with quiet_pillow(), quiet_natives(), Image.open(io.BytesIO(data)) as image:
      if image.width * image.height > max_pixels:
        raise types.PhotoError(
          f"{image.width} x {image.height} is more than {max_pixels} pixels"
          " (--max_pixels)"
        )
      return _convert(image)
  except types.PhotoError:
    raise
  except Exception as error:  # Decoders raise what they like.
    reason = kind.reason if kind else "it cannot be converted"
    raise types.PhotoError(f"{reason}: no decoder reads it") from error


def _register_decoders() -> None:
  """Those that are installed beside Pillow's own."""
  with contextlib.suppress(ImportError):
    import pillow_jxl  # noqa: F401
  with contextlib.suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)


def _convert(image: Image.Image) -> tuple[bytes, str, str]:
  frames = getattr(image, "n_frames", 1)
  image.seek(0)
  kind, mode = image.format, image.mode
  upright = ImageOps.exif_transpose(image)
  profile = image.info.get("icc_profile")
  exif = upright.getexif().tobytes() if kind != "TIFF" else b""
  picture = _eight_bits(upright, profile)
  if mode not in ("L", "LA", "P", "PA", "RGB", "RGBA"):
    profile = None
  as_jpeg = kind in _LOSSY and picture.mode in ("L", "RGB")
  options: dict = {"exif": exif, "icc_profile": profile}
  options = {name: value for name, value in options.items() if value}
  if as_jpeg:
    options |= {"quality": _QUALITY, "subsampling": "4:4:4"}
  buffer = io.BytesIO()
  picture.save(buffer, "JPEG" if as_jpeg else "PNG", **options)
  said = f"written as {'JPEG' if as_jpeg else 'PNG'}"
  if frames > 1:
    said += f", the first of {frames} frames"
  return buffer.getvalue(), ".jpg" if as_jpeg else ".png", said


def _eight_bits(image: Image.Image, profile: bytes | None) -> Image.Image:
  """The picture as one of Pillow's modes L, LA, RGB and RGBA."""
  mode = image.mode
  if mode in ("L", "LA", "RGB", "RGBA") and "transparency" not in image.info:
    return image
  if mode == "1":
    return image.convert("L")
  if mode.startswith("I"):
    samples = np.asarray(image)
    if samples.size and (samples.min() < 0 or samples.max() > 65535):
      raise types.PhotoError("more than 16 bits per sample are not supported")
    return Image.fromarray((samples >> 8).astype(np.uint8))
  if mode in ("CMYK", "LAB"):
    with contextlib.suppress(ImageCms.PyCMSError, OSError):
      source = (
        ImageCms.createProfile("LAB")
        if mode == "LAB"
        else ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
      )
      converted = ImageCms.profileToProfile(
        image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
      )
      if converted is not None:
        return converted
  if mode == "F":
    raise types.PhotoError("floating-point samples are not supported")
  transparent = image.has_transparency_data
  return image.convert("RGBA" if transparent else "RGB")
