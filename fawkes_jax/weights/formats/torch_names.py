"""Recognisers whose tensors still have the names that PyTorch gave them.

The networks are those that `models` has a conversion for: InsightFace's
iresnet and vit, AdaFace's, and facenet-pytorch's Inception-ResNet-V1. Which of
them a file holds is seen from the names.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from fawkes_jax import types
from fawkes_jax.models import inception_resnet, iresnet, vit
from fawkes_jax.weights import variables

_State = Mapping[str, np.ndarray]

# By the name of a tensor that no other of the networks has.
_MARKS = {
  "conv2d_1a.conv.weight": "inception_resnet_v1",
  "layer1.0.prelu.weight": "iresnet",
  "input_layer.0.weight": "adaface_ir",
  "patch_embed.proj.weight": "vit_",
}

# CVLFace's releases of AdaFace take red, green, blue, unlike AdaFace's own.
_CVLFACE = "model.net."


def convert(source: str, state: _State) -> tuple[str, dict[str, Any]]:
  """Turns the tensors of a PyTorch network into Flax variables.

  Args:
    source: the file they come from, for messages.
    state: the tensors by PyTorch's names, which may share a prefix.

  Returns:
    The architecture, a key of `architectures.ARCHITECTURES`, and the variables,
    float32.

  Raises:
    FawkesError: it is none of the networks, or a tensor is missing or has a
      wrong shape.
  """
  mark, prefix = _find(source, state)
  state = {
    key.removeprefix(prefix): array
    for key, array in state.items()
    if key.startswith(prefix)
  }
  name, converter = _network(source, _MARKS[mark], state)
  try:
    if prefix == _CVLFACE and name.startswith("adaface"):
      stem = state["input_layer.0.weight"]
      state["input_layer.0.weight"] = stem[:, ::-1]
    nested = converter(state)
  except KeyError as error:
    raise types.FawkesError(
      f"{source}: a network {name} must have the tensor"
      f" {prefix}{error.args[0]}, which is missing"
    ) from error
  except (IndexError, ValueError) as error:
    raise types.FawkesError(
      f"{source}: the tensors of {name} must have its shapes: {error}"
    ) from error
  nested = jax.tree.map(lambda array: np.asarray(array, np.float32), nested)
  variables.check(source, name, nested)
  return name, nested


def _find(source: str, state: _State) -> tuple[str, str]:
  """The telling tensor's name, and what stands in front of it."""
  for key in state:
    for mark in _MARKS:
      if key.endswith(mark):
        return mark, key.removesuffix(mark)
  raise types.FawkesError(
    f"{source} must name its architecture in its metadata, or its tensors as"
    " InsightFace (iresnet, vit), AdaFace or facenet-pytorch do, got"
    f" {', '.join(sorted(state)[:3]) or 'no tensor'}"
  )


def _network(
  source: str, kind: str, state: _State
) -> tuple[str, Callable[[_State], dict[str, Any]]]:
  """The architecture and its conversion, from the number of blocks."""
  if kind == "inception_resnet_v1":
    return kind, inception_resnet.convert_facenet
  if kind == "vit_":
    size = len(state["patch_embed.proj.weight"]), _count(state, "blocks.")
    for name, known in vit.SIZES.items():
      if size == known:
        return f"{kind}{name}", functools.partial(
          vit.convert_insightface, size=name
        )
    raise types.FawkesError(
      f"{source}: width and number of blocks must be one of"
      f" {', '.join(map(str, vit.SIZES.values()))}, got {size}"
    )
  if kind == "iresnet":
    blocks = sum(_count(state, f"layer{stage}.") for stage in range(1, 5))
    conversion, names = iresnet.convert_insightface, {50: "50", 100: "100"}
  else:
    blocks = _count(state, "body.")
    conversion, names = iresnet.convert_adaface, {50: "50", 100: "101"}
  depths = {sum(stages): depth for depth, stages in iresnet.DEPTHS.items()}
  if blocks not in depths:
    raise types.FawkesError(
      f"{source}: the number of blocks must be one of"
      f" {', '.join(map(str, depths))}, got {blocks}"
    )
  depth = depths[blocks]
  return kind + names[depth], functools.partial(conversion, depth=depth)


def _count(state: _State, prefix: str) -> int:
  """How many different numbers follow a prefix in the names."""
  return len(
    {
      key.removeprefix(prefix).partition(".")[0]
      for key in state
      if key.startswith(prefix)
    }
  )
