"""Structural dissimilarity, differentiable and cheap inside an optimiser.

The same quantity as `dm_pix.ssim` (Wang et al. 2004: Gaussian window of 11
pixels and sigma 1.5, k1 = 0.01, k2 = 0.03, the mean over channels), written for
many evaluations against one original: the original's moments are computed
once, and the moments of the change are filtered instead of those of the
changed image, which also keeps float32 exact near zero change.

DSSIM = (1 - SSIM) / 2, in 0..1; the Fawkes paper's |delta|.
"""

from typing import NamedTuple

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

WINDOW = 11
_SIGMA = 1.5
_ROWS = 32
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2


class Moments(NamedTuple):
  """What the comparison needs of the original: float32 [3, w', h'] each.

  w' = width - 10 and h' = height - 10: only full windows count. Channels come
  first and columns before rows, as `_filter` leaves them.

  Attributes:
    mean: the local mean.
    variance: the local variance.
    weights: [w', h']; how much each window counts.
  """

  mean: jax.Array
  variance: jax.Array
  weights: jax.Array


@jax.jit
def moments(
  original: Float32[Array, "height width 3"],
  weights: Float32[Array, "height width"],
) -> Moments:
  """The part of the comparison that depends on the original alone.

  Args:
    original: values in 0..255; height and width at least 11.
    weights: how much each pixel's window counts, at least 0; the border of 5
      pixels, where no full window is centred, does not count. Weights that
      sum to 1 give a mean.

  Returns:
    The moments to give to `dssim`.

  Raises:
    ValueError: the image is smaller than the window.
  """
  if min(original.shape[:2]) < WINDOW:
    raise ValueError(
      f"DSSIM needs images of at least {WINDOW} x {WINDOW} pixels,"
      f" got {original.shape[1]} x {original.shape[0]}"
    )
  planes = jnp.moveaxis(original, -1, 0)
  mean = _filter(planes)
  variance = jnp.maximum(_filter(planes * planes) - mean * mean, 0)
  return Moments(mean, variance, _inner(weights).T / 3)


def dssim(
  original: Float32[Array, "height width 3"],
  change: Float32[Array, "height width 3"],
  known: Moments,
) -> Float32[Array, ""]:
  """The structural dissimilarity of an image and its changed version.

  Args:
    original: values in 0..255.
    change: what is added to it; original + change should be in 0..255.
    known: `moments` of the original.

  Returns:
    DSSIM, in 0..1 for weights that sum to 1; 0 for no change, with a gradient
    of zero there.
  """
  old, new = jnp.moveaxis(original, -1, 0), jnp.moveaxis(change, -1, 0)
  # Each by itself: a stack of three costs a quarter more on a CPU.
  shift, product, square = _filter(new), _filter(old * new), _filter(new * new)
  mean = known.mean + shift
  covariance = product - known.mean * shift
  variance = square - shift * shift
  luminance = (2 * known.mean * mean + _C1) / (
    known.mean * known.mean + mean * mean + _C1
  )
  structure = (2 * (known.variance + covariance) + _C2) / (
    2 * (known.variance + covariance) + variance + _C2
  )
  return 0.5 * jnp.sum(known.weights * (1 - luminance * structure))


@jax.jit
def compare(
  original: Float32[Array, "height width 3"],
  other: Float32[Array, "height width 3"],
  known: Moments,
) -> Float32[Array, ""]:
  """`dssim` of two images.

  Args:
    original: values in 0..255.
    other: values in 0..255.
    known: `moments` of the original.

  Returns:
    DSSIM, as `dssim` gives it.
  """
  return dssim(original, other - original, known)


def room(known: Moments) -> Float32[Array, "height width 3"]:
  """Where an image has room for changes, and in which channel.

  DSSIM divides the square of a small change by about `2 * variance + C2`:
  structure hides what a smooth place shows. Changes as large as the square
  root of that would cost the same everywhere; these factors are its fourth
  root, half of the way from changes of one size (docs/cloaking.md).

  Args:
    known: `moments` of the image.

  Returns:
    Factors for steps of descent, at least 0, whose mean is 1 over the windows
    that count.
  """
  factors = jnp.sqrt(jnp.sqrt(2 * known.variance + _C2))
  counts = known.weights > 0
  total = jnp.sum(factors.mean(axis=0) * counts)
  factors = factors * jnp.sum(counts) / jnp.maximum(total, 1e-6)
  half = (WINDOW // 2, WINDOW // 2)
  return jnp.pad(factors, ((0, 0), half, half), mode="edge").transpose(2, 1, 0)


@jax.jit
def measure(
  original: Float32[Array, "height width 3"],
  other: Float32[Array, "height width 3"],
  weights: Float32[Array, "height width"],
) -> Float32[Array, ""]:
  """DSSIM of two images by `dm_pix.ssim`, to check the solver's own.

  Args:
    original: values in 0..255.
    other: values in 0..255.
    weights: as in `moments`.

  Returns:
    DSSIM, as `dssim` gives it.
  """
  ssim_map = dm_pix.ssim(
    original,
    other,
    max_val=255.0,
    return_map=True,
    filter_fn=lambda image: jnp.moveaxis(_filter(image.T), 0, -1),
  )
  return 0.5 * jnp.sum(_inner(weights)[..., None] / 3 * (1 - ssim_map))


def _inner(weights: jax.Array) -> jax.Array:
  """Without the border, where no full window is centred."""
  half = WINDOW // 2
  return weights[half:-half, half:-half]


def _kernel() -> np.ndarray:
  """The window along one axis, float32 [11], sums to 1."""
  x = np.arange(WINDOW) - WINDOW // 2
  g = np.exp(-0.5 * (x / _SIGMA) ** 2)
  return (g / g.sum()).astype(np.float32)


@jax.custom_vjp
def _filter(planes: jax.Array) -> jax.Array:
  """Gaussian mean over each full window: [..., h, w] to [..., w', h'].

  Always along the last axis, which costs least; so the two change places.
  """
  return _filter_rows(jnp.swapaxes(_filter_rows(planes), -1, -2))


def _filter_forward(planes: jax.Array) -> tuple[jax.Array, None]:
  return _filter(planes), None


def _filter_backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
  """The window is symmetric: the gradient is filtered like an image."""
  margin = (WINDOW - 1, WINDOW - 1)
  rest = [(0, 0)] * (gradient.ndim - 2)
  return (_filter(jnp.pad(gradient, (*rest, margin, margin))),)


_filter.defvjp(_filter_forward, _filter_backward)


def _filter_rows(planes: jax.Array) -> jax.Array:
  """Gaussian mean along the last axis, as products with a band of a few rows.

  One product with the whole banded matrix, and a sum of shifted images, which
  has the fewest operations, take half as long again on a CPU.
  """
  band = np.zeros((_ROWS + WINDOW - 1, _ROWS), np.float32)
  for i, column in enumerate(band.T):
    column[i : i + WINDOW] = _kernel()
  size = planes.shape[-1] - WINDOW + 1
  parts = []
  for first in range(0, size, _ROWS):
    rows = min(_ROWS, size - first)
    reach = rows + WINDOW - 1
    part = planes[..., first : first + reach]
    parts.append(
      jnp.matmul(part, band[:reach, :rows], precision=jax.lax.Precision.HIGHEST)
    )
  return jnp.concatenate(parts, axis=-1)
