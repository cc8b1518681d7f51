"""Inception-ResNet-V1, the network of FaceNet's public weights.

It maps an aligned face of 160x160 pixels to 512 numbers, to be compared by
the cosine of their angle.

Source: "Inception-v4, Inception-ResNet and the Impact of Residual Connections
on Learning" (Szegedy et al., 2016, section 3.2), as implemented by
github.com/timesler/facenet-pytorch (inception_resnet_v1.py). Batch
normalisations are folded into the convolutions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from fawkes_jax.models import iresnet, layers

INPUT_SIZE = 160
"""Height and width of an input face, in pixels."""

EMBEDDING_SIZE = 512
"""Length of the embedding."""

_EPSILON = 1e-3

# Convolutions are (name, width, (rows, columns), stride, padded); a name is
# also PyTorch's, with dots for its levels.
_Layer = tuple[str, int, tuple[int, int], int, bool]

_STEM: tuple[_Layer, ...] = (
  ("conv2d_1a", 32, (3, 3), 2, False),
  ("conv2d_2a", 32, (3, 3), 1, False),
  ("conv2d_2b", 64, (3, 3), 1, True),
)
_STEM_2: tuple[_Layer, ...] = (
  ("conv2d_3b", 80, (1, 1), 1, False),
  ("conv2d_4a", 192, (3, 3), 1, False),
  ("conv2d_4b", 256, (3, 3), 2, False),
)

# Each kind of residual block: its branches, and the factor of their sum.
_BLOCK_35 = (
  (("branch0", 32, (1, 1), 1, True),),
  (
    ("branch1.0", 32, (1, 1), 1, True),
    ("branch1.1", 32, (3, 3), 1, True),
  ),
  (
    ("branch2.0", 32, (1, 1), 1, True),
    ("branch2.1", 32, (3, 3), 1, True),
    ("branch2.2", 32, (3, 3), 1, True),
  ),
)
_BLOCK_17 = (
  (("branch0", 128, (1, 1), 1, True),),
  (
    ("branch1.0", 128, (1, 1), 1, True),
    ("branch1.1", 128, (1, 7), 1, True),
    ("branch1.2", 128, (7, 1), 1, True),
  ),
)
_BLOCK_8 = (
  (("branch0", 192, (1, 1), 1, True),),
  (
    ("branch1.0", 192, (1, 1), 1, True),
    ("branch1.1", 192, (1, 3), 1, True),
    ("branch1.2", 192, (3, 1), 1, True),
  ),
)
_MIXED_6A = (
  (("branch0", 384, (3, 3), 2, False),),
  (
    ("branch1.0", 192, (1, 1), 1, True),
    ("branch1.1", 192, (3, 3), 1, True),
    ("branch1.2", 256, (3, 3), 2, False),
  ),
)
_MIXED_7A = (
  (
    ("branch0.0", 256, (1, 1), 1, True),
    ("branch0.1", 384, (3, 3), 2, False),
  ),
  (
    ("branch1.0", 256, (1, 1), 1, True),
    ("branch1.1", 256, (3, 3), 2, False),
  ),
  (
    ("branch2.0", 256, (1, 1), 1, True),
    ("branch2.1", 256, (3, 3), 1, True),
    ("branch2.2", 256, (3, 3), 2, False),
  ),
)

# (name, branches, factor); a factor of 0 marks a block that halves height and
# width, whose branches, and a max-pooling, are its result.
_BLOCKS = (
  *((f"repeat_1.{i}", _BLOCK_35, 0.17) for i in range(5)),
  ("mixed_6a", _MIXED_6A, 0.0),
  *((f"repeat_2.{i}", _BLOCK_17, 0.1) for i in range(10)),
  ("mixed_7a", _MIXED_7A, 0.0),
  *((f"repeat_3.{i}", _BLOCK_8, 0.2) for i in range(5)),
  ("block8", _BLOCK_8, 1.0),
)
_LAST = "block8"  # No ReLU behind it.


def _convolutions(
  x: jax.Array, chain: Sequence[_Layer], dtype: DTypeLike
) -> jax.Array:
  """A chain of convolutions with ReLUs; to be called in a compact module."""
  for name, width, size, stride, padded in chain:
    x = nn.Conv(
      width,
      size,
      strides=stride,
      padding=[(k // 2, k // 2) if padded else (0, 0) for k in size],
      dtype=dtype,
      name=name.replace(".", "_"),
    )(x)
    x = nn.relu(x)
  return x


class _Block(nn.Module):
  """Branches of convolutions, beside a shortcut or a max-pooling."""

  branches: tuple[tuple[_Layer, ...], ...]
  factor: float
  activated: bool
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    parts = [_convolutions(x, chain, self.dtype) for chain in self.branches]
    if not self.factor:
      return jnp.concatenate(
        [*parts, layers.max_pool(x, (3, 3), (2, 2))], axis=-1
      )
    y = nn.Conv(x.shape[-1], (1, 1), dtype=self.dtype, name="conv2d")(
      jnp.concatenate(parts, axis=-1)
    )
    x = x + self.factor * y
    return nn.relu(x) if self.activated else x


class InceptionResNet(nn.Module):
  """Embeds aligned faces, see the module's docstring.

  Its variables come from `convert_facenet`.

  Attributes:
    dtype: the type of the computation.
  """

  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, images: Float[Array, "n 160 160 3"]
  ) -> Float32[Array, "n 512"]:
    """Embeds a batch of faces.

    Args:
      images: float [n, 160, 160, 3], RGB in 0..255.

    Returns:
      float32 [n, 512], not normalised.
    """
    x = ((images.astype(jnp.float32) - 127.5) / 128).astype(self.dtype)
    x = layers.max_pool(_convolutions(x, _STEM, self.dtype), (3, 3), (2, 2))
    x = _convolutions(x, _STEM_2, self.dtype)
    for name, branches, factor in _BLOCKS:
      x = _Block(
        branches,
        factor,
        name != _LAST,
        self.dtype,
        name=name.replace(".", "_"),
      )(x)
    x = x.astype(jnp.float32).mean(axis=(1, 2))
    return nn.Dense(EMBEDDING_SIZE, dtype=jnp.float32, name="embedding")(x)


def convert_facenet(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Turns a network of facenet-pytorch into `InceptionResNet`.

  Args:
    state: the network's tensors by PyTorch's names.

  Returns:
    The Flax variables, float32.

  Raises:
    KeyError: a tensor is missing.
  """

  def convolutions(
    prefix: str, chain: Sequence[_Layer]
  ) -> dict[str, dict[str, np.ndarray]]:
    return {
      name.replace(".", "_"): iresnet.folded_convolution(
        state, f"{prefix}{name}.conv", f"{prefix}{name}.bn", _EPSILON
      )
      for name, *_ in chain
    }

  params: dict[str, Any] = convolutions("", _STEM + _STEM_2)
  for name, branches, factor in _BLOCKS:
    block: dict[str, Any] = {}
    for chain in branches:
      block |= convolutions(f"{name}.", chain)
    if factor:
      kernel = state[f"{name}.conv2d.weight"].transpose(2, 3, 1, 0)
      block["conv2d"] = {
        "kernel": np.ascontiguousarray(kernel, np.float32),
        "bias": state[f"{name}.conv2d.bias"],
      }
    params[name.replace(".", "_")] = block
  scale, shift = iresnet.frozen_norm(state, "last_bn", _EPSILON)
  params["embedding"] = {
    "kernel": (state["last_linear.weight"].T * scale).astype(np.float32),
    "bias": shift.astype(np.float32),
  }
  return {"params": params}
