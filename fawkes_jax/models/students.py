"""Small face extractors that are trained by the package itself.

Two architectures that share little, for two surrogates that err differently: a
residual network of dense convolutions and a transformer on a few large
patches. Both are made for cheap gradients with respect to the image, on CPUs
too: dense convolutions and matrix products only, and no image larger than
28x28 after the first layer.

Sources: "Deep Residual Learning for Image Recognition" (He et al., 2015),
"MobileFaceNets" (Chen et al., 2018; the learned weight of each place in the
last pooling), "An Image is Worth 16x16 Words" (Dosovitskiy et al., 2020),
"Early Convolutions Help Transformers See Better" (Xiao et al., 2021), "Root
Mean Square Layer Normalization" (Zhang and Sennrich, 2019).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from fawkes_jax.imaging import geometry
from fawkes_jax.models import layers

INPUT_SIZE = 112
"""Height and width of an input face, in pixels."""

EMBEDDING_SIZE = 256
"""Length of the embedding."""

TEMPLATE = geometry.Template(left=-0.338, top=-0.566, side=1.66)
"""What is shown of the face frame: as much as in ArcFace's alignment."""

_WIDTHS = (32, 64, 128)
_DEPTHS = (2, 4, 3)
_MOMENTUM = 0.98


def _pixels(
  images: Float[Array, "n 112 112 3"], squares: int, dtype: DTypeLike
) -> Float[Array, "n rows columns channels"]:
  """Images in about -1..1 with squares of pixels as channels."""
  x = (images.astype(jnp.float32) - 127.5) / 128
  n, height, width, channels = x.shape
  rows, columns = height // squares, width // squares
  x = x.reshape(n, rows, squares, columns, squares, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(n, rows, columns, -1).astype(dtype)


class _Pool(nn.Module):
  """The embedding: a sum over all places, weighted for each channel apart.

  Batch normalisation centres it, so that cosines of embeddings differ from the
  first step on.
  """

  dtype: DTypeLike

  @nn.compact
  def __call__(
    self, x: Float[Array, "n rows columns c"], train: bool
  ) -> Float32[Array, "n 256"]:
    places = x.shape[1] * x.shape[2]
    weights = layers.weight(
      self,
      "weights",
      lambda _, shape: jnp.full(shape, 1 / places, jnp.float32),
      x.shape[1:],
    )
    pooled = (x * weights.astype(self.dtype)).sum(axis=(1, 2))
    embedding = nn.Dense(EMBEDDING_SIZE, use_bias=False, name="embedding")(
      pooled.astype(jnp.float32)
    )
    return nn.BatchNorm(
      use_running_average=not train,
      momentum=_MOMENTUM,
      use_bias=False,
      use_scale=False,
      name="norm",
    )(embedding)


def _native(
  x: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> jax.Array:
  """XLA's convolution."""
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((padding, padding), (padding, padding)),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(
  x: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> jax.Array:
  """A convolution whose kernel's gradient is fast on CPUs too.

  XLA's own convolution for it reaches 8 GFLOP/s on two cores for 28x28x32
  images; a matrix product for each image and place of the kernel, 28.
  """
  return _native(x, kernel, stride, padding)


def _convolve_forward(
  x: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _convolve(x, kernel, stride, padding), (x, kernel)


def _convolve_backward(
  stride: int,
  padding: int,
  kept: tuple[jax.Array, jax.Array],
  gradient: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  x, kernel = kept
  plain = functools.partial(_native, stride=stride, padding=padding)
  (to_x,) = jax.linear_transpose(lambda x: plain(x, kernel), x)(gradient)

  def native(x: jax.Array, gradient: jax.Array) -> jax.Array:
    (result,) = jax.linear_transpose(lambda k: plain(x, k), kernel)(gradient)
    return result

  def products(x: jax.Array, gradient: jax.Array) -> jax.Array:
    rows, columns = (stride * size for size in gradient.shape[1:3])
    edge = (padding, padding + stride)
    x = jnp.pad(x, ((0, 0), edge, edge, (0, 0)))
    taps = [
      jnp.einsum(
        "nhwc,nhwd->ncd",
        x[:, i : i + rows : stride, j : j + columns : stride],
        gradient,
      ).sum(axis=0)
      for i in range(kernel.shape[0])
      for j in range(kernel.shape[1])
    ]
    return jnp.stack(taps).reshape(kernel.shape)

  to_kernel = jax.lax.platform_dependent(
    x, gradient, cpu=products, default=native
  )
  return to_x, to_kernel


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _conv_general_dilated(
  x: jax.Array,
  kernel: jax.Array,
  strides: Sequence[int],
  padding: Sequence[tuple[int, int]],
  **_: Any,
) -> jax.Array:
  """`_convolve` as `nn.Conv` calls it."""
  return _convolve(x, kernel, strides[0], padding[0][0])


class StudentResNet(nn.Module):
  """A residual network of 3x3 convolutions: 1.4 million weights.

  Attributes:
    dtype: the type of the computation.
  """

  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, images: Float[Array, "n 112 112 3"], train: bool = False
  ) -> Float32[Array, "n 256"]:
    """Embeds a batch of faces.

    Args:
      images: RGB in 0..255, aligned to `TEMPLATE`.
      train: whether batch normalisation takes the batch's own statistics and
        updates the collection "batch_stats".

    Returns:
      The embeddings, not normalised.
    """

    def convolve(
      x: jax.Array, width: int, *, size: int = 3, strides: int = 1
    ) -> jax.Array:
      x = nn.Conv(
        width,
        (size, size),
        strides=strides,
        padding=size // 2,
        use_bias=False,
        dtype=self.dtype,
        conv_general_dilated=_conv_general_dilated,
      )(x)
      norm = nn.BatchNorm(
        use_running_average=not train, momentum=_MOMENTUM, dtype=self.dtype
      )
      return norm(x)

    def activate(x: jax.Array) -> jax.Array:
      return nn.leaky_relu(x, 0.1)

    x = _pixels(images, 2, self.dtype)
    x = activate(convolve(x, _WIDTHS[0], strides=2))
    for width, depth in zip(_WIDTHS, _DEPTHS, strict=True):
      for _ in range(depth):
        strides = 1 if width == x.shape[-1] else 2
        y = activate(convolve(x, width, strides=strides))
        y = convolve(y, width)
        if strides > 1:
          x = convolve(_halved(x), width, size=1)
        x = activate(x + y)
    x = activate(convolve(x, EMBEDDING_SIZE, size=1))
    return _Pool(self.dtype, name="pool")(x, train)


def _halved(x: jax.Array) -> jax.Array:
  """The means of squares of 2x2 places."""
  n, height, width, channels = x.shape
  x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
  return x.mean(axis=(2, 4))


class StudentViT(nn.Module):
  """A transformer on 7x7 patches after a convolutional stem: 1.4 M weights.

  Attributes:
    dtype: the type of the computation.
    width: the width of each patch's vector.
    depth: number of layers.
    heads: the heads of the attention.
  """

  dtype: DTypeLike = jnp.float32
  width: int = 128
  depth: int = 6
  heads: int = 4

  @nn.compact
  def __call__(
    self, images: Float[Array, "n 112 112 3"], train: bool = False
  ) -> Float32[Array, "n 256"]:
    """Embeds a batch of faces.

    Args:
      images: RGB in 0..255, aligned to `TEMPLATE`.
      train: whether batch normalisation takes the batch's own statistics and
        updates the collection "batch_stats".

    Returns:
      The embeddings, not normalised.
    """

    def convolve(
      x: jax.Array, width: int, size: int, strides: int
    ) -> jax.Array:
      return nn.Conv(
        width,
        (size, size),
        strides=strides,
        padding="SAME" if size > strides else 0,
        dtype=self.dtype,
      )(x)

    x = _pixels(images, 4, self.dtype)
    x = nn.gelu(convolve(x, 48, 3, 1))
    x = nn.gelu(convolve(self._norm(x), 64, 3, 2))
    x = convolve(self._norm(x), self.width, 2, 2)
    n, rows, columns, width = x.shape
    x = x.reshape(n, rows * columns, width)
    place = layers.weight(
      self, "place", nn.initializers.normal(0.02), (rows * columns, width)
    )
    x = x + place.astype(self.dtype)
    for _ in range(self.depth):
      x = x + self._attend(self._norm(x))
      y = nn.Dense(4 * width, dtype=self.dtype)(self._norm(x))
      x = x + nn.Dense(width, dtype=self.dtype)(nn.gelu(y))
    x = nn.Dense(EMBEDDING_SIZE, dtype=self.dtype)(self._norm(x))
    x = nn.gelu(x).reshape(n, rows, columns, EMBEDDING_SIZE)
    return _Pool(self.dtype, name="pool")(x, train)

  def _norm(self, x: jax.Array) -> jax.Array:
    return nn.RMSNorm(dtype=self.dtype)(x)

  def _attend(self, x: Float[Array, "n t w"]) -> Float[Array, "n t w"]:
    """Multi-head self-attention."""
    n, places, width = x.shape
    size = width // self.heads
    y = nn.Dense(3 * width, dtype=self.dtype)(x)
    q, k, v = jnp.moveaxis(y.reshape(n, places, 3, self.heads, size), 2, 0)
    scores = jnp.einsum("nqhs,nkhs->nhqk", q, k) / size**0.5
    weights = nn.softmax(scores.astype(jnp.float32)).astype(self.dtype)
    y = jnp.einsum("nhqk,nkhs->nqhs", weights, v)
    return nn.Dense(width, dtype=self.dtype)(y.reshape(n, places, width))


STUDENTS: dict[str, Callable[..., nn.Module]] = {
  "student_resnet": StudentResNet,
  "student_vit": StudentViT,
}
"""The modules by name; each takes `dtype`."""


def initialise(module: nn.Module, seed: int) -> dict[str, Any]:
  """Random variables of a student.

  Args:
    module: of `STUDENTS`.
    seed: the same seed gives the same values.

  Returns:
    The collections "params" and "batch_stats".
  """
  images = jnp.zeros((1, INPUT_SIZE, INPUT_SIZE, 3))
  return dict(jax.jit(module.init)(jax.random.key(seed), images))
