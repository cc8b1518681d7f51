"""Evaluates a network given as a graph of ONNX operators, differentiably.

`evaluate` is a pure function of weights and one image; the graph is static and
hashable. `GraphModule` makes a Flax module of it: weights are its parameters,
a batch is the `vmap` of one image, so that a graph whose batch dimension was
fixed to one takes any batch.

Three things are decided while JAX traces, not while it computes:

* Values that depend on shapes alone are numpy arrays and are computed in numpy.
* Images, [n, c, h, w] to the graph, are kept as [n, h, w, c], and transposed
  only for an operator that mixes their axes with others.
* Grouped convolutions are rewritten, see `layers.convolve`.

Source: the operators' definitions in the ONNX standard, from operator set 7 on
(github.com/onnx/onnx, docs/Operators.md).
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from fawkes_jax import types
from fawkes_jax.models import layers

OLDEST_OPSET = 7
"""The oldest operator set that is understood: older ones broadcast unlike
numpy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant:
  """An array that is part of a graph, hashable.

  Attributes:
    dtype: numpy's name of its type.
    shape: its shape.
    data: its bytes, little-endian, in C order.
  """

  dtype: str
  shape: tuple[int, ...]
  data: bytes

  @classmethod
  def of(cls, array: np.ndarray) -> "Constant":
    """Freezes an array."""
    array = np.asarray(array)
    return cls(dtype=array.dtype.str, shape=array.shape, data=array.tobytes())

  def array(self) -> np.ndarray:
    """Returns the array, read-only."""
    return np.frombuffer(self.data, self.dtype).reshape(self.shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node:
  """One operator of a graph.

  Attributes:
    op: the operator's name, with its domain in front where that is not ONNX's
      own ("com.microsoft.FusedMatMul").
    name: the node's name, for messages.
    inputs: the names of its inputs; empty for an optional one left out.
    outputs: the names of its outputs.
    attributes: pairs of name and value: int, float, str, Constant, or a tuple
      of these.
  """

  op: str
  name: str
  inputs: tuple[str, ...]
  outputs: tuple[str, ...]
  attributes: tuple[tuple[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Graph:
  """A network without its weights.

  Attributes:
    name: where it comes from, for messages.
    opset: the version of the operator set.
    input: the name of the image.
    input_shape: the image's shape, with a batch of one.
    outputs: the names of the results.
    nodes: the operators, each after those whose outputs it takes.
    constants: arrays that are part of the graph: shapes, axes, bounds.
    weights: name and shape of each weight.
  """

  name: str
  opset: int
  input: str
  input_shape: tuple[int, ...]
  outputs: tuple[str, ...]
  nodes: tuple[Node, ...]
  constants: tuple[tuple[str, Constant], ...]
  weights: tuple[tuple[str, tuple[int, ...]], ...]

  @property
  def channels_last(self) -> bool:
    """Whether the image is [1, h, w, 3] to the graph, not [1, 3, h, w]."""
    return self.input_shape[1] != 3

  @property
  def image_size(self) -> tuple[int, int]:
    """Height and width of the image."""
    height, width = (
      self.input_shape[1:3] if self.channels_last else self.input_shape[2:]
    )
    return height, width

  def __hash__(self) -> int:
    # Equal graphs have equal names; hashing all nodes would cost each call.
    return hash((self.name, len(self.nodes), self.outputs))


@dataclasses.dataclass(frozen=True)
class _Image:
  """A value [n, h, w, c] that the graph knows as [n, c, h, w]."""

  array: jax.Array

  @property
  def shape(self) -> tuple[int, ...]:
    n, height, width, channels = self.array.shape
    return n, channels, height, width


_Value = Any  # np.ndarray when it depends on shapes alone, jax.Array or _Image.


@dataclasses.dataclass(frozen=True)
class _Call:
  """A node at work."""

  node: Node
  graph: Graph

  @property
  def opset(self) -> int:
    return self.graph.opset

  def get(self, name: str, default: Any = None) -> Any:
    """The value of an attribute."""
    for key, value in self.node.attributes:
      if key == name:
        return value
    return default

  def error(self, rule: str) -> types.FawkesError:
    name = f" (node {self.node.name})" if self.node.name else ""
    return types.FawkesError(
      f"{self.graph.name}: operator {self.node.op}{name} {rule}"
    )

  def static(self, value: _Value, what: str) -> np.ndarray:
    """A value that must not depend on the image or the weights."""
    if not isinstance(value, np.ndarray):
      raise self.error(f"must have constant {what}")
    return value

  def parameter(
    self, name: str, values: Sequence[_Value], index: int, default: Any = None
  ) -> Any:
    """A static list or number: an attribute of old, now an input."""
    if index < len(values) and values[index] is not None:
      return self.static(values[index], name).tolist()
    value = self.get(name, default)
    return list(value) if isinstance(value, tuple) else value


def _is_static(*values: _Value) -> bool:
  return all(v is None or isinstance(v, np.ndarray) for v in values)


def _plain(value: _Value) -> _Value:
  """A value with its axes in the graph's order."""
  if isinstance(value, _Image):
    return value.array.transpose(0, 3, 1, 2)
  return value


def _as_image(value: _Value) -> _Value:
  """A value of at most four axes, to be broadcast with images."""
  if isinstance(value, _Image):
    return value.array
  value = value.reshape((1,) * (4 - value.ndim) + value.shape)
  return value.transpose(0, 2, 3, 1)


def _elementwise(function: Callable[..., Any], *values: _Value) -> _Value:
  """Applies a broadcasting function of numpy or JAX to values."""
  if _is_static(*values):
    return np.asarray(function(np, *values))
  images = any(isinstance(v, _Image) for v in values)
  if images and any(len(v.shape) > 4 for v in values):
    images, values = False, tuple(map(_plain, values))
  if images:
    values = tuple(map(_as_image, values))
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
  return _Image(result) if images else result


_OPERATORS: dict[str, Callable[..., Any]] = {}

# What operators raise when their inputs or attributes do not fit.
_MISUSE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def _operator(*names: str) -> Callable[[Callable], Callable]:
  """Registers how operators are evaluated: function(call, *inputs)."""

  def register(function: Callable) -> Callable:
    _OPERATORS.update(dict.fromkeys(names, function))
    return function

  return register


def _simple(name: str, function: Callable[..., Any]) -> None:
  """Registers an elementwise operator: function(numpy or jax.numpy, *inputs).

  A third kind of argument, the attributes, is not needed by these.
  """
  _OPERATORS[name] = lambda call, *values: _elementwise(function, *values)


def _quotient(xp: Any, x: Any, y: Any) -> Any:
  if jnp.issubdtype(x.dtype, jnp.integer):
    return xp.trunc(x / y).astype(x.dtype)  # ONNX truncates.
  return x / y


def _fold(name: str) -> Callable[..., Any]:
  """A reduction of any number of operands by a function of two."""

  def function(xp: Any, first: Any, *others: Any) -> Any:
    for other in others:
      first = getattr(xp, name)(first, other)
    return first

  return function


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
  "Abs": lambda xp, x: xp.abs(x),
  "Add": lambda xp, x, y: x + y,
  "And": lambda xp, x, y: x & y,
  "Ceil": lambda xp, x: xp.ceil(x),
  "Cos": lambda xp, x: xp.cos(x),
  "Div": _quotient,
  "Equal": lambda xp, x, y: x == y,
  "Erf": lambda xp, x: jax.lax.erf(x),
  "Exp": lambda xp, x: xp.exp(x),
  "Floor": lambda xp, x: xp.floor(x),
  "Greater": lambda xp, x, y: x > y,
  "GreaterOrEqual": lambda xp, x, y: x >= y,
  "HardSwish": lambda xp, x: jax.nn.hard_swish(x),
  "Less": lambda xp, x, y: x < y,
  "LessOrEqual": lambda xp, x, y: x <= y,
  "Log": lambda xp, x: xp.log(x),
  "Max": _fold("maximum"),
  "Min": _fold("minimum"),
  "Mod": lambda xp, x, y: xp.mod(x, y),
  "Mish": lambda xp, x: jax.nn.mish(x),
  "Mul": lambda xp, x, y: x * y,
  "Neg": lambda xp, x: -x,
  "Not": lambda xp, x: ~x,
  "Or": lambda xp, x, y: x | y,
  "PRelu": lambda xp, x, slope: xp.where(x < 0, slope * x, x),
  "Pow": lambda xp, x, y: xp.power(x, y).astype(x.dtype),
  "Reciprocal": lambda xp, x: 1 / x,
  "Relu": lambda xp, x: jax.nn.relu(x),
  "Round": lambda xp, x: xp.round(x),
  "Sigmoid": lambda xp, x: jax.nn.sigmoid(x),
  "Sin": lambda xp, x: xp.sin(x),
  "Softplus": lambda xp, x: jax.nn.softplus(x),
  "Sqrt": lambda xp, x: xp.sqrt(x),
  "Sub": lambda xp, x, y: x - y,
  "Sum": _fold("add"),
  "Tanh": lambda xp, x: xp.tanh(x),
  "Where": lambda xp, c, x, y: xp.where(c, x, y),
}
for _name, _function in _ELEMENTWISE.items():
  _simple(_name, _function)


@_operator("LeakyRelu")
def _leaky_relu(call: _Call, x: _Value) -> _Value:
  slope = call.get("alpha", 0.01)
  return _elementwise(lambda xp, x: xp.where(x < 0, slope * x, x), x)


@_operator("Elu")
def _elu(call: _Call, x: _Value) -> _Value:
  alpha = call.get("alpha", 1.0)
  return _elementwise(lambda xp, x: jax.nn.elu(x, alpha), x)


@_operator("HardSigmoid")
def _hard_sigmoid(call: _Call, x: _Value) -> _Value:
  alpha, beta = call.get("alpha", 0.2), call.get("beta", 0.5)
  return _elementwise(lambda xp, x: xp.clip(alpha * x + beta, 0, 1), x)


@_operator("Gelu")
def _gelu(call: _Call, x: _Value) -> _Value:
  rough = call.get("approximate", "none") == "tanh"
  return _elementwise(lambda xp, x: jax.nn.gelu(x, approximate=rough), x)


@_operator("Clip")
def _clip(call: _Call, x: _Value, *bounds: _Value) -> _Value:
  low = call.parameter("min", bounds, 0)
  high = call.parameter("max", bounds, 1)
  return _elementwise(lambda xp, x: xp.clip(x, low, high), x)


@_operator("Identity", "Dropout")
def _identity(call: _Call, x: _Value, *_: _Value) -> _Value:
  return x


_TYPES = {
  1: np.float32,
  6: np.int32,
  7: np.int64,
  9: np.bool_,
  10: np.float32,
  11: np.float32,
  16: np.float32,
}


@_operator("Cast")
def _cast(call: _Call, x: _Value) -> _Value:
  code = call.get("to")
  if code not in _TYPES:
    raise call.error(f"must be to a float, int32, int64 or bool, got {code}")
  kind = np.dtype(_TYPES[code])

  def convert(xp: Any, x: Any) -> Any:
    if xp is jnp:
      # All floats are of the computation's type, and integers of JAX's.
      if kind.kind == "f" and jnp.issubdtype(x.dtype, jnp.floating):
        return x
      return x.astype(np.int32 if kind == np.int64 else kind)
    return x.astype(kind)

  return _elementwise(convert, x)


def _pads(
  call: _Call, size: Sequence[int], window: Sequence[int], strides: Sequence
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


def _channels_last(call: _Call, x: _Value) -> jax.Array:
  """The array [n, h, w, c] of an image."""
  if len(x.shape) != 4:
    raise call.error(f"must have an input of 4 axes, got {len(x.shape)}")
  return jnp.asarray(_as_image(x))


@_operator("Conv")
def _conv(
  call: _Call, x: _Value, kernel: _Value, bias: _Value = None
) -> _Image:
  image = _channels_last(call, x)
  kernel = jnp.asarray(_plain(kernel), image.dtype).transpose(2, 3, 1, 0)
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
  return _Image(y if bias is None else y + bias)


@_operator("MaxPool", "AveragePool")
def _pool(call: _Call, x: _Value) -> _Image:
  """The gradients of these are faster than those of XLA's windows."""
  if len(call.node.outputs) > 1:
    raise call.error("must have one output, got indices too")
  image = _channels_last(call, x)
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
    return _Image(layers.max_pool(image, window, strides, dilations))
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
  return _Image(
    total / functools.reduce(operator.add, layers.windows(inside, *places))
  )


@_operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(call: _Call, x: _Value) -> _Image:
  image = _channels_last(call, x)
  pool = jnp.mean if call.node.op == "GlobalAveragePool" else jnp.max
  return _Image(pool(image, axis=(1, 2), keepdims=True))


@_operator("BatchNormalization")
def _batch_normalization(
  call: _Call,
  x: _Value,
  scale: _Value,
  shift: _Value,
  mean: _Value,
  variance: _Value,
) -> _Value:
  if call.get("training_mode", 0):
    raise call.error("must not be in training mode")
  factor = scale / jnp.sqrt(variance + call.get("epsilon", 1e-5))
  shape = (-1,) + (1,) * (len(x.shape) - 2)
  return _elementwise(
    lambda xp, x, factor, offset: x * factor + offset,
    x,
    factor.reshape(shape),
    (shift - mean * factor).reshape(shape),
  )


@_operator("LayerNormalization")
def _layer_normalization(
  call: _Call, x: _Value, scale: _Value, shift: _Value = None
) -> _Value:
  x = _plain(x)
  axes = tuple(range(call.get("axis", -1) % x.ndim, x.ndim))
  centred = x - x.mean(axis=axes, keepdims=True)
  variance = jnp.square(centred).mean(axis=axes, keepdims=True)
  y = centred * jax.lax.rsqrt(variance + call.get("epsilon", 1e-5)) * scale
  return y if shift is None else y + shift


@_operator("LpNormalization")
def _lp_normalization(call: _Call, x: _Value) -> _Value:
  x, axis = _plain(x), call.get("axis", -1)
  if call.get("p", 2) == 1:
    return x / jnp.abs(x).sum(axis=axis, keepdims=True)
  return x / jnp.sqrt(jnp.square(x).sum(axis=axis, keepdims=True))


@_operator("Softmax", "LogSoftmax")
def _softmax(call: _Call, x: _Value) -> _Value:
  x = _plain(x)
  function = (
    jax.nn.softmax if call.node.op == "Softmax" else (jax.nn.log_softmax)
  )
  if call.opset >= 13:
    return function(x, axis=call.get("axis", -1))
  first = call.get("axis", 1) % x.ndim
  rows = x.reshape(math.prod(x.shape[:first]), -1)
  return function(rows, axis=-1).reshape(x.shape)


_REDUCTIONS: dict[str, Callable[..., Any]] = {
  "ReduceL1": lambda xp, x, **o: xp.sum(xp.abs(x), **o),
  "ReduceL2": lambda xp, x, **o: xp.sqrt(xp.sum(xp.square(x), **o)),
  "ReduceMax": lambda xp, x, **o: xp.max(x, **o),
  "ReduceMean": lambda xp, x, **o: xp.mean(x, **o),
  "ReduceMin": lambda xp, x, **o: xp.min(x, **o),
  "ReduceProd": lambda xp, x, **o: xp.prod(x, **o),
  "ReduceSum": lambda xp, x, **o: xp.sum(x, **o),
  "ReduceSumSquare": lambda xp, x, **o: xp.sum(xp.square(x), **o),
}


@_operator(*_REDUCTIONS)
def _reduce(call: _Call, x: _Value, *rest: _Value) -> _Value:
  rank = len(x.shape)
  axes = call.parameter("axes", rest, 0)
  if not axes:
    if call.get("noop_with_empty_axes", 0):
      return x
    axes = range(rank)
  axes = tuple(axis % rank for axis in axes)
  keep = bool(call.get("keepdims", 1))
  function = _REDUCTIONS[call.node.op]
  if isinstance(x, _Image) and keep:
    last = tuple((0, 3, 1, 2)[axis] for axis in axes)
    return _Image(function(jnp, x.array, axis=last, keepdims=True))
  xp = np if _is_static(x) else jnp
  return xp.asarray(function(xp, _plain(x), axis=axes, keepdims=keep))


@_operator("Gemm")
def _gemm(call: _Call, a: _Value, b: _Value, c: _Value = None) -> _Value:
  a, b, c = _plain(a), _plain(b), _plain(c)
  y = jnp.matmul(
    a.T if call.get("transA", 0) else a, b.T if call.get("transB", 0) else b
  )
  y = y * call.get("alpha", 1.0)
  return y if c is None else y + call.get("beta", 1.0) * c


@_operator("MatMul")
def _matmul(call: _Call, a: _Value, b: _Value) -> _Value:
  return jnp.matmul(_plain(a), _plain(b))


@_operator("Einsum")
def _einsum(call: _Call, *values: _Value) -> _Value:
  return jnp.einsum(call.get("equation"), *map(_plain, values))


@_operator("Shape")
def _shape(call: _Call, x: _Value) -> np.ndarray:
  return np.array(x.shape[call.get("start", 0) : call.get("end")], np.int64)


@_operator("Size")
def _size(call: _Call, x: _Value) -> np.ndarray:
  return np.array(math.prod(x.shape), np.int64)


@_operator("Constant")
def _constant(call: _Call) -> np.ndarray:
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


@_operator("ConstantOfShape")
def _constant_of_shape(call: _Call, shape: _Value) -> np.ndarray:
  value = call.get("value")
  fill = np.float32(0) if value is None else value.array().reshape(())
  return np.full(call.static(shape, "shape").tolist(), fill)


@_operator("Range")
def _range(call: _Call, *bounds: _Value) -> np.ndarray:
  start, stop, step = (call.static(b, "bounds") for b in bounds)
  numbers = np.arange(start.item(), stop.item(), step.item())
  return numbers.astype(start.dtype)


@_operator("Reshape")
def _reshape(call: _Call, x: _Value, shape: _Value) -> _Value:
  x = _plain(x)
  sizes = call.static(shape, "shape").tolist()
  if not call.get("allowzero", 0):
    sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
  return x.reshape(sizes)


@_operator("Flatten")
def _flatten(call: _Call, x: _Value) -> _Value:
  x, axis = _plain(x), call.get("axis", 1)
  axis = axis + x.ndim if axis < 0 else axis
  return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@_operator("Transpose")
def _transpose(call: _Call, x: _Value) -> _Value:
  x = _plain(x)
  order = call.get("perm", tuple(reversed(range(x.ndim))))
  if order == (0, 3, 1, 2) and not _is_static(x):
    return _Image(x)
  return x.transpose(order)


@_operator("Squeeze")
def _squeeze(call: _Call, x: _Value, *rest: _Value) -> _Value:
  axes = call.parameter("axes", rest, 0)
  x = _plain(x)
  return x.squeeze(None if axes is None else tuple(np.atleast_1d(axes)))


@_operator("Unsqueeze")
def _unsqueeze(call: _Call, x: _Value, *rest: _Value) -> _Value:
  axes = call.parameter("axes", rest, 0)
  x = _plain(x)
  return (np if _is_static(x) else jnp).expand_dims(
    x, tuple(np.atleast_1d(axes).tolist())
  )


@_operator("Concat")
def _concat(call: _Call, *values: _Value) -> _Value:
  axis = call.get("axis")
  if _is_static(*values):
    return np.concatenate(values, axis)
  if all(isinstance(v, _Image) for v in values):
    last = (0, 3, 1, 2)[axis % 4]
    return _Image(jnp.concatenate([v.array for v in values], last))
  return jnp.concatenate([_plain(v) for v in values], axis)


@_operator("Split")
def _split(call: _Call, x: _Value, *rest: _Value) -> tuple[_Value, ...]:
  axis = call.get("axis", 0) % len(x.shape)
  sizes = call.parameter("split", rest, 0)
  if not sizes:
    count = len(call.node.outputs)
    each = -(-x.shape[axis] // count)
    sizes = [each] * (count - 1) + [x.shape[axis] - each * (count - 1)]
  ends = np.cumsum(sizes)[:-1].tolist()
  if isinstance(x, _Image):
    last = (0, 3, 1, 2)[axis]
    return tuple(map(_Image, jnp.split(x.array, ends, last)))
  return tuple((np if _is_static(x) else jnp).split(x, ends, axis))


@_operator("Slice")
def _slice(call: _Call, x: _Value, *rest: _Value) -> _Value:
  starts = call.parameter("starts", rest, 0)
  ends = call.parameter("ends", rest, 1)
  axes = call.parameter("axes", rest, 2, list(range(len(starts))))
  steps = call.parameter("steps", rest, 3, [1] * len(starts))
  cuts = [slice(None)] * len(x.shape)
  for axis, start, stop, step in zip(axes, starts, ends, steps, strict=True):
    # An end beyond the first element of a reversed axis stands for no end.
    beyond = step < 0 and stop < -x.shape[axis]
    cuts[axis] = slice(start, None if beyond else stop, step)
  if isinstance(x, _Image):
    return _Image(x.array[cuts[0], cuts[2], cuts[3], cuts[1]])
  return x[tuple(cuts)]


@_operator("Gather")
def _gather(call: _Call, x: _Value, index: _Value) -> _Value:
  x, axis = _plain(x), call.get("axis", 0)
  index = call.static(index, "indices")
  if _is_static(x):
    return np.asarray(np.take(x, index, axis))
  index = np.where(index < 0, index + x.shape[axis], index)
  return jnp.take(x, index, axis)


@_operator("Expand")
def _expand(call: _Call, x: _Value, shape: _Value) -> _Value:
  x = _plain(x)
  sizes = call.static(shape, "shape").tolist()
  xp = np if _is_static(x) else jnp
  return xp.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(sizes)))


@_operator("Tile")
def _tile(call: _Call, x: _Value, repeats: _Value) -> _Value:
  x = _plain(x)
  counts = call.static(repeats, "repeats").tolist()
  return (np if _is_static(x) else jnp).tile(x, counts)


@_operator("Pad")
def _pad(call: _Call, x: _Value, *rest: _Value) -> _Value:
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
  if isinstance(x, _Image):
    spread = [spread[0], spread[2], spread[3], spread[1]]
    return _Image(jnp.pad(x.array, spread, mode, **options))
  return (np if _is_static(x) else jnp).pad(x, spread, mode, **options)


def _source(call: _Call, size: int, output: int, scale: float) -> np.ndarray:
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
  call: _Call, size: int, output: int, scale: float
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


@_operator("Resize", "Upsample")
def _resize(call: _Call, x: _Value, *rest: _Value) -> _Image:
  image = _channels_last(call, x)
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
  return _Image(jnp.einsum("pw,nowc->nopc", columns, tall))


def unsupported(graph: Graph) -> list[str]:
  """Returns the operators of a graph that `evaluate` does not know, sorted."""
  return sorted({node.op for node in graph.nodes} - set(_OPERATORS))


def evaluate(
  graph: Graph, weights: Mapping[str, Any], image: Float[Array, "h w 3"]
) -> tuple[jax.Array, ...]:
  """Evaluates a graph for one image.

  Args:
    graph: the graph.
    weights: an array for each of the graph's weights; the computation takes
      place in the image's type.
    image: what the graph expects, in its own units and order of colours.

  Returns:
    The graph's outputs, each with a batch dimension of one where the graph
    has it.

  Raises:
    FawkesError: an operator is unknown, or is used in a way that is not
      supported; the message names it.
  """
  dtype = image.dtype
  values: dict[str, _Value] = {
    name: constant.array() for name, constant in graph.constants
  }
  values.update({k: jnp.asarray(v, dtype) for k, v in weights.items()})
  values[""] = None
  values[graph.input] = (
    image[None] if graph.channels_last else _Image(image[None])
  )
  for node in graph.nodes:
    call = _Call(node, graph)
    if node.op not in _OPERATORS:
      raise call.error("is not supported")
    try:
      results = _OPERATORS[node.op](call, *(values[i] for i in node.inputs))
    except _MISUSE as error:
      raise call.error(f"cannot be evaluated: {error}") from error
    if not isinstance(results, tuple):
      results = (results,)
    values.update(zip(node.outputs, results, strict=False))
  return tuple(jnp.asarray(_plain(values[name])) for name in graph.outputs)


class GraphModule(nn.Module):
  """A graph with one output as an extractor of embeddings.

  Attributes:
    graph: the graph; its weights are the module's parameters.
    mean: what is subtracted from each channel, RGB, in 0..255.
    scale: what is then divided by.
    bgr: whether the graph expects blue, green, red.
    dtype: the type of the computation.
  """

  graph: Graph
  mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
  scale: tuple[float, float, float] = (127.5, 127.5, 127.5)
  bgr: bool = False
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, images: Float[Array, "n h w 3"]) -> Float32[Array, "n d"]:
    """Embeds a batch of faces.

    Args:
      images: float [n, h, w, 3], RGB in 0..255, of the graph's image size.

    Returns:
      float32 [n, d], the graph's output, flattened.

    Raises:
      FawkesError: the graph has several outputs, or an operator is not
        supported.
    """
    graph = self.graph
    if len(graph.outputs) != 1:
      raise types.FawkesError(
        f"{graph.name}: a recogniser must have one output, got "
        f"{', '.join(graph.outputs)}"
      )
    weights = {
      name: self.param(name, nn.initializers.zeros, shape)
      for name, shape in graph.weights
    }
    x = images.astype(jnp.float32) - jnp.asarray(self.mean, jnp.float32)
    x = x / jnp.asarray(self.scale, jnp.float32)
    x = (x[..., ::-1] if self.bgr else x).astype(self.dtype)
    (y,) = jax.vmap(lambda image: evaluate(graph, weights, image))(x)
    return y.reshape(len(images), -1).astype(jnp.float32)
