"""Reads layers of ONNX networks, with normalisations folded into them."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util
import numpy as np

from fawkes_jax import types
from fawkes_jax.models.onnx import graph as graphs

Layer = dict[str, np.ndarray]
"""The arrays of a layer by the names that its module gives them."""

Name = tuple[str, ...]
"""Where a layer is among nested parameters."""

BLOCK = ("expand", "depthwise", "project")
"""The layers of `layers.InvertedResidual`, in a graph's order."""

# What hands on a layer's result as it is, whatever its order of axes.
_PASSING = ("Transpose", "Identity", "Reshape", "Flatten", "Squeeze")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Layers:
  """What a network in ONNX is made of, in the graph's order.

  Attributes:
    source: the file it comes from, for messages.
    kernels: of each convolution and matrix product, with the normalisation
      behind it: "kernel" [rows, columns, in, out] or [in, out], and "bias".
    slopes: of each PReLU: "slope", what it multiplies negative numbers by.
  """

  source: str
  kernels: Sequence[Layer]
  slopes: Sequence[Layer]

  def named(
    self, names: Sequence[Name], prelus: Sequence[Name] | None = None
  ) -> dict[str, Any]:
    """The layers under the names that they have in a module.

    Args:
      names: of the convolutions and matrix products, in the graph's order.
      prelus: likewise of the PReLUs; None where the module has none.

    Returns:
      Nested parameters.

    Raises:
      FawkesError: the network has more or fewer layers.
    """
    if prelus is None and len(self.kernels) != len(names):
      raise types.FawkesError(
        f"{self.source}: the network must have {len(names)} convolutions and"
        f" matrices, got {len(self.kernels)}"
      )
    places = prelus or ()
    slopes = self.slopes if prelus is not None else ()
    if (len(self.kernels), len(slopes)) != (len(names), len(places)):
      raise types.FawkesError(
        f"{self.source}: the network must have {len(names)} convolutions and"
        f" {len(places)} PReLUs, got {len(self.kernels)} and {len(slopes)}"
      )
    layers = zip([*names, *places], [*self.kernels, *slopes], strict=True)
    return flax.traverse_util.unflatten_dict(
      {name: dict(layer) for name, layer in layers}
    )


def fold(graph: graphs.Graph, weights: Mapping[str, np.ndarray]) -> Layers:
  """Folds each normalisation of a network into the layer before it.

  Args:
    graph: the network.
    weights: its arrays, by the names in `graph.weights`.

  Returns:
    Its layers, float32.
  """
  # With what is small enough to be part of the graph.
  arrays = {k: v.array() for k, v in graph.constants} | dict(weights)
  layers: dict[str, tuple[np.ndarray, np.ndarray]] = {}
  for node in graph.nodes:
    if node.op in _PASSING and node.inputs[0] in layers:
      layers[node.outputs[0]] = layers.pop(node.inputs[0])
      continue
    tensors = [
      arrays[key].astype(np.float64) for key in node.inputs[1:] if key in arrays
    ]
    if node.op in ("Conv", "Gemm") and tensors:
      kernel = tensors[0]  # [out, in, ...] of both kinds.
      if node.op == "Gemm" and ("transB", 1) not in node.attributes:
        kernel = kernel.T
      bias = tensors[1] if len(tensors) > 1 else np.zeros(len(kernel))
      layers[node.outputs[0]] = kernel, bias
    elif node.op == "BatchNormalization" and node.inputs[0] in layers:
      kernel, bias = layers.pop(node.inputs[0])
      gamma, beta, mean, variance = tensors
      epsilon = dict(node.attributes).get("epsilon", 1e-5)
      scale = gamma / np.sqrt(variance + epsilon)
      kernel = kernel * scale.reshape(-1, *[1] * (kernel.ndim - 1))
      layers[node.outputs[0]] = kernel, (bias - mean) * scale + beta
    elif node.op in ("Add", "Mul") and len(tensors) == 1:
      if node.inputs[0] not in layers:
        continue
      kernel, bias = layers.pop(node.inputs[0])
      number = tensors[0].reshape(-1)
      if node.op == "Add":
        layers[node.outputs[0]] = kernel, bias + number
      else:
        scale = number.reshape(-1, *[1] * (kernel.ndim - 1))
        layers[node.outputs[0]] = kernel * scale, bias * number
  return Layers(
    source=graph.name,
    kernels=[
      {
        "kernel": np.ascontiguousarray(
          kernel.transpose(*range(2, kernel.ndim), 1, 0), np.float32
        ),
        "bias": np.asarray(bias, np.float32),
      }
      for kernel, bias in layers.values()
    ],
    slopes=[
      {"slope": arrays[node.inputs[1]].reshape(-1).astype(np.float32)}
      for node in graph.nodes
      if node.op == "PRelu"
    ],
  )


def as_matrix(layer: Layer) -> None:
  """Makes the kernel of a layer over single pixels a matrix, in its place.

  Args:
    layer: its kernel is [1, 1, in, out] or [in, out].
  """
  layer["kernel"] = layer["kernel"].reshape(-1, layer["kernel"].shape[-1])


def channels_last(kernel: np.ndarray, channels: int) -> np.ndarray:
  """Puts the rows of a matrix into the order of a module's image.

  Args:
    kernel: its rows are those of a square image [channels, h, w].
    channels: the channels of the image.

  Returns:
    The matrix for an image [h, w, channels]; as it is where the number of
    rows is another.
  """
  side = math.isqrt(len(kernel) // channels)
  if channels * side * side != len(kernel):
    return kernel
  image = kernel.reshape(channels, side, side, -1).transpose(1, 2, 0, 3)
  return image.reshape(len(kernel), -1)
