"""Operators that change the size of images: a linear map of each axis."""

import math

import jax.numpy as jnp
import numpy as np

from fawkes_jax.models.onnx.calls import Call, Operators
from fawkes_jax.models.onnx.values import (
  Image,
  Value,
)

OPERATORS = Operators()


def _source(call: Call, size: int, output: int, scale: float) -> np.ndarray:
  """Where in an axis each pixel of the resized axis lies."""
  mode = call.get(
    "coordinate_transformation_mode",
    "half_pixel" if call.opset >= 11 else "asymmetric",
  )
  x = np.arange(output, dtype=np.float64)
  if mode == "half_pixel" or (mode == "pytorch_half_pixel" and output > 1):
    return (x + 0.5) / scale - 0.5
  if mode == "asymmetric":
    return x / scale
  if mode == "align_corners" and output > 1:
    return x * (size - 1) / (output - 1)
  if mode in ("align_corners", "pytorch_half_pixel"):
    return x * 0
  raise call.error(f"must not transform coordinates by {mode}")


def _resize_matrix(
  call: Call, size: int, output: int, scale: float
) -> np.ndarray:
  """The linear map [output, size] of nearest or linear resizing."""
  source = _source(call, size, output, scale)
  mode = call.get("mode", "nearest")
  if mode == "nearest":
    rounding = call.get(
      "nearest_mode", "round_prefer_floor" if call.opset >= 11 else "floor"
    )
    if rounding == "round_prefer_floor":
      index = np.ceil(source - 0.5)
    elif rounding == "round_prefer_ceil":
      index = np.floor(source + 0.5)
    else:
      index = np.floor(source) if rounding == "floor" else np.ceil(source)
    index = np.clip(index, 0, size - 1).astype(int)
    return np.eye(size, dtype=np.float32)[index]
  if mode != "linear" or call.get("antialias", 0):
    raise call.error(f"must be nearest or linear without antialias, got {mode}")
  source = np.clip(source, 0, size - 1)
  distance = np.abs(source[:, None] - np.arange(size))
  return np.maximum(1 - distance, 0).astype(np.float32)


@OPERATORS.named("Resize", "Upsample")
def _resize(call: Call, x: Value, *rest: Value) -> Image:
  image = call.image(x)
  own = image.shape[1:3]
  at = 1 if call.node.op == "Resize" and call.opset >= 11 else 0
  scales = call.parameter("scales", rest, at)
  sizes = call.parameter("sizes", rest, 2)
  if call.get("keep_aspect_ratio_policy", "stretch") != "stretch" or (
    call.get("axes", (0, 1, 2, 3)) != (0, 1, 2, 3)
  ):
    raise call.error("must stretch all four axes")
  if sizes:
    output = sizes[2:]
    ratio = [new / old for new, old in zip(output, own, strict=True)]
  else:
    ratio = scales[2:]
    output = [math.floor(o * r) for o, r in zip(own, ratio, strict=True)]
  rows, columns = (
    _resize_matrix(call, own[i], output[i], ratio[i]).astype(image.dtype)
    for i in (0, 1)
  )
  tall = jnp.einsum("oh,nhwc->nowc", rows, image)
  return Image(jnp.einsum("pw,nowc->nopc", columns, tall))
