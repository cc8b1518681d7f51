"""Operators that look at windows of images: convolutions and pools."""

import functools
import math
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fawkes_jax.models import layers
from fawkes_jax.models.onnx.calls import Call, Operators
from fawkes_jax.models.onnx.values import (
  Image,
  Value,
  plain,
)

OPERATORS = Operators()


def _pads(
  call: Call, size: Sequence[int], window: Sequence[int], strides: Sequence
) -> list[tuple[int, int]]:
  """Padding before and after of each spatial axis; window is dilated."""
  mode = call.get("auto_pad", "NOTSET")
  if mode == "VALID":
    return [(0, 0)] * len(size)
  if mode in ("SAME_UPPER", "SAME_LOWER"):
    pads = []
    for length, taps, stride in zip(size, window, strides, strict=True):
      total = max((math.ceil(length / stride) - 1) * stride + taps - length, 0)
      small, large = total // 2, total - total // 2
      pads.append((small, large) if mode == "SAME_UPPER" else (large, small))
    return pads
  flat = call.get("pads", (0,) * (2 * len(size)))
  return list(zip(flat[: len(size)], flat[len(size) :], strict=True))


@OPERATORS.named("Conv")
def _conv(call: Call, x: Value, kernel: Value, bias: Value = None) -> Image:
  image = call.image(x)
  kernel = jnp.asarray(plain(kernel), image.dtype).transpose(2, 3, 1, 0)
  strides = call.get("strides", (1, 1))
  dilations = call.get("dilations", (1, 1))
  window = [
    (taps - 1) * dilation + 1
    for taps, dilation in zip(kernel.shape[:2], dilations, strict=True)
  ]
  y = layers.convolve(
    image,
    kernel,
    strides=strides,
    padding=_pads(call, image.shape[1:3], window, strides),
    dilations=dilations,
    groups=call.get("group", 1),
  )
  return Image(y if bias is None else y + bias)


@OPERATORS.named("MaxPool", "AveragePool")
def _pool(call: Call, x: Value) -> Image:
  """The gradients of these are faster than those of XLA's windows."""
  if len(call.node.outputs) > 1:
    raise call.error("must have one output, got indices too")
  image = call.image(x)
  own = image.shape[1:3]
  window = call.get("kernel_shape")
  strides = call.get("strides", (1, 1))
  dilations = call.get("dilations", (1, 1))
  reach = [(k - 1) * d + 1 for k, d in zip(window, dilations, strict=True)]
  pads = _pads(call, own, reach, strides)
  size, over = [], []
  for i in (0, 1):
    free = own[i] + sum(pads[i]) - reach[i]
    up = call.get("ceil_mode", 0)
    steps = -(-free // strides[i]) if up else free // strides[i]
    if steps * strides[i] >= own[i] + pads[i][0]:
      steps -= 1  # The last window must begin before the padding that ends.
    size.append(steps + 1)
    # How far the last window reaches over the image.
    over.append(max(steps * strides[i] + reach[i] - own[i] - pads[i][0], 0))
  places = window, (size[0], size[1]), strides, dilations

  def spread(image: jax.Array, fill: float, after: list[int]) -> jax.Array:
    margins = [(0, 0), (pads[0][0], after[0]), (pads[1][0], after[1]), (0, 0)]
    return jnp.pad(image, margins, constant_values=fill)

  if call.node.op == "MaxPool":
    image = spread(image, -math.inf, over)
    return Image(layers.max_pool(image, window, strides, dilations))
  total = functools.reduce(
    operator.add, layers.windows(spread(image, 0, over), *places)
  )
  # How many pixels each window averages.
  inside = jnp.ones((1, *own, 1), image.dtype)
  if call.get("count_include_pad", 0):
    counted = [min(over[i], pads[i][1]) for i in (0, 1)]
    inside = spread(inside, 1, counted)
    rest = [(0, over[i] - counted[i]) for i in (0, 1)]
    inside = jnp.pad(inside, ((0, 0), *rest, (0, 0)))
  else:
    inside = spread(inside, 0, over)
  return Image(
    total / functools.reduce(operator.add, layers.windows(inside, *places))
  )


@OPERATORS.named("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(call: Call, x: Value) -> Image:
  image = call.image(x)
  pool = jnp.mean if call.node.op == "GlobalAveragePool" else jnp.max
  return Image(pool(image, axis=(1, 2), keepdims=True))
