"""Values on their way through a graph.

One that depends on shapes alone is a numpy array, and what is made of it is
computed in numpy while JAX traces. An image, [n, c, h, w] to the graph, is kept
as [n, h, w, c], and transposed only for an operator that mixes its axes with
others.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Image:
  """A value [n, h, w, c] that the graph knows as [n, c, h, w]."""

  array: jax.Array

  @property
  def shape(self) -> tuple[int, ...]:
    """As the graph knows it."""
    n, height, width, channels = self.array.shape
    return n, channels, height, width


Value = Any
"""np.ndarray when it depends on shapes alone, jax.Array or Image."""


def is_static(*values: Value) -> bool:
  """Whether values depend on shapes alone, as far as they are there."""
  return all(v is None or isinstance(v, np.ndarray) for v in values)


def plain(value: Value) -> Value:
  """A value with its axes in the graph's order."""
  if isinstance(value, Image):
    return value.array.transpose(0, 3, 1, 2)
  return value


def as_image(value: Value) -> Value:
  """A value of at most four axes, to be broadcast with images."""
  if isinstance(value, Image):
    return value.array
  value = value.reshape((1,) * (4 - value.ndim) + value.shape)
  return value.transpose(0, 2, 3, 1)


def elementwise(function: Callable[..., Any], *values: Value) -> Value:
  """Applies a broadcasting function of numpy or JAX to values."""
  if is_static(*values):
    return np.asarray(function(np, *values))
  images = any(isinstance(v, Image) for v in values)
  if images and any(len(v.shape) > 4 for v in values):
    images, values = False, tuple(map(plain, values))
  if images:
    values = tuple(map(as_image, values))
  traced = [v for v in values if not isinstance(v, np.ndarray)]
  floats = [v.dtype for v in traced if jnp.issubdtype(v.dtype, jnp.floating)]
  if floats:
    # A constant does not change the type of the computation.
    values = tuple(
      v.astype(floats[0])
      if isinstance(v, np.ndarray) and v.dtype.kind == "f"
      else v
      for v in values
    )
  result = function(jnp, *values)
  return Image(result) if images else result
