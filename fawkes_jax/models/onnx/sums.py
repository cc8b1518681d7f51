"""Operators that sum over axes: products, reductions, normalisations."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fawkes_jax.models.onnx.calls import Call, Operators
from fawkes_jax.models.onnx.values import (
  Image,
  Value,
  elementwise,
  is_static,
  plain,
)

OPERATORS = Operators()


@OPERATORS.named("BatchNormalization")
def _batch_normalization(
  call: Call,
  x: Value,
  scale: Value,
  shift: Value,
  mean: Value,
  variance: Value,
) -> Value:
  if call.get("training_mode", 0):
    raise call.error("must not be in training mode")
  factor = scale / jnp.sqrt(variance + call.get("epsilon", 1e-5))
  shape = (-1,) + (1,) * (len(x.shape) - 2)
  return elementwise(
    lambda xp, x, factor, offset: x * factor + offset,
    x,
    factor.reshape(shape),
    (shift - mean * factor).reshape(shape),
  )


@OPERATORS.named("LayerNormalization")
def _layer_normalization(
  call: Call, x: Value, scale: Value, shift: Value = None
) -> Value:
  x = plain(x)
  axes = tuple(range(call.get("axis", -1) % x.ndim, x.ndim))
  centred = x - x.mean(axis=axes, keepdims=True)
  variance = jnp.square(centred).mean(axis=axes, keepdims=True)
  y = centred * jax.lax.rsqrt(variance + call.get("epsilon", 1e-5)) * scale
  return y if shift is None else y + shift


@OPERATORS.named("LpNormalization")
def _lp_normalization(call: Call, x: Value) -> Value:
  x, axis = plain(x), call.get("axis", -1)
  if call.get("p", 2) == 1:
    return x / jnp.abs(x).sum(axis=axis, keepdims=True)
  return x / jnp.sqrt(jnp.square(x).sum(axis=axis, keepdims=True))


@OPERATORS.named("Softmax", "LogSoftmax")
def _softmax(call: Call, x: Value) -> Value:
  x = plain(x)
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


@OPERATORS.named(*_REDUCTIONS)
def _reduce(call: Call, x: Value, *rest: Value) -> Value:
  rank = len(x.shape)
  axes = call.parameter("axes", rest, 0)
  if not axes:
    if call.get("noop_with_empty_axes", 0):
      return x
    axes = range(rank)
  axes = tuple(axis % rank for axis in axes)
  keep = bool(call.get("keepdims", 1))
  function = _REDUCTIONS[call.node.op]
  if isinstance(x, Image) and keep:
    last = tuple((0, 3, 1, 2)[axis] for axis in axes)
    return Image(function(jnp, x.array, axis=last, keepdims=True))
  xp = np if is_static(x) else jnp
  return xp.asarray(function(xp, plain(x), axis=axes, keepdims=keep))


@OPERATORS.named("Gemm")
def _gemm(call: Call, a: Value, b: Value, c: Value = None) -> Value:
  a, b, c = plain(a), plain(b), plain(c)
  y = jnp.matmul(
    a.T if call.get("transA", 0) else a, b.T if call.get("transB", 0) else b
  )
  y = y * call.get("alpha", 1.0)
  return y if c is None else y + call.get("beta", 1.0) * c


@OPERATORS.named("MatMul")
def _matmul(call: Call, a: Value, b: Value) -> Value:
  return jnp.matmul(plain(a), plain(b))


@OPERATORS.named("Einsum")
def _einsum(call: Call, *values: Value) -> Value:
  return jnp.einsum(call.get("equation"), *map(plain, values))
