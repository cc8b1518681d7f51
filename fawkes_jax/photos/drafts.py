"""Photos with changes, looked at before they are files.

How strong a change may be is found by trying. A try needs to know what the
faces' part of the file will be decoded to, and nothing else: of a JPEG a few
blocks are computed, of a format that loses nothing the pixels are known; only
the others are encoded as a whole and decoded again. `read_back` asks the
decoder what has really become of the file in the end, once.
"""

import io
import struct
from collections.abc import Sequence

import numpy as np
from PIL import Image

from fawkes_jax import types
from fawkes_jax.photos import codec, jpeg, orientation, rasters, segments
from fawkes_jax.photos.photo import Photo
from fawkes_jax.photos.quiet import quiet_pillow
from fawkes_jax.photos.regions import Box


class Draft:
  """A photo to which changes are added, as long as it is no file."""

  def __init__(
    self,
    photo: Photo,
    *,
    largest_step: int,
    strip_location: bool,
    strip_names: bool,
    max_pixels: int,
  ):
    """Reads the coefficients of a JPEG.

    Args:
      photo: what `codec.decode` or `codec.reopen` returned.
      largest_step: see `codec.encode`.
      strip_location: see there.
      strip_names: see there.
      max_pixels: see `codec.decode`.

    Raises:
      types.PhotoError: the coefficients cannot be read.
    """
    self._photo = photo
    self._largest_step = largest_step
    self._strips = {
      "strip_location": strip_location,
      "strip_names": strip_names,
    }
    self._max_pixels = max_pixels
    self._editor = codec.open_editor(photo)

  def preview(
    self,
    patches: Sequence[types.Patch],
    boxes: Sequence[Box],
    *,
    finer: int = 0,
  ) -> list[np.ndarray]:
    """What parts of the photo are decoded to, once it is encoded.

    Args:
      patches: the changes.
      boxes: of the parts, inside the photo.
      finer: see `codec.encode`.

    Returns:
      uint8 [h, w, 3] each.

    Raises:
      types.PhotoError: the photo cannot be written.
    """
    if self._editor is not None:
      step = codec.jpeg_step(self._largest_step, finer)
      return self._editor.preview(patches, boxes, largest_step=step)
    if not any(np.any(patch.change) for patch in patches):
      return _cut(self._photo.pixels, boxes)
    if self._photo.lossless:
      return _cut(rasters.changed(self._photo, patches), boxes)
    data = self.encode(patches, finer=finer)
    return read_back(data, boxes, max_pixels=self._max_pixels)

  def encode(
    self,
    patches: Sequence[types.Patch],
    *,
    finer: int = 0,
    lost: set[str] | None = None,
  ) -> bytes:
    """The photo's file, see `codec.encode`."""
    return codec.encode(
      self._photo,
      patches,
      largest_step=self._largest_step,
      lost=lost,
      finer=finer,
      editor=self._editor,
      **self._strips,
    )


def parts(
  photo: Photo, boxes: Sequence[Box], *, max_pixels: int
) -> list[np.ndarray]:
  """Parts of a photo; of a JPEG not all else is decoded.

  Args:
    photo: what `codec.reopen` or `codec.decode` returned.
    boxes: left, top, right and bottom of the parts.
    max_pixels: see `codec.decode`.

  Returns:
    uint8 [h, w, 3] each.

  Raises:
    types.PhotoError: it cannot be decoded.
  """
  if photo.format == "JPEG":
    return read_back(photo.source, boxes, max_pixels=max_pixels)
  return _cut(photo.pixels, boxes)


def read_back(
  data: bytes, boxes: Sequence[Box], *, max_pixels: int
) -> list[np.ndarray]:
  """What parts of a file are decoded to.

  Args:
    data: a whole file of which `codec.decode` makes, or has made, a photo.
    boxes: left, top, right and bottom of the parts, upright.
    max_pixels: see `codec.decode`.

  Returns:
    uint8 [h, w, 3] each.

  Raises:
    types.PhotoError: it cannot be decoded.
  """
  try:
    with quiet_pillow():
      found = _shortly_decoded(data, boxes)
  except (OSError, SyntaxError, ValueError, LookupError, struct.error):
    found = None  # Damaged: `codec.decode` says how, or knows what to do.
  if found is None:
    return _cut(codec.decode(data, max_pixels=max_pixels).pixels, boxes)
  return found


def _cut(pixels: np.ndarray, boxes: Sequence[Box]) -> list[np.ndarray]:
  return [pixels[top:bottom, left:right] for left, top, right, bottom in boxes]


def _shortly_decoded(
  data: bytes, boxes: Sequence[Box]
) -> list[np.ndarray] | None:
  """Parts of a JPEG, of which what is below them is not decoded.

  A decoder that is told of fewer rows decodes no more of a single scan. Chroma
  looks one row further, so a row of coding units more is left.

  Args:
    data: the file.
    boxes: of the parts, upright.

  Returns:
    The parts; None where that is not to be had.
  """
  if not data.startswith(b"\xff\xd8\xff"):
    return None
  header = segments.parse(data)
  if header.frame not in (0xC0, 0xC1) or not _is_one_scan(data, header):
    return None
  with Image.open(io.BytesIO(data)) as image:
    how = codec.turned(image)
  size = header.height, header.width
  stored = [orientation.stored_box(box, how, size) for box in boxes]
  unit = 8 * max(v for v, _ in header.sampling)
  bottom = max(bottom for _, _, _, bottom in stored)
  height = unit * (-(-bottom // unit) + 1)
  if height < header.height:
    data = _with_height(data, header, height)
  with Image.open(io.BytesIO(jpeg.with_end(data))) as image:
    return [
      orientation.upright_pixels(
        np.asarray(image.crop(box).convert("RGB")), how
      )
      for box in stored
    ]


def _is_one_scan(data: bytes, header: segments.Header) -> bool:
  """Whether the first scan of a file has all of its components."""
  marker = data.index(b"\xda", header.scan_offset)
  return data[marker + 3] == len(header.ids)


def _with_height(data: bytes, header: segments.Header, height: int) -> bytes:
  """A JPEG that says that it is so many rows high."""
  [frame] = [s for s in header.segments if s.marker == header.frame]
  position = data.rindex(frame.to_bytes(), 0, header.scan_offset)
  position += 5  # Behind the marker, the length and the precision.
  return data[:position] + struct.pack(">H", height) + data[position + 2 :]
