"""MobileFaceNet as trained by foamliu.

It maps an aligned face of 112x112 pixels to 128 numbers, to be compared by
the cosine of their angle. 1.02 M parameters, 99.15 % on LFW.

Source: "MobileFaceNets" (Chen et al., 2018, table 1), with the activations of
github.com/foamliu/MobileFaceNet (Apache-2.0): ReLU6, and ReLU around the first
depthwise convolution. Batch normalisations are folded into the convolutions.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from fawkes_jax.models import layers
from fawkes_jax.models.onnx import folding

INPUT_SIZE = 112
"""Height and width of an input face, in pixels."""

EMBEDDING_SIZE = 128
"""Length of the embedding."""

MEAN = (0.485, 0.456, 0.406)
"""The RGB colour that is subtracted, in 0..1: ImageNet's."""

DEVIATION = (0.229, 0.224, 0.225)
"""What is then divided by."""

BLOCKS = (
  (128, 64, 2),
  *((128, 64, 1),) * 4,
  (256, 128, 2),
  *((256, 128, 1),) * 6,
  (512, 128, 2),
  *((256, 128, 1),) * 2,
)
"""Expanded width, width and stride of each inverted residual block."""


class MobileFaceNet(nn.Module):
  """Embeds aligned faces, see the module's docstring.

  Its variables come from `convert`.

  Attributes:
    dtype: the type of the computation.
  """

  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, images: Float[Array, "n 112 112 3"]
  ) -> Float32[Array, "n 128"]:
    """Embeds a batch of faces.

    Args:
      images: float [n, 112, 112, 3], RGB in 0..255, aligned to ArcFace's
        template.

    Returns:
      float32 [n, 128], not normalised.
    """
    x = images.astype(jnp.float32) / 255 - jnp.asarray(MEAN, jnp.float32)
    x = (x / jnp.asarray(DEVIATION, jnp.float32)).astype(self.dtype)
    x = nn.relu6(
      layers.Convolution(64, size=3, stride=2, dtype=self.dtype, name="stem")(x)
    )
    x = nn.relu(
      layers.Convolution(
        64, size=3, depthwise=True, dtype=self.dtype, name="depthwise"
      )(x)
    )
    x = nn.relu(layers.Convolution(64, dtype=self.dtype, name="pointwise")(x))
    for i, (expanded, width, stride) in enumerate(BLOCKS):
      x = layers.InvertedResidual(
        expanded, width, stride, dtype=self.dtype, name=f"block_{i}"
      )(x)
    x = nn.relu6(layers.Convolution(512, dtype=self.dtype, name="head")(x))
    x = layers.Convolution(
      512,
      size=7,
      depthwise=True,
      padded=False,
      dtype=self.dtype,
      name="pool",
    )(x)
    x = layers.Convolution(EMBEDDING_SIZE, dtype=jnp.float32, name="embedding")(
      x.astype(jnp.float32)
    )
    return x.reshape(len(images), EMBEDDING_SIZE)


def convert(network: folding.Layers) -> dict[str, Any]:
  """Turns a network in ONNX into the variables of `MobileFaceNet`.

  Args:
    network: `weights/MobileFaceNet.onnx` of github.com/foamliu/MobileFaceNet.

  Returns:
    The Flax variables, float32.

  Raises:
    FawkesError: the network has more or fewer layers.
  """
  names: list[folding.Name] = [("stem",), ("depthwise",), ("pointwise",)]
  for i in range(len(BLOCKS)):
    names += [(f"block_{i}", layer) for layer in folding.BLOCK]
  names += [("head",), ("pool",), ("embedding",)]
  return {"params": network.named(names)}
