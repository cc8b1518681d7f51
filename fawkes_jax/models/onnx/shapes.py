"""Operators that ask for shapes, make arrays, and move elements about."""

import math

import jax.numpy as jnp
import numpy as np

from fawkes_jax.models.onnx.calls import Call, Operators
from fawkes_jax.models.onnx.values import (
  Image,
  Value,
  is_static,
  plain,
)

OPERATORS = Operators()


@OPERATORS.named("Shape")
def _shape(call: Call, x: Value) -> np.ndarray:
  return np.array(x.shape[call.get("start", 0) : call.get("end")], np.int64)


@OPERATORS.named("Size")
def _size(call: Call, x: Value) -> np.ndarray:
  return np.array(math.prod(x.shape), np.int64)


@OPERATORS.named("Constant")
def _constant(call: Call) -> np.ndarray:
  for key, kind in (
    ("value_float", np.float32),
    ("value_floats", np.float32),
    ("value_int", np.int64),
    ("value_ints", np.int64),
  ):
    value = call.get(key)
    if value is not None:
      return np.array(value, kind)
  raise call.error("must hold a tensor or numbers")


@OPERATORS.named("ConstantOfShape")
def _constant_of_shape(call: Call, shape: Value) -> np.ndarray:
  value = call.get("value")
  fill = np.float32(0) if value is None else value.array().reshape(())
  return np.full(call.static(shape, "shape").tolist(), fill)


@OPERATORS.named("Range")
def _range(call: Call, *bounds: Value) -> np.ndarray:
  start, stop, step = (call.static(b, "bounds") for b in bounds)
  numbers = np.arange(start.item(), stop.item(), step.item())
  return numbers.astype(start.dtype)


@OPERATORS.named("Reshape")
def _reshape(call: Call, x: Value, shape: Value) -> Value:
  x = plain(x)
  sizes = call.static(shape, "shape").tolist()
  if not call.get("allowzero", 0):
    sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
  return x.reshape(sizes)


@OPERATORS.named("Flatten")
def _flatten(call: Call, x: Value) -> Value:
  x, axis = plain(x), call.get("axis", 1)
  axis = axis + x.ndim if axis < 0 else axis
  return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@OPERATORS.named("Transpose")
def _transpose(call: Call, x: Value) -> Value:
  x = plain(x)
  order = call.get("perm", tuple(reversed(range(x.ndim))))
  if order == (0, 3, 1, 2) and not is_static(x):
    return Image(x)
  return x.transpose(order)


@OPERATORS.named("Squeeze")
def _squeeze(call: Call, x: Value, *rest: Value) -> Value:
  axes = call.parameter("axes", rest, 0)
  x = plain(x)
  return x.squeeze(None if axes is None else tuple(np.atleast_1d(axes)))


@OPERATORS.named("Unsqueeze")
def _unsqueeze(call: Call, x: Value, *rest: Value) -> Value:
  axes = call.parameter("axes", rest, 0)
  x = plain(x)
  return (np if is_static(x) else jnp).expand_dims(
    x, tuple(np.atleast_1d(axes).tolist())
  )


@OPERATORS.named("Concat")
def _concat(call: Call, *values: Value) -> Value:
  axis = call.get("axis")
  if is_static(*values):
    return np.concatenate(values, axis)
  if all(isinstance(v, Image) for v in values):
    last = (0, 3, 1, 2)[axis % 4]
    return Image(jnp.concatenate([v.array for v in values], last))
  return jnp.concatenate([plain(v) for v in values], axis)


@OPERATORS.named("Split")
def _split(call: Call, x: Value, *rest: Value) -> tuple[Value, ...]:
  axis = call.get("axis", 0) % len(x.shape)
  sizes = call.parameter("split", rest, 0)
  if not sizes:
    count = len(call.node.outputs)
    each = -(-x.shape[axis] // count)
    sizes = [each] * (count - 1) + [x.shape[axis] - each * (count - 1)]
  ends = np.cumsum(sizes)[:-1].tolist()
  if isinstance(x, Image):
    last = (0, 3, 1, 2)[axis]
    return tuple(map(Image, jnp.split(x.array, ends, last)))
  return tuple((np if is_static(x) else jnp).split(x, ends, axis))


@OPERATORS.named("Slice")
def _slice(call: Call, x: Value, *rest: Value) -> Value:
  starts = call.parameter("starts", rest, 0)
  ends = call.parameter("ends", rest, 1)
  axes = call.parameter("axes", rest, 2, list(range(len(starts))))
  steps = call.parameter("steps", rest, 3, [1] * len(starts))
  cuts = [slice(None)] * len(x.shape)
  for axis, start, stop, step in zip(axes, starts, ends, steps, strict=True):
    # An end beyond the first element of a reversed axis stands for no end.
    beyond = step < 0 and stop < -x.shape[axis]
    cuts[axis] = slice(start, None if beyond else stop, step)
  if isinstance(x, Image):
    return Image(x.array[cuts[0], cuts[2], cuts[3], cuts[1]])
  return x[tuple(cuts)]


@OPERATORS.named("Gather")
def _gather(call: Call, x: Value, index: Value) -> Value:
  x, axis = plain(x), call.get("axis", 0)
  index = call.static(index, "indices")
  if is_static(x):
    return np.asarray(np.take(x, index, axis))
  index = np.where(index < 0, index + x.shape[axis], index)
  return jnp.take(x, index, axis)


@OPERATORS.named("Expand")
def _expand(call: Call, x: Value, shape: Value) -> Value:
  x = plain(x)
  sizes = call.static(shape, "shape").tolist()
  xp = np if is_static(x) else jnp
  return xp.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(sizes)))


@OPERATORS.named("Tile")
def _tile(call: Call, x: Value, repeats: Value) -> Value:
  x = plain(x)
  counts = call.static(repeats, "repeats").tolist()
  return (np if is_static(x) else jnp).tile(x, counts)


@OPERATORS.named("Pad")
def _pad(call: Call, x: Value, *rest: Value) -> Value:
  rank = len(x.shape)
  flat = call.parameter("pads", rest, 0)
  fill = call.parameter("value", rest, 1, 0.0)
  axes = call.parameter("axes", rest, 2, list(range(rank)))
  spread = [(0, 0)] * rank
  for i, axis in enumerate(axes):
    spread[axis] = flat[i], flat[i + len(axes)]
  if any(before < 0 or after < 0 for before, after in spread):
    raise call.error(f"must add pixels, got {flat}")
  mode = call.get("mode", "constant")
  if mode not in ("constant", "edge", "reflect", "wrap"):
    raise call.error(f"must be constant, edge, reflect or wrap, got {mode}")
  options = {"constant_values": fill} if mode == "constant" else {}
  if isinstance(x, Image):
    spread = [spread[0], spread[2], spread[3], spread[1]]
    return Image(jnp.pad(x.array, spread, mode, **options))
  return (np if is_static(x) else jnp).pad(x, spread, mode, **options)
