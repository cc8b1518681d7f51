"""dlib's face recognition network: a 29-layer residual network.

It maps an aligned face of 150x150 pixels to 128 numbers. The numbers are not
normalised; dlib takes two faces for the same person when the Euclidean
distance of their embeddings is below 0.6.

Source: the architecture of ``dlib_face_recognition_resnet_model_v1.dat`` as
defined by dlib's ``dnn_face_recognition_ex``, a slimmer "Deep Residual
Learning for Image Recognition" (He et al., 2015), trained with a metric loss.
The affine layers of the original are folded into its convolutions.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fawkes_jax.models import layers

INPUT_SIZE = 150
"""Height and width of an input face, in pixels."""

EMBEDDING_SIZE = 128
"""Length of the embedding."""

MEAN_PIXEL = (122.782, 117.001, 104.298)
"""The RGB colour that dlib subtracts from every pixel."""

STEM_WIDTH = 32
"""Channels after the first convolution."""

BLOCK_WIDTHS = (32,) * 3 + (64,) * 4 + (128,) * 3 + (256,) * 4
"""Channels of the residual blocks, from input to output."""

DOWN_BLOCKS = frozenset({3, 7, 10, 13})
"""Indices of the blocks that halve height and width."""


def _average_pool(x: jax.Array) -> jax.Array:
  """Averages 2x2 squares; an odd last row or column is dropped."""
  n, height, width, channels = x.shape
  rows, columns = height // 2, width // 2
  x = x[:, : 2 * rows, : 2 * columns]
  return x.reshape(n, rows, 2, columns, 2, channels).mean(axis=(2, 4))


def _padded_sum(x: jax.Array, y: jax.Array) -> jax.Array:
  """Adds two tensors, zero-padding each to the larger of both shapes."""
  if x.shape == y.shape:
    return x + y
  shape = [max(sizes) for sizes in zip(x.shape, y.shape, strict=True)]
  x, y = (
    jnp.pad(
      z,
      [(0, size - own) for size, own in zip(shape, z.shape, strict=True)],
    )
    for z in (x, y)
  )
  return x + y


class _Stem(nn.Module):
  """The 7x7 convolution with stride 2, valid, as space-to-depth.

  Squares of 2x2 pixels become 12 channels and the kernel, zero-padded to 8x8,
  a 4x4 kernel over them: the same sums, but a convolution with stride 1, which
  is faster on every device.
  """

  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = layers.weight(
      self, "kernel", nn.initializers.lecun_normal(), (7, 7, 3, STEM_WIDTH)
    )
    bias = layers.weight(self, "bias", nn.initializers.zeros, (STEM_WIDTH,))
    n, height, width, channels = x.shape
    x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(n, height // 2, width // 2, 4 * channels)
    kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    kernel = kernel.reshape(4, 2, 4, 2, channels, STEM_WIDTH)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5)
    kernel = kernel.reshape(4, 4, 4 * channels, STEM_WIDTH)
    y = jax.lax.conv_general_dilated(
      x,
      kernel.astype(self.dtype),
      window_strides=(1, 1),
      padding="VALID",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y + bias.astype(self.dtype)


class _Block(nn.Module):
  """Two 3x3 convolutions beside a shortcut."""

  width: int
  down: bool
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = layers.Convolution(
      self.width,
      3,
      stride=2 if self.down else 1,
      padded=not self.down,
      dtype=self.dtype,
      name="conv_0",
    )(x)
    y = layers.Convolution(self.width, 3, dtype=self.dtype, name="conv_1")(
      nn.relu(y)
    )
    return nn.relu(_padded_sum(y, _average_pool(x) if self.down else x))


class DlibResNet(nn.Module):
  """Embeds aligned faces, see the module's docstring.

  Its variables come from ``fawkes_jax.weights.formats.dlib.read_resnet``.

  Attributes:
    dtype: the type of the computation. ``bfloat16`` is meant for GPUs and
      TPUs; on CPUs it saves nothing.
  """

  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, images: Float[Array, "n 150 150 3"]
  ) -> Float[Array, "n 128"]:
    """Embeds a batch of faces.

    Args:
      images: float [n, 150, 150, 3], RGB in 0..255, aligned as dlib does it
        (``get_face_chip`` with padding 0.25).

    Returns:
      float32 [n, 128], not normalised.
    """
    mean = jnp.asarray(MEAN_PIXEL, jnp.float32)
    x = ((images.astype(jnp.float32) - mean) / 256).astype(self.dtype)
    x = nn.relu(_Stem(self.dtype, name="stem")(x))
    x = layers.max_pool(x, (3, 3), (2, 2))
    for i, width in enumerate(BLOCK_WIDTHS):
      x = _Block(width, i in DOWN_BLOCKS, self.dtype, name=f"block_{i}")(x)
    x = x.astype(jnp.float32).mean(axis=(1, 2))
    return nn.Dense(
      EMBEDDING_SIZE, use_bias=False, dtype=jnp.float32, name="embedding"
    )(x)
