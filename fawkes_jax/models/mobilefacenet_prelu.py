"""MobileFaceNet with a slope a channel for what is negative (PReLU).

It maps an aligned face of 112x112 pixels to some hundred numbers, to be
compared by the cosine of their angle.

Source: "MobileFaceNets" (Chen et al., 2018, table 1), whose activations are
these. Two recognisers have this form: that of esp-dl (github.com/espressif/
esp-dl, MIT), without the pointwise convolution before the first block, and that
of Keras_insightface (github.com/leondgarse/Keras_insightface, MIT), which
weighs the channels of each block ("Squeeze-and-Excitation Networks", Hu et al.,
2018). Batch normalisations are folded into the convolutions.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from fawkes_jax.models import layers, mobilefacenet
from fawkes_jax.models.onnx import folding

INPUT_SIZE = 112
"""Height and width of an input face, in pixels."""

_REDUCTION = 16  # Of channels between squeeze and excitation.

# Keras_insightface begins a group of blocks without a shortcut.
_WITHOUT_SHORTCUT = (6, 13)

# Layers that esp-dl's network has as two, each with half of the channels.
_HALVED = {
  ("block_12", "expand"),
  ("block_12", "project"),
  ("block_12", "prelu_0"),
  ("head",),
  ("prelu_2",),
}


class MobileFaceNetPRelu(nn.Module):
  """Embeds aligned faces, see the module's docstring.

  Its variables come from `convert`.

  Attributes:
    embedding_size: length of the embedding.
    deviation: what pixels are divided by after 127.5 was subtracted.
    pointwise: whether a 1x1 convolution precedes the first block.
    squeezed: whether blocks weigh their channels.
    dtype: the type of the computation.
  """

  embedding_size: int = 512
  deviation: float = 127.5
  pointwise: bool = False
  squeezed: bool = False
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, images: Float[Array, "n 112 112 3"]
  ) -> Float32[Array, "n d"]:
    """Embeds a batch of faces.

    Args:
      images: float [n, 112, 112, 3], RGB in 0..255, aligned to ArcFace's
        template.

    Returns:
      float32 [n, embedding_size], not normalised.
    """
    convolution = functools.partial(
      layers.Convolution, least=self.squeezed, dtype=self.dtype
    )

    x = (images.astype(jnp.float32) - 127.5) / self.deviation
    x = convolution(64, name="stem", size=3, stride=2)(x.astype(self.dtype))
    x = layers.PRelu(name="prelu_0")(x)
    x = convolution(64, name="depthwise", size=3, depthwise=True)(x)
    if self.pointwise:
      x = convolution(64, name="pointwise")(x)
    x = layers.PRelu(name="prelu_1")(x)
    for i, (expanded, width, stride) in enumerate(mobilefacenet.BLOCKS):
      x = layers.PReluResidual(
        expanded,
        width,
        stride,
        reduction=_REDUCTION if self.squeezed else None,
        least=self.squeezed,
        shortcut=not self.squeezed or i not in _WITHOUT_SHORTCUT,
        dtype=self.dtype,
        name=f"block_{i}",
      )(x)
    x = layers.PRelu(name="prelu_2")(convolution(512, name="head")(x))
    x = convolution(512, name="pool", size=7, depthwise=True, padded=False)(x)
    x = x.astype(jnp.float32).reshape(len(images), -1)
    return nn.Dense(self.embedding_size, dtype=jnp.float32, name="embedding")(x)


def convert(network: folding.Layers) -> dict[str, Any]:
  """Turns a network in ONNX into the variables of `MobileFaceNetPRelu`.

  Args:
    network: human_face_feat_mfn of github.com/espressif/esp-dl, or
      se_mobilefacenet of github.com/leondgarse/Keras_insightface.

  Returns:
    The Flax variables, float32.

  Raises:
    FawkesError: the network has more or fewer layers.
  """
  blocks = range(len(mobilefacenet.BLOCKS))
  squeezed = len(network.kernels) > 5 * len(blocks)
  stem, in_block = ["stem", "depthwise"], [*folding.BLOCK]
  prelus = ["prelu_0", "prelu_1"]
  if squeezed:
    stem += ["pointwise"]
    in_block += ["squeeze", "excite"]
    prelus += ["prelu_2"]
  names: list[folding.Name] = [(name,) for name in stem]
  names += [(f"block_{i}", name) for i in blocks for name in in_block]
  names += [("head",), ("pool",), ("embedding",)]
  places: list[folding.Name] = [("prelu_0",), ("prelu_1",)]
  places += [(f"block_{i}", name) for i in blocks for name in prelus]
  places += [("prelu_2",)]
  if not squeezed:  # It computes some layers in two halves, side by side.
    network = dataclasses.replace(
      network,
      kernels=_joined(network.kernels, names),
      slopes=_joined(network.slopes, places),
    )
  params = network.named(names, places)
  folding.as_matrix(params["embedding"])
  return {"params": params}


def _joined(
  parts: Sequence[folding.Layer], names: Sequence[folding.Name]
) -> list[folding.Layer]:
  """Layers of which some lie in two halves, by channels, in `parts`."""
  rest = list(parts)
  joined: list[folding.Layer] = []
  for name in names:
    count = 2 if name in _HALVED else 1
    taken, rest = rest[:count], rest[count:]
    if not taken:
      return joined
    joined.append(
      {k: np.concatenate([part[k] for part in taken], -1) for k in taken[0]}
    )
  return [*joined, *rest]
