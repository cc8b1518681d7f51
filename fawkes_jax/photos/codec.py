"""Photos from bytes, and back to bytes like the source.

What is supported, and what is refused with a reason (nothing is degraded in
silence):

* JPEG: greyscale and colour, all EXIF orientations; 8 bits. Changes are added
  in the DCT domain (`jpeg`), with the source's tables and subsampling. Where
  that is impossible (see `encode`), the pixels are encoded again with the
  same tables and subsampling. Multi-picture files give their first picture.
* PNG, TIFF, BMP, lossless WebP: pixels outside the changes stay the same.
  Palettes, 2- and 4-bit grey become 8-bit grey, RGB or RGBA when something
  changes, and so does a transparent colour become an alpha channel.
* lossy WebP and HEIC: encoded again with quality 95, or finer where that holds
  no cloak (`finer`); HEIC needs the extra `heic`. TIFF with JPEG inside
  likewise. For WebP that moves pixels outside
  the changes by less than 1 level on average, by about 20 at most, and the
  file grows by 1.2 (from quality 90) to 2.6 times (from quality 60).
* refused: more than one frame, 16-bit and floating-point samples, CMYK and
  other colour models, 1-bit pictures, GIF and ICO (which cannot hold what is
  added), and formats not named here.
"""

import contextlib
import dataclasses
import io
import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import (
  ExifTags,
  Image,
  ImageFile,
  TiffImagePlugin,
  UnidentifiedImageError,
)

from fawkes_jax import types
from fawkes_jax.photos import (
  conversion,
  heif,
  jpeg,
  kinds,
  orientation,
  png,
  rasters,
  segments,
  tiff,
  webp,
  xmp,
)
from fawkes_jax.photos.edits import Edits
from fawkes_jax.photos.photo import Photo
from fawkes_jax.photos.quiet import quiet_natives, quiet_pillow

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "HEIF")
_REFUSED = {
  "GIF": "a GIF holds 256 colours at most, which no cloak fits into",
  "ICO": "icons (ICO) cannot be written",
  "AVIF": "AVIF is not supported",
}
_MODES = ("L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")
_REFUSED_MODES = {
  "1": "a picture of 1 bit per pixel has no room for a cloak",
  "CMYK": "CMYK is not supported",
  "F": "floating-point samples are not supported",
  "I": "more than 8 bits per sample are not supported",
}
# What Pillow raises on damaged files, as found by damaging them.
_DAMAGE = (
  ArithmeticError,
  EOFError,
  LookupError,
  OSError,
  RuntimeError,
  SyntaxError,
  TypeError,
  ValueError,
  struct.error,
  zlib.error,
)
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
# What takes something out of the metadata and leaves all pixels as they are.
_STRIPPERS: dict[str, Callable[[bytes, Edits, set[str]], bytes]] = {
  "JPEG": segments.strip,
  "PNG": png.strip,
  "WEBP": webp.strip,
}
_STRIP = 64
"""Rows that are taken from Pillow at once."""
_SUBSAMPLINGS = {
  (1, 1): "4:4:4",
  (1, 2): "4:2:2",
  (2, 2): "4:2:0",
  (2, 1): "4:4:0",
  (1, 4): "4:1:1",
}


def decode(data: bytes, *, max_pixels: int, convert: bool = False) -> Photo:
  """Decodes a photo.

  Args:
    data: the file's bytes.
    max_pixels: the largest number of pixels that is decoded; the header is
      asked before anything is.
    convert: whether of a picture that is not supported a PNG or JPEG is made,
      as `conversion` does, and decoded.

  Returns:
    The photo, upright as `PIL.ImageOps.exif_transpose` turns it. The same
    bytes always give the same photo.

  Raises:
    types.PhotoError: it is not an image, damaged, too large, or of a kind
      that could not be written again; the message is the reason.
  """
  return _decoded(data, max_pixels=max_pixels, convert=convert)


def reopen(data: bytes, *, max_pixels: int, convert: bool = False) -> Photo:
  """Decodes a photo that has been decoded before.

  Args:
    data: bytes of which `decode`, with the same arguments, has made a photo.
    max_pixels: as in `decode`.
    convert: as in `decode`.

  Returns:
    The same photo. The pixels of a JPEG are decoded when they are asked for,
    which changes of its coefficients need not.

  Raises:
    types.PhotoError: as in `decode`.
  """
  return _decoded(data, max_pixels=max_pixels, convert=convert, again=True)


def _decoded(
  data: bytes, *, max_pixels: int, convert: bool, again: bool = False
) -> Photo:
  try:
    return _decode(data, max_pixels, again=again)
  except types.UnsupportedError as error:
    if not convert:
      raise
    made, suffix, said = conversion.convert(data, max_pixels=max_pixels)
    photo = _decode(made, max_pixels)
    return dataclasses.replace(photo, suffix=suffix, note=f"{said}: {error}")


def _decode(data: bytes, max_pixels: int, *, again: bool = False) -> Photo:
  if not data:
    raise types.OtherFileError("zero bytes")
  if (kind := kinds.identify(data)) is not None:
    if kind.raw:
      raise types.PhotoError(kind.reason)
    error = types.UnsupportedError if kind.picture else types.OtherFileError
    raise error(kind.reason)
  is_jpeg = data.startswith(b"\xff\xd8\xff")
  if is_jpeg and (reason := jpeg.refusal(data)):
    raise types.PhotoError(reason)
  later = is_jpeg and again
  try:
    whole = _with_end(data, max_pixels) if is_jpeg and not later else data
    with quiet_pillow(), _quiet(data), _open(whole) as image:
      _check_header(image, data, max_pixels=max_pixels)
      if image.format != "TIFF" and not later:
        image.load()
      # Loading turns a TIFF, and forgets that it did.
      how, info = turned(image), _info(image, data)
      if not later:
        image.load()
      photo = _photo(image, data, how=how, info=info)
      if later:
        return dataclasses.replace(
          photo, load=lambda: _decode(data, max_pixels).layers
        )
      layers = photo.layers  # While the file is open.
      return dataclasses.replace(photo, load=lambda: layers)
  except UnidentifiedImageError as error:
    raise types.OtherFileError(
      "not an image, or damaged at its start"
    ) from error
  except _DAMAGE as error:
    rule = "truncated" if "truncated" in str(error) else "corrupted"
    raise types.PhotoError(f"{rule}: {error}") from error


def count_pixels(data: bytes) -> int:
  """How many pixels a photo has, as its header says; 0 where it has none."""
  try:
    with quiet_pillow(), _quiet(data), _open(data) as image:
      return image.width * image.height
  except (types.PhotoError, UnidentifiedImageError, *_DAMAGE):
    return 0


def encode(
  photo: Photo,
  patches: Sequence[types.Patch],
  *,
  largest_step: int = 0,
  strip_location: bool = False,
  strip_names: bool = False,
  lost: set[str] | None = None,
  finer: int = 0,
  editor: jpeg.Editor | None = None,
) -> bytes:
  """Encodes a photo with changes, like its source.

  The same format, mode, size, ICC profile, EXIF (without previews), XMP and
  alpha; upright, but for a JPEG with an axis that would have to be flipped and
  is not filled with whole coding units, which keeps its EXIF orientation. A
  greyscale photo stays so: it gets the change's luma.
  Without any change the source's own bytes are returned (with
  `strip_location` and `strip_names` only these are taken out, where the format
  allows that without encoding it again).

  A JPEG whose coefficients cannot be edited is encoded again from its
  pixels, with the same tables and subsampling: arithmetic coding, RGB
  instead of YCbCr, or unusual sampling. Every block is rounded again then,
  which moves pixels by 0.3 levels on average and up to 20 at hard edges
  (measured on 1200 x 1800 photos in 4:2:0), and 4:4:0 becomes 4:4:4.
  Otherwise pixels outside the changed blocks are the source's; after a flip
  or transposition decoders may round them by up to 4 levels differently (0.03
  on average), although the coefficients are exact.

  Args:
    photo: what `decode` returned.
    patches: changes inside the photo; overlapping ones add up before
      anything is rounded.
    largest_step: quantisation steps of a JPEG that are coarser are divided by
      whole numbers; blocks without a change are decoded to the same pixels
      as before. 0 divides none.
    strip_location: removes the GPS directory from EXIF, and GPS from XMP.
    strip_names: removes names of people, regions of faces, and keywords.
    lost: gets, in words, what the source has and the result has not, such as
      "preview", "gain map", "motion clip"; but not what was to be stripped.
    finer: how much less is lost to the format than usual, up to
      `refinements`.
    editor: what `editor` made of the photo, so that it is not read again.

  Returns:
    The file's bytes.

  Raises:
    types.PhotoError: the photo cannot be written.
    ValueError: a patch reaches out of the photo.
  """
  changed = any(np.any(patch.change) for patch in patches)
  if not changed and not strip_location and not strip_names:
    return photo.source
  lost = set() if lost is None else lost
  edits = _edits(
    photo,
    cloaked=changed,
    strip_location=strip_location,
    strip_names=strip_names,
  )
  if not changed and photo.format in _STRIPPERS:
    untouched = dataclasses.replace(edits, how=None)
    try:
      return _STRIPPERS[photo.format](photo.source, untouched, lost)
    except (ValueError, struct.error) as error:
      raise types.PhotoError(
        f"its metadata cannot be edited: {error}"
      ) from error
  with quiet_pillow(), _quiet(photo.source):
    if photo.format == "JPEG":
      return _encode_jpeg(
        photo,
        patches,
        largest_step=jpeg_step(largest_step, finer),
        edits=edits,
        lost=lost,
        editor=editor or open_editor(photo),
      )
    return rasters.encode(photo, patches, edits=edits, lost=lost, finer=finer)


def open_editor(photo: Photo) -> jpeg.Editor | None:
  """What adds changes to a JPEG's coefficients; None where nothing can.

  Raises:
    types.PhotoError: the coefficients cannot be read.
  """
  if photo.format != "JPEG":
    return None
  header = segments.parse(photo.source)
  if not jpeg.is_editable(header):
    return None
  editor = jpeg.Editor(photo.source, header, photo.how)
  return editor if editor.fits else None


def jpeg_step(largest_step: int, finer: int) -> int:
  """The coarsest quantisation step of a JPEG that is so much finer."""
  return max(1, largest_step >> finer) if largest_step else 0


def names_people(photo: Photo) -> bool:
  """Whether a photo's XMP says who is on it, or where their faces are."""
  return xmp.has_people(photo.info.get("xmp", b""))


def _edits(
  photo: Photo, *, cloaked: bool, strip_location: bool, strip_names: bool
) -> Edits:
  height, width = photo.shape
  if photo.how.transpose:
    height, width = width, height
  packet = photo.info.get("xmp", b"") if strip_names else b""
  return Edits(
    cloaked=cloaked,
    how=photo.how,
    width=width,
    height=height,
    strip_location=strip_location,
    strip_names=strip_names,
    names=xmp.names_in(packet),
  )


def refinements(photo: Photo, *, largest_step: int) -> int:
  """How often `encode` can lose less of a change, in larger files.

  The last of lossy WebP and of TIFF with JPEG inside loses nothing.

  Args:
    photo: what `decode` returned.
    largest_step: as in `encode`; without it the tables of a JPEG are the
      user's choice.
  """
  if photo.format == "JPEG":
    return max(0, largest_step.bit_length() - 1)
  return 0 if photo.lossless else rasters.refinements(photo)


def _encode_jpeg(
  photo: Photo,
  patches: Sequence[types.Patch],
  *,
  largest_step: int,
  edits: Edits,
  lost: set[str],
  editor: jpeg.Editor | None,
) -> bytes:
  lost |= segments.name_trailing(photo.source)
  if editor is not None:
    return editor.encode(
      patches, largest_step=largest_step, edits=edits, lost=lost
    )
  return rasters.encode_jpeg(
    photo,
    segments.parse(photo.source),
    patches,
    largest_step=largest_step,
    edits=edits,
    lost=lost,
  )


def _with_end(data: bytes, max_pixels: int) -> bytes:
  """A JPEG with its end; what lacks more than that is truncated."""
  try:
    several = jpeg.completions(data)
  except (LookupError, ValueError, struct.error):
    return data  # Damaged: the decoder says how.
  if not several:
    return data
  pictures = set()
  with quiet_pillow():
    for one in several:
      with Image.open(io.BytesIO(one)) as image:
        _check_header(image, one, max_pixels=max_pixels)
        pictures.add(image.tobytes())
  if len(pictures) > 1:
    raise types.PhotoError("truncated: the picture ends early")
  return several[0]


def _quiet(data: bytes) -> contextlib.AbstractContextManager:
  """What silences libtiff, for a TIFF file."""
  is_tiff = data.startswith((b"II", b"MM"))
  return quiet_natives() if is_tiff else contextlib.nullcontext()


def _open(data: bytes) -> ImageFile.ImageFile:
  if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
    _register_heic()
  return Image.open(io.BytesIO(data))


def _register_heic() -> None:
  try:
    import pillow_heif
  except ImportError as error:
    raise types.PhotoError(
      "HEIC needs the extra heic: pip install 'fawkes-jax[heic]'"
    ) from error
  pillow_heif.register_heif_opener(thumbnails=False)


def _check_header(
  image: ImageFile.ImageFile, data: bytes, *, max_pixels: int
) -> None:
  kind = _kind(image)
  if image.width * image.height > max_pixels:
    raise types.PhotoError(
      f"{image.width} x {image.height} is more than {max_pixels} pixels, the"
      " limit against decompression bombs (--max_pixels)"
    )
  if kind not in _FORMATS:
    # Targa has no mark at its start: other files look like it.
    other = kind == "TGA" and not data.endswith(b"TRUEVISION-XFILE.\0")
    error = types.OtherFileError if other else types.UnsupportedError
    raise error(_REFUSED.get(kind, f"the format {kind} is not supported"))
  if kind != "JPEG" and getattr(image, "n_frames", 1) > 1:
    raise types.UnsupportedError("animated or multi-page: more than one frame")
  if _bits(image, data) > 8:
    raise types.UnsupportedError(
      "more than 8 bits per sample are not supported"
    )
  if image.mode not in _MODES:
    mode = image.mode.split(";")[0]
    raise types.UnsupportedError(
      _REFUSED_MODES.get(mode, f"the mode {image.mode} is not supported")
    )


def _kind(image: Image.Image) -> str:
  kind = image.format or "unknown"
  return {"MPO": "JPEG", "DIB": "BMP"}.get(kind, kind)


def _bits(image: Image.Image, data: bytes) -> int:
  """Bits per sample in the file, where Pillow's mode would not tell."""
  if image.format == "PNG":
    return data[24]
  if isinstance(image, TiffImagePlugin.TiffImageFile):
    return max(image.tag_v2.get(258, (1,)))
  return image.info.get("bit_depth", 8)


def turned(image: Image.Image) -> orientation.Orientation:
  """How the stored picture is turned upright; HEIC's decoder did it."""
  if image.format == "HEIF":
    return orientation.Orientation()
  with contextlib.suppress(*_DAMAGE):
    value = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation.orientation(value)
  return orientation.Orientation()


def _info(image: Image.Image, data: bytes) -> dict:
  """What goes along with the pixels."""
  names = "exif", "icc_profile", "xmp", "dpi", "compression"
  info = {n: image.info[n] for n in names if image.info.get(n)}
  if isinstance(info.get("xmp"), str):
    info["xmp"] = info["xmp"].encode()
  if image.format == "TIFF" and (predictor := tiff.predictor(data)):
    info["predictor"] = predictor
  if image.format == "HEIF":
    info["lost"] = heif.lost_parts(image.info, data)
  return info


def _photo(
  image: Image.Image,
  data: bytes,
  *,
  how: orientation.Orientation,
  info: dict,
) -> Photo:
  kind = _kind(image)
  turn = orientation.Orientation() if kind == "TIFF" else how
  width, height = image.size  # Pillow has already turned a TIFF.
  tables, subsampling = None, None
  if kind == "JPEG":
    tables, subsampling = _jpeg_facts(data, how)
  return Photo(
    shape=(width, height) if turn.transpose else (height, width),
    load=lambda: _layers(image, turn),
    grey=_is_grey(image),
    jpeg_tables=tables,
    subsampling=subsampling,
    format=kind,
    how=how,
    lossless=_is_lossless(kind, data, info),
    palette=image.mode in ("P", "PA"),
    info=info,
    source=data,
  )


def _is_grey(image: Image.Image) -> bool:
  return image.mode in ("L", "LA")


def _layers(
  image: Image.Image, how: orientation.Orientation
) -> tuple[np.ndarray, np.ndarray | None]:
  """The colours [h, w, 3] and the alpha [h, w] of a picture, turned upright."""
  colour = "L" if _is_grey(image) else "RGB"
  alpha = None
  if image.has_transparency_data:
    layers = _array(image.convert(colour + "A"))
    alpha = orientation.upright_pixels(layers[..., -1], how)
    colours = layers[..., 0] if colour == "L" else layers[..., :3]
  else:
    colours = _array(image if image.mode == colour else image.convert(colour))
  colours = orientation.upright_pixels(colours, how)
  if colour == "L":
    colours = np.repeat(colours[..., np.newaxis], 3, axis=2)
  return colours, alpha


def _array(image: Image.Image) -> np.ndarray:
  """A picture's samples, which Pillow would hold three times on the way."""
  width, height = image.size
  shape = (height, width, len(image.getbands()))
  out = np.empty(shape if shape[2] > 1 else shape[:2], np.uint8)
  for top in range(0, height, _STRIP):
    bottom = min(top + _STRIP, height)
    out[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
  return out


def _is_lossless(kind: str, data: bytes, info: dict) -> bool:
  if kind == "WEBP":
    return webp.is_lossless(data)
  if kind == "TIFF":
    return info.get("compression") not in ("jpeg", "tiff_jpeg", "webp")
  return kind in ("PNG", "BMP")


def _jpeg_facts(
  data: bytes, how: orientation.Orientation
) -> tuple[np.ndarray | None, str | None]:
  """Quantisation tables and subsampling, as the upright photo has them."""
  header = segments.parse(data)
  by_number = segments.quantisation_tables(header)
  tables = [by_number[number] for number in header.table_numbers]
  if not all(table.all() for table in tables):
    raise types.PhotoError("corrupted: a quantisation step of 0")
  if len(tables) not in (1, 3):
    return None, None
  pair = np.stack([tables[0], tables[1] if len(tables) == 3 else tables[0]])
  if how.transpose:
    pair = pair.swapaxes(1, 2)
  subsampling = None
  if len(tables) == 3:
    luma, cb, cr = header.sampling
    factors = luma[::-1] if how.transpose else luma
    regular = cb == cr == (1, 1)
    subsampling = _SUBSAMPLINGS.get(factors, "other") if regular else "other"
  return np.ascontiguousarray(pair), subsampling
