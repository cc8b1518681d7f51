"""The improved residual networks of ArcFace and AdaFace.

They map an aligned face of 112x112 pixels to 512 numbers, to be compared by
the cosine of their angle.

Source: "ArcFace" (Deng et al., 2019, section 3.1), as implemented by
github.com/deepinsight/insightface (arcface_torch, iresnet.py), and "AdaFace"
(Kim et al., 2022; github.com/mk-minchul/AdaFace, net.py), which differs in the
order of colours and in the shortcuts. A batch normalisation behind a
convolution is folded into it; one in front of a padded convolution cannot be,
and stays as a scale and a shift.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from fawkes_jax.models import layers

INPUT_SIZE = 112
"""Height and width of an input face, in pixels."""

EMBEDDING_SIZE = 512
"""Length of the embedding."""

DEPTHS = {50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
"""Blocks in each stage, by the number that is part of the network's name."""

WIDTHS = (64, 128, 256, 512)
"""Channels of each stage; its first block halves height and width."""

_EPSILON = 1e-5


class PRelu(nn.Module):
  """A ReLU with a learned slope a channel for what is negative."""

  @nn.compact
  def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
    """Applies it."""
    slope = layers.weight(
      self, "slope", nn.initializers.constant(0.25), x.shape[-1:]
    )
    return jnp.where(x < 0, slope.astype(x.dtype) * x, x)


class _Affine(nn.Module):
  """A scale and a shift a channel: a frozen batch normalisation."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    scale = layers.weight(self, "scale", nn.initializers.ones, x.shape[-1:])
    bias = layers.weight(self, "bias", nn.initializers.zeros, x.shape[-1:])
    return x * scale.astype(x.dtype) + bias.astype(x.dtype)


class _Block(nn.Module):
  """Two 3x3 convolutions beside a shortcut."""

  width: int
  stride: int
  shortcut: bool  # Whether the shortcut is convolved.
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = _Affine(name="norm")(x)
    y = layers.Convolution(self.width, size=3, dtype=self.dtype, name="conv_0")(
      y
    )
    y = layers.Convolution(
      self.width, size=3, stride=self.stride, dtype=self.dtype, name="conv_1"
    )(PRelu(name="prelu")(y))
    if self.shortcut:
      x = layers.Convolution(
        self.width, stride=self.stride, dtype=self.dtype, name="shortcut"
      )(x)
    else:
      x = x[:, :: self.stride, :: self.stride]
    return x + y


class IResNet(nn.Module):
  """Embeds aligned faces, see the module's docstring.

  Its variables come from `convert_insightface` or `convert_adaface`.

  Attributes:
    depth: a key of `DEPTHS`.
    adaface: whether it is AdaFace's variant: blue, green, red, and a shortcut
      that is convolved only where the number of channels changes.
    dtype: the type of the computation.
  """

  depth: int = 50
  adaface: bool = False
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
    x = images[..., ::-1] if self.adaface else images
    x = ((x.astype(jnp.float32) - 127.5) / 127.5).astype(self.dtype)
    x = layers.Convolution(WIDTHS[0], size=3, dtype=self.dtype, name="stem")(x)
    x = PRelu(name="prelu")(x)
    for stage, count in enumerate(DEPTHS[self.depth]):
      width = WIDTHS[stage]
      for i in range(count):
        convolved = x.shape[-1] != width if self.adaface else i == 0
        x = _Block(
          width,
          2 if i == 0 else 1,
          convolved,
          self.dtype,
          name=f"block_{stage}_{i}",
        )(x)
    x = x.astype(jnp.float32).reshape(len(images), -1)
    return nn.Dense(EMBEDDING_SIZE, dtype=jnp.float32, name="embedding")(x)


_State = Mapping[str, np.ndarray]


def frozen_norm(
  state: _State, name: str, epsilon: float = _EPSILON
) -> tuple[np.ndarray, np.ndarray]:
  """Scale and shift, float64, of a PyTorch batch normalisation.

  Args:
    state: the network's tensors by PyTorch's names.
    name: the name of the normalisation; it may lack a learned scale and shift.
    epsilon: what is added to the variance.

  Returns:
    Two arrays [channels].

  Raises:
    KeyError: a tensor is missing.
  """
  mean, variance = (
    state[f"{name}.running_{part}"].astype(np.float64)
    for part in ("mean", "var")
  )
  scale = state.get(f"{name}.weight", np.ones_like(mean)) / np.sqrt(
    variance + epsilon
  )
  shift = state.get(f"{name}.bias", np.zeros_like(mean))
  return scale, shift - mean * scale


def folded_convolution(
  state: _State, name: str, norm: str, epsilon: float = _EPSILON
) -> dict[str, np.ndarray]:
  """A PyTorch convolution without bias and the normalisation behind it.

  Args:
    state: the network's tensors by PyTorch's names.
    name: the name of the convolution.
    norm: the norm of the batch normalisation.
    epsilon: what that adds to the variance.

  Returns:
    float32 kernel [rows, columns, in, out] and bias [out].

  Raises:
    KeyError: a tensor is missing.
  """
  scale, shift = frozen_norm(state, norm, epsilon)
  kernel = state[f"{name}.weight"].transpose(2, 3, 1, 0) * scale
  return {
    "kernel": np.ascontiguousarray(kernel, np.float32),
    "bias": shift.astype(np.float32),
  }


def _block(state: _State, names: Mapping[str, str]) -> dict[str, Any]:
  """A block's parameters from PyTorch's names of its layers."""
  scale, shift = frozen_norm(state, names["norm"])
  block = {
    "norm": {
      "scale": scale.astype(np.float32),
      "bias": shift.astype(np.float32),
    },
    "conv_0": folded_convolution(state, names["conv_0"], names["norm_0"]),
    "prelu": {"slope": state[f"{names['prelu']}.weight"]},
    "conv_1": folded_convolution(state, names["conv_1"], names["norm_1"]),
  }
  if f"{names['shortcut']}.0.weight" in state:
    shortcut = names["shortcut"]
    block["shortcut"] = folded_convolution(
      state, f"{shortcut}.0", f"{shortcut}.1"
    )
  return block


def _embedding(
  state: _State, norm: str, matrix: str, last: str
) -> dict[str, np.ndarray]:
  """The matrix behind the last stage and the normalisations around it."""
  scale, shift = frozen_norm(state, norm)
  outer_scale, outer_shift = frozen_norm(state, last)
  kernel = state[f"{matrix}.weight"].astype(np.float64)
  outputs, channels = len(kernel), len(scale)
  # PyTorch flattens [c, h, w], the module [h, w, c].
  kernel = kernel.reshape(outputs, channels, -1)
  bias = state[f"{matrix}.bias"] + np.einsum("ocp,c->o", kernel, shift)
  kernel = (kernel * scale[:, None]).transpose(2, 1, 0).reshape(-1, outputs)
  return {
    "kernel": (kernel * outer_scale).astype(np.float32),
    "bias": (bias * outer_scale + outer_shift).astype(np.float32),
  }


def convert_insightface(state: _State, depth: int) -> dict[str, Any]:
  """Turns an IResNet of InsightFace's arcface_torch into `IResNet`.

  Args:
    state: the network's tensors by PyTorch's names.
    depth: a key of `DEPTHS`.

  Returns:
    The Flax variables, float32.

  Raises:
    KeyError: a tensor is missing.
  """
  params: dict[str, Any] = {
    "stem": folded_convolution(state, "conv1", "bn1"),
    "prelu": {"slope": state["prelu.weight"]},
    "embedding": _embedding(state, "bn2", "fc", "features"),
  }
  for stage, count in enumerate(DEPTHS[depth]):
    for i in range(count):
      block = f"layer{stage + 1}.{i}"
      names = {
        "norm": f"{block}.bn1",
        "conv_0": f"{block}.conv1",
        "norm_0": f"{block}.bn2",
        "prelu": f"{block}.prelu",
        "conv_1": f"{block}.conv2",
        "norm_1": f"{block}.bn3",
        "shortcut": f"{block}.downsample",
      }
      params[f"block_{stage}_{i}"] = _block(state, names)
  return {"params": params}


def convert_adaface(state: _State, depth: int) -> dict[str, Any]:
  """Turns an IR network of AdaFace into `IResNet` with `adaface`.

  Args:
    state: the network's tensors by PyTorch's names.
    depth: a key of `DEPTHS`; 100 stands for AdaFace's IR-101.

  Returns:
    The Flax variables, float32.

  Raises:
    KeyError: a tensor is missing.
  """
  params: dict[str, Any] = {
    "stem": folded_convolution(state, "input_layer.0", "input_layer.1"),
    "prelu": {"slope": state["input_layer.2.weight"]},
    "embedding": _embedding(
      state, "output_layer.0", "output_layer.3", "output_layer.4"
    ),
  }
  index = 0
  for stage, count in enumerate(DEPTHS[depth]):
    for i in range(count):
      layers = f"body.{index}.res_layer"
      names = {
        "norm": f"{layers}.0",
        "conv_0": f"{layers}.1",
        "norm_0": f"{layers}.2",
        "prelu": f"{layers}.3",
        "conv_1": f"{layers}.4",
        "norm_1": f"{layers}.5",
        "shortcut": f"body.{index}.shortcut_layer",
      }
      params[f"block_{stage}_{i}"] = _block(state, names)
      index += 1
  return {"params": params}
