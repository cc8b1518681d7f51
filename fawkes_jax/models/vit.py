"""The vision transformers of InsightFace and LVFace.

They map an aligned face of 112x112 pixels to 512 numbers, to be compared by
the cosine of their angle.

Source: "An Image is Worth 16x16 Words" (Dosovitskiy et al., 2020) as
implemented by github.com/deepinsight/insightface (arcface_torch, vit.py):
patches of 9x9 pixels, no class token, ReLU6, and a matrix over all patches;
LVFace (You et al., 2025) uses the same networks. The normalisations behind
the last matrices are folded into them.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from fawkes_jax.models import iresnet, layers

INPUT_SIZE = 112
"""Height and width of an input face, in pixels."""

EMBEDDING_SIZE = 512
"""Length of the embedding."""

PATCH = 9
"""Height and width of a patch, in pixels."""

SIZES = {
  "tiny": (256, 12),
  "small": (512, 12),
  "base": (512, 24),
  "large": (768, 24),
}
"""Width and number of blocks, by name."""

_HEADS = 8
_EPSILON = 2e-5  # Of the normalisations of the embedding.


class _Attention(nn.Module):
  """Self-attention of several heads."""

  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    n, tokens, width = x.shape
    mixed = nn.Dense(3 * width, use_bias=False, dtype=self.dtype, name="qkv")(x)
    query, key, value = jnp.moveaxis(
      mixed.reshape(n, tokens, 3, _HEADS, width // _HEADS), 2, 0
    )
    scores = jnp.einsum("nqhd,nkhd->nhqk", query, key).astype(jnp.float32)
    scores = nn.softmax(scores * (width // _HEADS) ** -0.5)
    y = jnp.einsum("nhqk,nkhd->nqhd", scores.astype(self.dtype), value)
    return nn.Dense(width, dtype=self.dtype, name="projection")(
      y.reshape(n, tokens, width)
    )


class _Block(nn.Module):
  """Attention and a perceptron, each behind a normalisation."""

  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    width = x.shape[-1]
    y = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm_0")(x)
    x = x + _Attention(self.dtype, name="attention")(y)
    y = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm_1")(x)
    y = nn.Dense(4 * width, dtype=self.dtype, name="dense_0")(y)
    return x + nn.Dense(width, dtype=self.dtype, name="dense_1")(nn.relu6(y))


class VisionTransformer(nn.Module):
  """Embeds aligned faces, see the module's docstring.

  Its variables come from `convert_insightface`.

  Attributes:
    size: a key of `SIZES`.
    dtype: the type of the computation.
  """

  size: str = "small"
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
    width, depth = SIZES[self.size]
    x = ((images.astype(jnp.float32) - 127.5) / 127.5).astype(self.dtype)
    x = nn.Conv(
      width,
      (PATCH, PATCH),
      strides=PATCH,
      padding="VALID",
      dtype=self.dtype,
      name="patches",
    )(x)
    x = x.reshape(len(images), -1, width)
    position = layers.weight(
      self, "position", nn.initializers.normal(0.02), x.shape[1:]
    )
    x = x + position.astype(self.dtype)
    for i in range(depth):
      x = _Block(self.dtype, name=f"block_{i}")(x)
    x = nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32, name="norm")(x)
    x = x.reshape(len(images), -1)
    x = nn.Dense(width, dtype=jnp.float32, name="mix")(x)
    return nn.Dense(EMBEDDING_SIZE, dtype=jnp.float32, name="embedding")(x)


def convert_insightface(
  state: Mapping[str, np.ndarray], size: str
) -> dict[str, Any]:
  """Turns a vision transformer of arcface_torch into `VisionTransformer`.

  Args:
    state: the network's tensors by PyTorch's names.
    size: a key of `SIZES`.

  Returns:
    The Flax variables, float32.

  Raises:
    KeyError: a tensor is missing.
  """

  def norm(name: str) -> dict[str, np.ndarray]:
    return {"scale": state[f"{name}.weight"], "bias": state[f"{name}.bias"]}

  def dense(name: str) -> dict[str, np.ndarray]:
    layer = {"kernel": np.ascontiguousarray(state[f"{name}.weight"].T)}
    if f"{name}.bias" in state:
      layer["bias"] = state[f"{name}.bias"]
    return layer

  def folded(name: str, behind: str) -> dict[str, np.ndarray]:
    scale, shift = iresnet.frozen_norm(state, behind, _EPSILON)
    kernel = state[f"{name}.weight"].T * scale
    return {
      "kernel": kernel.astype(np.float32),
      "bias": shift.astype(np.float32),
    }

  patches = state["patch_embed.proj.weight"].transpose(2, 3, 1, 0)
  params: dict[str, Any] = {
    "patches": {
      "kernel": np.ascontiguousarray(patches),
      "bias": state["patch_embed.proj.bias"],
    },
    "position": state["pos_embed"][0],
    "norm": norm("norm"),
    "mix": folded("feature.0", "feature.1"),
    "embedding": folded("feature.2", "feature.3"),
  }
  for i in range(SIZES[size][1]):
    block = f"blocks.{i}"
    params[f"block_{i}"] = {
      "norm_0": norm(f"{block}.norm1"),
      "attention": {
        "qkv": dense(f"{block}.attn.qkv"),
        "projection": dense(f"{block}.attn.proj"),
      },
      "norm_1": norm(f"{block}.norm2"),
      "dense_0": dense(f"{block}.mlp.fc1"),
      "dense_1": dense(f"{block}.mlp.fc2"),
    }
  return {"params": params}
