"""A node at work, and the table of what operators do."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fawkes_jax import types
from fawkes_jax.models.onnx.graph import Graph, Node
from fawkes_jax.models.onnx.values import Value, as_image


@dataclasses.dataclass(frozen=True)
class Call:
  """A node at work."""

  node: Node
  graph: Graph

  @property
  def opset(self) -> int:
    """The version of the operator set."""
    return self.graph.opset

  def get(self, name: str, default: Any = None) -> Any:
    """The value of an attribute."""
    for key, value in self.node.attributes:
      if key == name:
        return value
    return default

  def error(self, rule: str) -> types.FawkesError:
    """What to raise where the node breaks a rule, given in words."""
    name = f" (node {self.node.name})" if self.node.name else ""
    return types.FawkesError(
      f"{self.graph.name}: operator {self.node.op}{name} {rule}"
    )

  def static(self, value: Value, what: str) -> np.ndarray:
    """A value that must not depend on the image or the weights."""
    if not isinstance(value, np.ndarray):
      raise self.error(f"must have constant {what}")
    return value

  def parameter(
    self, name: str, values: Sequence[Value], index: int, default: Any = None
  ) -> Any:
    """A static list or number: an attribute of old, now an input."""
    if index < len(values) and values[index] is not None:
      return self.static(values[index], name).tolist()
    value = self.get(name, default)
    return list(value) if isinstance(value, tuple) else value

  def image(self, value: Value) -> jax.Array:
    """The array [n, h, w, c] of an input that must be an image."""
    if len(value.shape) != 4:
      raise self.error(f"must have an input of 4 axes, got {len(value.shape)}")
    return jnp.asarray(as_image(value))


class Operators(dict[str, Callable[..., Any]]):
  """By name, how operators are evaluated: function(call, *inputs)."""

  def named(self, *names: str) -> Callable[[Callable], Callable]:
    """Adds a function under names."""

    def add(function: Callable) -> Callable:
      self.update(dict.fromkeys(names, function))
      return function

    return add
