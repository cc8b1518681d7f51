"""How a recogniser sees the aligned crop, differentiably.

A tracker does not read the crop that the solver works on: its own detector
finds the face a little differently, and it resizes the face to its own input.
This does the same to one face inside the optimisation, as a linear map that
costs little beside an extractor. `vmap` it for batches.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from fawkes_jax.imaging import geometry


def template_view(
  crop: Float32[Array, "size size 3"],
  side: Float32[Array, ""],
  template: geometry.Template,
  output: int,
  *,
  shift: Float32[Array, "2"],
  zoom: Float32[Array, ""],
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

  Returns:
    The extractor's input; what lies outside the crop is black.
  """
  left, top, width = geometry.CROP.zoom(template)
  centre = jnp.array([left, top]) + width * (0.5 + shift)
  start = (centre - 0.5 * width * zoom) * side
  step = width * zoom * side / output
  rows = _resample_matrix(start[1], step, crop.shape[0], output, side)
  columns = _resample_matrix(start[0], step, crop.shape[1], output, side)
  tall = jnp.einsum("oh,hwc->owc", rows, crop)
  return jnp.einsum("pw,owc->opc", columns, tall)


def still_view(
  crop: Float32[Array, "size size 3"],
  side: Float32[Array, ""],
  template: geometry.Template,
  output: int,
) -> Float32[Array, "output output 3"]:
  """`template_view` of the template exactly where it is."""
  return template_view(
    crop, side, template, output, shift=jnp.zeros(2), zoom=jnp.float32(1)
  )


def _resample_matrix(
  start: jax.Array,
  step: jax.Array,
  size: int,
  output: int,
  side: jax.Array,
) -> jax.Array:
  """Weights [output, size] of linear, anti-aliased resampling on one axis."""
  centre = start + (jnp.arange(output) + 0.5) * step - 0.5
  reach = jnp.maximum(step, 1)
  source = jnp.arange(size)
  distance = jnp.abs(source[None, :] - centre[:, None]) / reach
  weights = jnp.maximum(1 - distance, 0)
  weights = weights / jnp.maximum(weights.sum(axis=1, keepdims=True), 1e-6)
  # Nothing lies outside the crop: not to be normalised away, but black.
  return weights * (source < side)
