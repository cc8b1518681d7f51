"""Operators that look at one element of each input at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fawkes_jax.models.onnx.calls import Call, Operators
from fawkes_jax.models.onnx.values import (
  Value,
  elementwise,
)

OPERATORS = Operators()


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


def _simple(function: Callable[..., Any]) -> Callable[..., Any]:
  """An operator of a function(numpy or jax.numpy, *inputs).

  A third kind of argument, the attributes, is not needed by these.
  """
  return lambda call, *values: elementwise(function, *values)


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
  OPERATORS[_name] = _simple(_function)


@OPERATORS.named("LeakyRelu")
def _leaky_relu(call: Call, x: Value) -> Value:
  slope = call.get("alpha", 0.01)
  return elementwise(lambda xp, x: xp.where(x < 0, slope * x, x), x)


@OPERATORS.named("Elu")
def _elu(call: Call, x: Value) -> Value:
  alpha = call.get("alpha", 1.0)
  return elementwise(lambda xp, x: jax.nn.elu(x, alpha), x)


@OPERATORS.named("HardSigmoid")
def _hard_sigmoid(call: Call, x: Value) -> Value:
  alpha, beta = call.get("alpha", 0.2), call.get("beta", 0.5)
  return elementwise(lambda xp, x: xp.clip(alpha * x + beta, 0, 1), x)


@OPERATORS.named("Gelu")
def _gelu(call: Call, x: Value) -> Value:
  rough = call.get("approximate", "none") == "tanh"
  return elementwise(lambda xp, x: jax.nn.gelu(x, approximate=rough), x)


@OPERATORS.named("Clip")
def _clip(call: Call, x: Value, *bounds: Value) -> Value:
  low = call.parameter("min", bounds, 0)
  high = call.parameter("max", bounds, 1)
  return elementwise(lambda xp, x: xp.clip(x, low, high), x)


@OPERATORS.named("Identity", "Dropout")
def _identity(call: Call, x: Value, *_: Value) -> Value:
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


@OPERATORS.named("Cast")
def _cast(call: Call, x: Value) -> Value:
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

  return elementwise(convert, x)
