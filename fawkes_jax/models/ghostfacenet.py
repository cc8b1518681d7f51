"""GhostFaceNet: half of a layer's channels are made of the other half.

It maps an aligned face of 112x112 pixels to 512 numbers, to be compared by the
cosine of their angle.

Source: "GhostFaceNets" (Alansari et al., IEEE Access 2023), whose V1 this is
with half the width and a stem of stride 2 (github.com/HamadYA/GhostFaceNets,
MIT): "GhostNet" (Han et al., CVPR 2020, table 1), with a slope a channel for
what is negative, and with other layers at its end. Batch normalisations are
folded into the convolutions.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from fawkes_jax.models import layers
from fawkes_jax.models.onnx import folding

INPUT_SIZE = 112
"""Height and width of an input face, in pixels."""

EMBEDDING_SIZE = 512
"""Length of the embedding."""


@dataclasses.dataclass(frozen=True)
class Block:
  """A ghost bottleneck.

  Attributes:
    expanded: channels in its middle, half of them ghosts.
    width: channels of its result, half of them ghosts.
    size: the size of the kernel where the stride is 2, and of the shortcut's.
    stride: along height and width.
    squeezed: channels between squeeze and excitation; 0 for without.
  """

  expanded: int
  width: int
  size: int = 3
  stride: int = 1
  squeezed: int = 0


BLOCKS = (
  Block(8, 8),
  Block(24, 12, stride=2),
  Block(36, 12),
  Block(36, 20, size=5, stride=2, squeezed=12),
  Block(60, 20, squeezed=16),
  Block(120, 40, stride=2),
  Block(100, 40),
  Block(92, 40),
  Block(92, 40),
  Block(240, 56, squeezed=60),
  Block(336, 56, squeezed=84),
  Block(336, 80, size=5, stride=2, squeezed=84),
  Block(480, 80),
  Block(480, 80, squeezed=120),
  Block(480, 80),
  Block(256, 80, squeezed=64),
)
"""From the stem to the head."""

# Channels of the first and the last convolution.
_STEM, _HEAD = 8, 256


def _has_shortcut_layers(before: int, block: Block) -> bool:
  """Whether the shortcut around a block has convolutions.

  It has where the block's result has another shape than what it is given,
  which has `before` channels.
  """
  return block.stride > 1 or before != block.width


class _Ghost(nn.Module):
  """Channels, and beside them as many that are made of one each: ghosts."""

  width: int
  active: bool
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    half = self.width // 2
    x = layers.Convolution(half, dtype=self.dtype, name="primary")(x)
    if self.active:
      x = layers.PRelu(name="prelu_0")(x)
    y = layers.Convolution(
      half, size=3, depthwise=True, dtype=self.dtype, name="cheap"
    )(x)
    if self.active:
      y = layers.PRelu(name="prelu_1")(y)
    return jnp.concatenate([x, y], axis=-1)


class _Bottleneck(nn.Module):
  """Two layers with ghosts beside a shortcut, perhaps weighted by channel."""

  block: Block
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    block = self.block
    convolution = functools.partial(layers.Convolution, dtype=self.dtype)
    shrinking = functools.partial(
      convolution,
      size=block.size,
      stride=block.stride,
      depthwise=True,
      least=True,
    )
    ghost = functools.partial(_Ghost, dtype=self.dtype)

    y = ghost(block.expanded, active=True, name="expand")(x)
    if block.stride > 1:
      y = shrinking(block.expanded, name="depthwise")(y)
    if block.squeezed:
      z = y.mean(axis=(1, 2), keepdims=True)
      z = layers.PRelu(name="prelu")(
        convolution(block.squeezed, name="squeeze")(z)
      )
      z = convolution(block.expanded, name="excite")(z)
      # Keras's; that of jax.nn has another slope.
      y = y * jnp.clip(0.2 * z + 0.5, 0, 1)
    y = ghost(block.width, active=False, name="project")(y)
    if _has_shortcut_layers(x.shape[-1], block):
      x = shrinking(x.shape[-1], name="shortcut_depthwise")(x)
      x = convolution(block.width, name="shortcut_pointwise")(x)
    return x + y


class GhostFaceNet(nn.Module):
  """Embeds aligned faces, see the module's docstring.

  Its variables come from `convert`.

  Attributes:
    dtype: the type of the computation.
  """

  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, images: Float[Array, "n 112 112 3"]
  ) -> Float32[Array, "n 512"]:
    """Embeds a batch of faces.

    Args:
      images: float [n, 112, 112, 3], RGB in 0..255, aligned to ArcFace's
        template.

    Returns:
      float32 [n, 512], not normalised.
    """
    convolution = functools.partial(layers.Convolution, dtype=self.dtype)

    x = ((images.astype(jnp.float32) - 127.5) / 128).astype(self.dtype)
    x = convolution(_STEM, name="stem", size=3, stride=2, least=True)(x)
    x = layers.PRelu(name="prelu_0")(x)
    for i, block in enumerate(BLOCKS):
      x = _Bottleneck(block, dtype=self.dtype, name=f"block_{i}")(x)
    x = layers.PRelu(name="prelu_1")(convolution(_HEAD, name="head")(x))
    x = convolution(_HEAD, name="pool", size=4, depthwise=True, padded=False)(x)
    x = x.astype(jnp.float32).reshape(len(images), -1)
    return nn.Dense(EMBEDDING_SIZE, dtype=jnp.float32, name="embedding")(x)


def convert(network: folding.Layers) -> dict[str, Any]:
  """Turns a network in ONNX into the variables of `GhostFaceNet`.

  Args:
    network: GhostFaceNet V1 0.5 with stride 2 of
      github.com/HamadYA/GhostFaceNets.

  Returns:
    The Flax variables, float32.

  Raises:
    FawkesError: the network has more or fewer layers.
  """
  names: list[folding.Name] = [("stem",)]
  places: list[folding.Name] = [("prelu_0",)]
  before = _STEM
  for i, block in enumerate(BLOCKS):
    beside = _has_shortcut_layers(before, block)
    of_block: list[folding.Name]
    of_block = [("expand", "primary"), ("expand", "cheap")]
    of_block += [("depthwise",)] * (block.stride > 1)
    of_block += [("squeeze",), ("excite",)] * (block.squeezed > 0)
    # The graph goes on in both branches in turn.
    of_block += [("project", "primary")]
    of_block += [("shortcut_depthwise",)] * beside
    of_block += [("project", "cheap")]
    of_block += [("shortcut_pointwise",)] * beside
    prelus: list[folding.Name]
    prelus = [("expand", "prelu_0"), ("expand", "prelu_1")]
    prelus += [("prelu",)] * (block.squeezed > 0)
    names += [(f"block_{i}", *name) for name in of_block]
    places += [(f"block_{i}", *name) for name in prelus]
    before = block.width
  names += [("head",), ("pool",), ("embedding",)]
  params = network.named(names, [*places, ("prelu_1",)])
  folding.as_matrix(params["embedding"])
  return {"params": params}
