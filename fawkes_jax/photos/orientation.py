"""EXIF orientations of pixel arrays and of blocks of DCT coefficients.

An orientation is applied as a transposition followed by flips; the eight
values are those of the EXIF standard (tag 0x0112), and the upright picture is
the one that `PIL.ImageOps.exif_transpose` gives.
"""

import dataclasses

import numpy as np

from fawkes_jax import types


@dataclasses.dataclass(frozen=True, kw_only=True)
class Orientation:
  """How a stored picture is turned upright.

  Attributes:
    transpose: rows become columns; done first.
    flip_columns: left and right are swapped, after the transposition.
    flip_rows: top and bottom are swapped, after the transposition.
  """

  transpose: bool = False
  flip_columns: bool = False
  flip_rows: bool = False


_ORIENTATIONS = {
  2: Orientation(flip_columns=True),
  3: Orientation(flip_columns=True, flip_rows=True),
  4: Orientation(flip_rows=True),
  5: Orientation(transpose=True),
  6: Orientation(transpose=True, flip_columns=True),
  7: Orientation(transpose=True, flip_columns=True, flip_rows=True),
  8: Orientation(transpose=True, flip_rows=True),
}


def orientation(value: int) -> Orientation:
  """The orientation of an EXIF value; unknown values mean upright."""
  return _ORIENTATIONS.get(value, Orientation())


def upright_pixels(pixels: np.ndarray, how: Orientation) -> np.ndarray:
  """Turns an array [height, width, ...] upright; a contiguous array."""
  if how.transpose:
    pixels = pixels.swapaxes(0, 1)
  if how.flip_columns:
    pixels = pixels[:, ::-1]
  if how.flip_rows:
    pixels = pixels[::-1]
  return np.ascontiguousarray(pixels)


def stored_patch(
  patch: types.Patch, how: Orientation, shape: tuple[int, int]
) -> types.Patch:
  """A change of the upright picture as one of the stored picture.

  Args:
    patch: inside the upright picture.
    how: the orientation.
    shape: height and width of the stored picture.
  """
  height, width = shape[::-1] if how.transpose else shape
  left, top, right, bottom = patch.box
  change = patch.change
  if how.flip_rows:
    change, top = change[::-1], height - bottom
  if how.flip_columns:
    change, left = change[:, ::-1], width - right
  if how.transpose:
    change, left, top = change.swapaxes(0, 1), top, left
  return types.Patch(left=left, top=top, change=change)


def stored_box(
  box: tuple[int, int, int, int], how: Orientation, shape: tuple[int, int]
) -> tuple[int, int, int, int]:
  """A box of the upright picture as one of the stored picture.

  Args:
    box: left, top, right and bottom.
    how: the orientation.
    shape: height and width of the stored picture.
  """
  height, width = shape[::-1] if how.transpose else shape
  left, top, right, bottom = box
  if how.flip_rows:
    top, bottom = height - bottom, height - top
  if how.flip_columns:
    left, right = width - right, width - left
  if how.transpose:
    left, top, right, bottom = top, left, bottom, right
  return left, top, right, bottom


def upright_blocks(blocks: np.ndarray, how: Orientation) -> np.ndarray:
  """Turns blocks of DCT coefficients upright without any loss.

  A transposed block has transposed coefficients; a flipped one has the odd
  frequencies along the flipped axis negated.

  Args:
    blocks: integers [rows, columns, 8, 8], vertical frequency before
      horizontal; the picture fills them entirely along an axis that is
      flipped.
    how: the orientation.

  Returns:
    The same dtype, rows and columns swapped where `how` transposes.
  """
  if how.transpose:
    blocks = blocks.transpose(1, 0, 3, 2)
  signs = np.array([1, -1] * 4, dtype=blocks.dtype)
  if how.flip_columns:
    blocks = blocks[:, ::-1] * signs
  if how.flip_rows:
    blocks = blocks[::-1] * signs[:, np.newaxis]
  return np.ascontiguousarray(blocks)
