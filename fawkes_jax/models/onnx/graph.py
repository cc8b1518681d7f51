"""A graph of ONNX operators without its weights: static and hashable."""

import dataclasses
from typing import Any

import numpy as np

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
