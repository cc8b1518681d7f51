"""Evaluates a network given as a graph of ONNX operators, differentiably.

`evaluate` is a pure function of weights and one image; the graph is static and
hashable.

Source: the operators' definitions in the ONNX standard, from operator set 7 on
(github.com/onnx/onnx, docs/Operators.md).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fawkes_jax.models.onnx import (
  elementwise,
  resizing,
  shapes,
  sums,
  windows,
)
from fawkes_jax.models.onnx.calls import Call
from fawkes_jax.models.onnx.graph import Graph
from fawkes_jax.models.onnx.values import Image, Value, plain

_OPERATORS = {
  **elementwise.OPERATORS,
  **windows.OPERATORS,
  **sums.OPERATORS,
  **shapes.OPERATORS,
  **resizing.OPERATORS,
}

# What operators raise when their inputs or attributes do not fit.
_MISUSE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


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
  values: dict[str, Value] = {
    name: constant.array() for name, constant in graph.constants
  }
  values.update({k: jnp.asarray(v, dtype) for k, v in weights.items()})
  values[""] = None
  values[graph.input] = (
    image[None] if graph.channels_last else Image(image[None])
  )
  for node in graph.nodes:
    call = Call(node, graph)
    if node.op not in _OPERATORS:
      raise call.error("is not supported")
    try:
      results = _OPERATORS[node.op](call, *(values[i] for i in node.inputs))
    except _MISUSE as error:
      raise call.error(f"cannot be evaluated: {error}") from error
    if not isinstance(results, tuple):
      results = (results,)
    values.update(zip(node.outputs, results, strict=False))
  return tuple(jnp.asarray(plain(values[name])) for name in graph.outputs)
