"""How a recogniser sees the aligned crop, differentiably.

A tracker does not read the crop that the solver works on: the photo is saved,
and its JPEG quantisation swallows fine detail; the tracker's own detector finds
the face a little differently; it resizes the face to its own input. These
functions do the same to one face inside the optimisation, and cost little
beside an extractor. `vmap` them for batches.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

from fawkes_jax.imaging import geometry

# RGB to Y, Cb, Cr without offsets, as in JFIF, and back.
_TO_YCC = np.array(
  [
    (0.299, 0.587, 0.114),
    (-0.168735892, -0.331264108, 0.5),
    (0.5, -0.418687589, -0.081312411),
  ],
  np.float32,
)
_TO_RGB = np.linalg.inv(_TO_YCC.astype(np.float64)).astype(np.float32)


def _dct_matrix() -> np.ndarray:
  """The orthonormal DCT-II of 8 samples, [frequency, sample]."""
  k, n = np.mgrid[:8, :8]
  rows = np.cos(np.pi * (2 * n + 1) * k / 16) * 0.5
  rows[0] /= np.sqrt(2)
  return rows.astype(np.float32)


_DCT = _dct_matrix()

# How differently two recognisers' landmarks align one face: the standard
# deviations between dlib's five points and ArcFace's over 5,384 faces.
SHIFT_SPREAD = 0.015  # In sides of the template, along x and y.
ZOOM_SPREAD = 0.055  # Of the logarithm of the scale.
TURN_SPREAD = 0.07  # In radians.


def template_view(
  crop: Float32[Array, "size size 3"],
  side: Float32[Array, ""],
  template: geometry.Template,
  output: int,
  *,
  shift: Float32[Array, "2"],
  zoom: Float32[Array, ""],
  blur: Float32[Array, ""],
) -> Float32[Array, "output output 3"]:
  """An aligned crop as an extractor sees it, through its template.

  Resizing and moving are one separable linear map, two small matrix products:
  linear interpolation, with an anti-aliasing filter where the face shrinks.

  Args:
    crop: the aligned crop, in the upper left `side` x `side` pixels.
    side: how many pixels of the array's side the crop takes.
    template: the square of the face frame that the extractor looks at.
    output: the extractor's input size in pixels.
    shift: x and y by which the template moves, in units of its side.
    zoom: by which factor its side grows.
    blur: the half width of the triangle that a pixel of the output averages
      over, in pixels of the output; at least 1, which is linear interpolation.

  Returns:
    The extractor's input; what lies outside the crop is black.
  """
  left, top, width = geometry.CROP.zoom(template)
  centre = jnp.array([left, top]) + width * (0.5 + shift)
  start = (centre - 0.5 * width * zoom) * side
  step = width * zoom * side / output
  rows = _resample_matrix(start[1], step, crop.shape[0], output, side, blur)
  columns = _resample_matrix(start[0], step, crop.shape[1], output, side, blur)
  tall = jnp.einsum("oh,hwc->owc", rows, crop)
  return jnp.einsum("pw,owc->opc", columns, tall)


@jax.custom_vjp
def turn(
  crop: Float32[Array, "size size 3"],
  side: Float32[Array, ""],
  angle: Float32[Array, ""],
) -> Float32[Array, "size size 3"]:
  """An aligned crop turned around its centre, each pixel moved as a whole.

  Three shears make a rotation ("A Fast Algorithm for General Raster Rotation",
  Paeth, 1986); rounded to whole pixels each is a permutation, so that the
  gradient is the turn back. What leaves the array on one side comes in on the
  other, which is for small angles only.

  Args:
    crop: the aligned crop, in the upper left `side` x `side` pixels.
    side: how many pixels of the array's side the crop takes.
    angle: in radians, clockwise on the screen.

  Returns:
    The turned crop; a pixel is off by at most 1.5 pixels.
  """
  return _permuted(crop, side, angle, back=False)


def _turn_forward(crop, side, angle):
  return turn(crop, side, angle), (side, angle)


def _turn_backward(kept, gradient):
  side, angle = kept
  zero = jnp.zeros_like(side)
  return _permuted(gradient, side, angle, back=True), zero, zero


turn.defvjp(_turn_forward, _turn_backward)


def _permuted(
  crop: jax.Array, side: jax.Array, angle: jax.Array, *, back: bool
) -> jax.Array:
  """Takes each pixel from where three shears, or their inverse, say."""
  size = crop.shape[0]
  centre = (side - 1) / 2
  y, x = jnp.mgrid[:size, :size]
  # Where a pixel of the turned image was before: the rotation by -angle.
  slants = (jnp.tan(angle / 2), -jnp.sin(angle), jnp.tan(angle / 2))
  sign = -1 if back else 1
  for axis, slant in enumerate(slants):
    if axis == 1:
      move = jnp.round(slant * (x - centre)).astype(jnp.int32)
      y = (y + sign * move) % size
    else:
      move = jnp.round(slant * (y - centre)).astype(jnp.int32)
      x = (x + sign * move) % size
  return crop.reshape(-1, 3)[(y * size + x).ravel()].reshape(crop.shape)


def still_view(
  crop: Float32[Array, "size size 3"],
  side: Float32[Array, ""],
  template: geometry.Template,
  output: int,
) -> Float32[Array, "output output 3"]:
  """`template_view` of the template exactly where it is."""
  one = jnp.float32(1)
  return template_view(
    crop, side, template, output, shift=jnp.zeros(2), zoom=one, blur=one
  )


def _resample_matrix(
  start: jax.Array,
  step: jax.Array,
  size: int,
  output: int,
  side: jax.Array,
  blur: jax.Array,
) -> jax.Array:
  """Weights [output, size] of linear, anti-aliased resampling on one axis."""
  centre = start + (jnp.arange(output) + 0.5) * step - 0.5
  reach = jnp.maximum(step, 1) * blur
  source = jnp.arange(size)
  distance = jnp.abs(source[None, :] - centre[:, None]) / reach
  weights = jnp.maximum(1 - distance, 0)
  weights = weights / jnp.maximum(weights.sum(axis=1, keepdims=True), 1e-6)
  # Nothing lies outside the crop: not to be normalised away, but black.
  return weights * (source < side)


def quantise(
  change: Float32[Array, "size size 3"],
  tables: Float32[Array, "2 8 8"],
  offset: Int32[Array, "2"],
) -> Float32[Array, "size size 3"]:
  """What is left of a change after a JPEG is saved with its own tables.

  The coefficients of a JPEG are whole multiples of its quantisation steps.
  Saved with the same tables, a changed photo keeps the nearest multiples of
  the change's coefficients, whatever the photo is. Chroma is subsampled by
  two. The gradient passes straight through.

  Args:
    change: in units of 0..255; size is a multiple of 16.
    tables: the quantisation steps of luma and chroma, at least 1, vertical
      frequency before horizontal.
    offset: y and x by which the grid of blocks is shifted, 0..15.

  Returns:
    The change after saving.
  """
  moved = jnp.roll(jax.lax.stop_gradient(change), offset, axis=(0, 1))
  ycc = moved @ _TO_YCC.T
  half = change.shape[0] // 2
  luma = _quantise_plane(ycc[..., :1], tables[0])
  small = ycc[..., 1:].reshape(half, 2, half, 2, 2).mean(axis=(1, 3))
  small = _quantise_plane(small, tables[1])
  chroma = jnp.repeat(jnp.repeat(small, 2, axis=0), 2, axis=1)
  saved = jnp.concatenate([luma, chroma], axis=-1) @ _TO_RGB.T
  saved = jnp.roll(saved, -offset, axis=(0, 1))
  return change + (saved - jax.lax.stop_gradient(change))


def _quantise_plane(plane: jax.Array, table: jax.Array) -> jax.Array:
  """Rounds the DCT coefficients of 8x8 blocks to multiples of a table."""
  height, width, channels = plane.shape
  blocks = plane.reshape(height // 8, 8, width // 8, 8, channels)
  steps = table[None, :, None, :, None]
  spectrum = jnp.einsum("ui,vj,aibjc->aubvc", _DCT, _DCT, blocks)
  spectrum = jnp.round(spectrum / steps) * steps
  blocks = jnp.einsum("ui,vj,aubvc->aibjc", _DCT, _DCT, spectrum)
  return blocks.reshape(height, width, channels)
