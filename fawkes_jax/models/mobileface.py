"""MobileFace Identification V2, a small mobile residual network.

It maps an aligned face of 112x112 pixels to 256 numbers, to be compared by
the cosine of their angle. 0.89 M parameters, 98.80 % on LFW.

Source: github.com/becauseofAI/MobileFace (MIT), MobileFace_Identification_V2.
Batch normalisations are folded into the convolutions.
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

EMBEDDING_SIZE = 256
"""Length of the embedding."""

STEM_WIDTH = 32
"""Channels after the first convolution."""

BLOCKS = (
  (96, 32, 2),
  *((96, 32, 1),) * 2,
  (96, 32, 2),
  *((96, 32, 1),) * 2,
  (96, 64, 2),
  *((192, 64, 1),) * 2,
  (192, 128, 2),
  *((384, 128, 1),) * 2,
)
"""Expanded width, width and stride of each inverted residual block."""


class MobileFace(nn.Module):
  """Embeds aligned faces, see the module's docstring.

  Its variables come from `convert`.

  Attributes:
    dtype: the type of the computation.
  """

  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, images: Float[Array, "n 112 112 3"]
  ) -> Float32[Array, "n 256"]:
    """Embeds a batch of faces.

    Args:
      images: float [n, 112, 112, 3], RGB in 0..255, aligned to ArcFace's
        template.

    Returns:
      float32 [n, 256], not normalised.
    """
    x = ((images.astype(jnp.float32) - 127.5) / 128).astype(self.dtype)
    x = nn.relu6(
      layers.Convolution(
        STEM_WIDTH, size=3, stride=2, dtype=self.dtype, name="stem"
      )(x)
    )
    for i, (expanded, width, stride) in enumerate(BLOCKS):
      x = layers.InvertedResidual(
        expanded, width, stride, dtype=self.dtype, name=f"block_{i}"
      )(x)
    x = x.astype(jnp.float32).reshape(len(images), -1)
    return nn.Dense(EMBEDDING_SIZE, dtype=jnp.float32, name="embedding")(x)


def convert(network: folding.Layers) -> dict[str, Any]:
  """Turns a network in ONNX into the variables of `MobileFace`.

  Args:
    network: MobileFace_Identification_V2 of
      github.com/becauseofAI/MobileFace.

  Returns:
    The Flax variables, float32.

  Raises:
    FawkesError: the network has more or fewer layers.
  """
  names: list[folding.Name] = [("stem",)]
  for i in range(len(BLOCKS)):
    names += [(f"block_{i}", layer) for layer in folding.BLOCK]
  params = network.named([*names, ("embedding",)])
  embedding = params["embedding"]
  embedding["kernel"] = folding.channels_last(
    embedding["kernel"], BLOCKS[-1][1]
  )
  return {"params": params}
