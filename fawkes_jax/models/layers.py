"""Convolutions and pooling, in forms that are fast on a CPU too.

What XLA makes of some of them there, or of their gradients, is several times
slower than what is written here; each function says where. On accelerators
they are the same computation.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

_Pair = tuple[int, int]

# Compiled, so that it is traced once for all kernels of a shape.
_KERNEL = jax.jit(nn.initializers.lecun_normal(), static_argnums=1)


def weight(
  module: nn.Module,
  name: str,
  initial: Callable[[jax.Array, tuple[int, ...]], jax.Array],
  shape: tuple[int, ...],
) -> jax.Array:
  """A weight of a module, as `flax.linen.Module.param` gives it.

  That traces the initial values each time, to compare shapes, which takes a
  fifth of the time before a solver's first step. Here what is there is taken
  as it is.

  Args:
    module: that is being initialised or applied.
    name: of the weight.
    initial: of a key and the shape, the initial values.
    shape: of the weight.

  Returns:
    The weight.
  """
  if module.has_variable("params", name):
    return module.get_variable("params", name)
  return module.param(name, initial, shape)


class Convolution(nn.Module):
  """A convolution with a bias, dense or depthwise.

  Attributes:
    width: how many channels it makes.
    size: height and width of its kernel; the padding is size // 2.
    stride: along height and width.
    depthwise: whether each channel is convolved by itself.
    padded: whether to pad at all.
    least: whether to pad with no more than the stride needs, after the image
      first, as TensorFlow does.
    dtype: the type of the computation.
  """

  width: int
  size: int = 1
  stride: int = 1
  depthwise: bool = False
  padded: bool = True
  least: bool = False
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n p q d"]:
    """Convolves images.

    Args:
      x: the images.

    Returns:
      Their convolution, [n, h / stride, w / stride, width] where padded.
    """
    groups = x.shape[-1] if self.depthwise else 1
    kernel = weight(
      self,
      "kernel",
      _KERNEL,
      (self.size, self.size, x.shape[-1] // groups, self.width),
    )
    bias = weight(self, "bias", nn.initializers.zeros, (self.width,))
    y = convolve(
      x,
      kernel.astype(self.dtype),
      strides=(self.stride, self.stride),
      padding=[self._padding(side) for side in x.shape[1:3]],
      groups=groups,
    )
    return add_bias(y, bias.astype(self.dtype))

  def _padding(self, side: int) -> tuple[int, int]:
    """Zeros before and after an axis of this length."""
    if not self.padded:
      return 0, 0
    if not self.least:
      return self.size // 2, self.size // 2
    short = (-(-side // self.stride) - 1) * self.stride + self.size - side
    return max(short, 0) // 2, (max(short, 0) + 1) // 2


def channel_sums(x: Float[Array, "*places c"]) -> Float[Array, " c"]:
  """The sums of each channel over all places.

  As a product with ones: on a CPU XLA's own reduction over all axes but the
  last takes ten times as long.

  Args:
    x: features.

  Returns:
    Their sums.
  """
  places = x.reshape(-1, x.shape[-1])
  return jnp.ones(len(places), x.dtype) @ places


@jax.jit
def add_bias(
  x: Float[Array, "*places c"], bias: Float[Array, " c"]
) -> Float[Array, "*places c"]:
  """Adds a number to each channel; its gradient is fast on a CPU too.

  Args:
    x: features.
    bias: what is added.

  Returns:
    The sums.
  """
  return _add(x, bias)


@jax.custom_vjp
def _add(x: jax.Array, bias: jax.Array) -> jax.Array:
  return x + bias


_add.defvjp(lambda x, bias: (x + bias, None), lambda _, y: (y, channel_sums(y)))


@jax.jit
def prelu(
  x: Float[Array, "*places c"], slope: Float[Array, " c"]
) -> Float[Array, "*places c"]:
  """Multiplies what is negative; its gradient is fast on a CPU too.

  Args:
    x: features.
    slope: by channel, what negative numbers are multiplied by.

  Returns:
    Features of the same shape.
  """
  return _bend(x, slope)


@jax.custom_vjp
def _bend(x: jax.Array, slope: jax.Array) -> jax.Array:
  return jnp.where(x < 0, slope * x, x)


def _prelu_backward(
  saved: tuple[jax.Array, jax.Array], y: jax.Array
) -> tuple[jax.Array, jax.Array]:
  x, slope = saved
  below = jnp.where(x < 0, y, 0)
  return y + (slope - 1) * below, channel_sums(below * x)


_bend.defvjp(lambda x, slope: (_bend(x, slope), (x, slope)), _prelu_backward)


class PRelu(nn.Module):
  """A ReLU with learned slopes for what is negative.

  Attributes:
    shared: whether all channels have one slope, instead of one each.
  """

  shared: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, "*places c"]) -> Float[Array, "*places c"]:
    """Applies the slopes."""
    shape = () if self.shared else (x.shape[-1],)
    slope = weight(self, "slope", nn.initializers.constant(0.25), shape)
    slope = slope.astype(x.dtype)
    return jnp.where(x < 0, slope * x, x) if self.shared else prelu(x, slope)


class InvertedResidual(nn.Module):
  """Expansion, depthwise convolution and projection beside a shortcut.

  Source: "MobileNetV2" (Sandler et al., 2018). The shortcut is there where
  input and output have the same shape.

  Attributes:
    expanded: channels between expansion and projection.
    width: channels of the result.
    stride: of the depthwise convolution.
    activation: after expansion and depthwise convolution.
    dtype: the type of the computation.
  """

  expanded: int
  width: int
  stride: int
  activation: Callable[[jax.Array], jax.Array] = nn.relu6
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n p q d"]:
    """Applies the block to features."""
    y = Convolution(self.expanded, dtype=self.dtype, name="expand")(x)
    y = Convolution(
      self.expanded,
      size=3,
      stride=self.stride,
      depthwise=True,
      dtype=self.dtype,
      name="depthwise",
    )(self.activation(y))
    y = Convolution(self.width, dtype=self.dtype, name="project")(
      self.activation(y)
    )
    return x + y if x.shape == y.shape else y


class PReluResidual(nn.Module):
  """An inverted residual with PReLUs; its channels are weighed, or not.

  Source: `InvertedResidual`, and "Squeeze-and-Excitation Networks" (Hu et al.,
  2018).

  Attributes:
    expanded: channels between expansion and projection.
    width: channels of the result.
    stride: of the depthwise convolution.
    reduction: of channels between squeeze and excitation; None for neither.
    shared: see `PRelu`.
    least: see `Convolution`.
    shortcut: whether there is one where input and output have the same shape.
    dtype: the type of the computation.
  """

  expanded: int
  width: int
  stride: int
  reduction: int | None = None
  shared: bool = False
  least: bool = False
  shortcut: bool = True
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n p q d"]:
    """Applies the block to features."""
    convolution = functools.partial(
      Convolution, least=self.least, dtype=self.dtype
    )
    prelu = functools.partial(PRelu, shared=self.shared)

    y = convolution(self.expanded, name="expand")(x)
    y = convolution(
      self.expanded,
      name="depthwise",
      size=3,
      stride=self.stride,
      depthwise=True,
    )(prelu(name="prelu_0")(y))
    y = convolution(self.width, name="project")(prelu(name="prelu_1")(y))
    if self.reduction is not None:
      z = y.mean(axis=(1, 2), keepdims=True)
      z = convolution(self.width // self.reduction, name="squeeze")(z)
      z = convolution(self.width, name="excite")(prelu(name="prelu_2")(z))
      y = y * nn.sigmoid(z)
    return x + y if self.shortcut and x.shape == y.shape else y


def convolve(
  x: Float[Array, "n height width inputs"],
  kernel: Float[Array, "rows columns depth outputs"],
  *,
  strides: tuple[int, int] = (1, 1),
  padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
  dilations: tuple[int, int] = (1, 1),
  groups: int = 1,
) -> Float[Array, "n rows_out columns_out outputs"]:
  """Convolves images, in a form that is fast on a CPU for every grouping.

  XLA's grouped convolutions are slow there. A depthwise convolution (of one
  channel a group) is the sum of shifted images times one tap of the kernel
  each, which XLA fuses into one loop: 15 to 60 times faster, forward and
  gradient, for 3x3 kernels of MobileFaceNet's sizes on two cores. One whose
  kernel covers the whole image is one product and a sum. Any other grouped
  convolution becomes one convolution a group. A convolution without groups is
  XLA's, or a product where each pixel or the whole image is one place.

  Args:
    x: images.
    kernel: the kernel, in Flax's order; depth is inputs / groups.
    strides: along height and width.
    padding: zeros before and after, along height and width.
    dilations: of the kernel, along height and width.
    groups: into how many groups inputs and outputs are split.

  Returns:
    The images' correlation with the kernel, without a bias.
  """
  pairs = tuple((before, after) for before, after in padding)
  return _convolved(x, kernel, strides, pairs, dilations, groups)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _convolved(
  x: jax.Array,
  kernel: jax.Array,
  strides: _Pair,
  padding: tuple[_Pair, ...],
  dilations: _Pair,
  groups: int,
) -> jax.Array:
  _, _, depth, outputs = kernel.shape
  single = kernel.shape[:2] == strides == dilations == (1, 1)
  if groups == 1 and single and not any(map(any, padding)):
    # As one matrix: of images XLA makes a slow gradient of the kernel.
    product = x.reshape(-1, x.shape[-1]) @ kernel[0, 0]
    return product.reshape(*x.shape[:-1], outputs)
  if groups == 1 and dilations == (1, 1):
    places = [
      (side + sum(pad) - taps) // stride
      for side, pad, taps, stride in zip(
        x.shape[1:3], padding, kernel.shape, strides, strict=False
      )
    ]
    if places == [0, 0]:
      return _product(x, kernel, [before for before, _ in padding])
  if groups == 1:
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      window_strides=strides,
      padding=list(padding),
      rhs_dilation=dilations,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
  if depth > 1:
    return jnp.concatenate(
      [
        convolve(
          part,
          taps,
          strides=strides,
          padding=padding,
          dilations=dilations,
        )
        for part, taps in zip(
          jnp.split(x, groups, axis=-1),
          jnp.split(kernel, groups, axis=-1),
          strict=True,
        )
      ],
      axis=-1,
    )
  if outputs > groups:
    x = jnp.repeat(x, outputs // groups, axis=-1)
  kernel = kernel[:, :, 0]
  unpadded = not any(before or after for before, after in padding)
  if unpadded and kernel.shape[:2] == x.shape[1:3] and dilations == (1, 1):
    return (x * kernel).sum(axis=(1, 2), keepdims=True)
  return _depthwise(
    x, kernel, tuple(strides), tuple(map(tuple, padding)), tuple(dilations)
  )


def _product(
  x: jax.Array, kernel: jax.Array, before: Sequence[int]
) -> jax.Array:
  """A convolution at one place alone, that many zeros before the image's edges.

  XLA's convolutions of images that are smaller than the kernel are slow on a
  CPU.
  """
  for axis, zeros in enumerate(before):
    skipped = min(zeros, kernel.shape[axis])
    met = min(kernel.shape[axis] - skipped, x.shape[1 + axis])
    kernel = jax.lax.slice_in_dim(kernel, skipped, skipped + met, axis=axis)
    x = jax.lax.slice_in_dim(x, 0, met, axis=1 + axis)
  return jnp.tensordot(x, kernel, 3)[:, None, None]


def windows(
  x: Float[Array, "n height width c"],
  window: Sequence[int],
  size: _Pair,
  strides: _Pair,
  dilations: _Pair,
) -> Iterator[Float[Array, "n rows columns c"]]:
  """Yields for each place of a window the pixels that it meets.

  Args:
    x: images, already padded.
    window: rows and columns of the window.
    size: how many windows there are along height and width.
    strides: the window's step along both.
    dilations: of the window.

  Yields:
    Images of one pixel for each window; the places go by rows.
  """
  for start in np.ndindex(*window[:2]):
    first = [place * step for place, step in zip(start, dilations, strict=True)]
    end = [
      begin + (count - 1) * stride + 1
      for begin, count, stride in zip(first, size, strides, strict=True)
    ]
    yield jax.lax.slice(
      x,
      (0, *first, 0),
      (x.shape[0], *end, x.shape[3]),
      (1, *strides, 1),
    )


@functools.partial(jax.jit, static_argnums=(2, 3))
def _shifted_sum(
  x: jax.Array, kernel: jax.Array, strides: _Pair, dilations: _Pair
) -> jax.Array:
  """A depthwise convolution without padding, as a sum of shifted images."""
  rows, columns = (
    (whole - (taps - 1) * dilation - 1) // stride + 1
    for whole, taps, dilation, stride in zip(
      x.shape[1:3], kernel.shape, dilations, strides, strict=False
    )
  )
  views = windows(x, kernel.shape[:2], (rows, columns), strides, dilations)
  taps = kernel.reshape(-1, kernel.shape[2])
  return functools.reduce(
    operator.add, (tap * view for tap, view in zip(taps, views, strict=True))
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _depthwise(
  x: jax.Array,
  kernel: jax.Array,
  strides: _Pair,
  padding: tuple[_Pair, _Pair],
  dilations: _Pair,
) -> jax.Array:
  """A depthwise convolution; its gradient is another one.

  Left to itself, JAX makes of it a sum of padded images, which XLA computes
  three times more slowly on a CPU.
  """
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  return _shifted_sum(x, kernel, strides, dilations)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Sides:
  """Height and width of an image, no arrays."""

  sides: tuple[int, int]


def _depthwise_forward(
  x: Any, kernel: Any, *options: Any
) -> tuple[jax.Array, tuple[jax.Array | None, jax.Array, _Sides]]:
  # Tracing the gradient of a kernel that nobody asks for takes most of the time
  # before a solver's first step.
  kept = x.value if kernel.perturbed else None
  y = _depthwise(x.value, kernel.value, *options)
  return y, (kept, kernel.value, _Sides(x.value.shape[1:3]))


def _depthwise_backward(
  strides: _Pair,
  padding: tuple[_Pair, _Pair],
  dilations: _Pair,
  saved: tuple[jax.Array | None, jax.Array, _Sides],
  gradient: Any,
) -> tuple[jax.Array, jax.Array | None]:
  x, kernel, own = saved
  if isinstance(gradient, jax.custom_derivatives.SymbolicZero):
    gradient = jnp.zeros(gradient.shape, gradient.dtype)
  spread = [(0, 0, 0)]
  for axis in (0, 1):
    reach = (kernel.shape[axis] - 1) * dilations[axis]
    before = reach - padding[axis][0]
    length = (gradient.shape[1 + axis] - 1) * strides[axis] + 1
    after = own.sides[axis] + reach - length - before
    spread.append((before, after, strides[axis] - 1))
  spread.append((0, 0, 0))
  zero = jnp.zeros((), gradient.dtype)
  # The barrier keeps XLA from padding anew for each tap.
  padded = jax.lax.optimization_barrier(jax.lax.pad(gradient, zero, spread))
  to_x = _shifted_sum(padded, kernel[::-1, ::-1], (1, 1), dilations)
  if x is None:
    return to_x, None
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))

  def products(x: jax.Array, gradient: jax.Array) -> jax.Array:
    rows, columns = gradient.shape[1:3]
    views = windows(x, kernel.shape[:2], (rows, columns), strides, dilations)
    return jnp.stack([_channel_products(v, gradient) for v in views])

  def one_by_one(x: jax.Array, gradient: jax.Array) -> jax.Array:
    # An image's products stay in a CPU's cache: of small batches this is four
    # times faster.
    def add(sums: jax.Array, image: tuple[jax.Array, jax.Array]) -> Any:
      return sums + products(*(array[None] for array in image)), None

    zeros = jnp.zeros((kernel.shape[0] * kernel.shape[1], kernel.shape[2]))
    return jax.lax.scan(add, zeros.astype(x.dtype), (x, gradient))[0]

  to_kernel = jax.lax.platform_dependent(
    x, gradient, cpu=one_by_one, default=products
  )
  return to_x, to_kernel.reshape(kernel.shape)


def _channel_products(x: jax.Array, y: jax.Array) -> jax.Array:
  """The sums over all places of images of the products of two, by channel."""
  return channel_sums(x * y)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward, symbolic_zeros=True)


def max_pool(
  x: Float[Array, "n height width c"],
  window: _Pair,
  strides: _Pair,
  dilations: _Pair = (1, 1),
) -> Float[Array, "n height_out width_out c"]:
  """Max-pools images without padding, one axis after the other.

  On a CPU the gradient is several times faster than that of
  ``lax.reduce_window``, and than that of a maximum of strided slices.

  Args:
    x: images.
    window: rows and columns of the window.
    strides: its step along height and width.
    dilations: of the window.

  Returns:
    The maxima. Of equal ones in a window the first has the whole gradient.
  """
  for axis, options in enumerate(zip(window, strides, dilations, strict=True)):
    x = _max_along(x, 1 + axis, *options)
  return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _max_along(
  x: jax.Array, axis: int, window: int, stride: int, dilation: int
) -> jax.Array:
  """The maximum of each window along one axis."""
  return functools.reduce(jnp.maximum, _taps(x, axis, window, stride, dilation))


def _max_forward(x: jax.Array, *options: int) -> tuple[jax.Array, jax.Array]:
  return _max_along(x, *options), x


def _max_backward(
  axis: int,
  window: int,
  stride: int,
  dilation: int,
  x: jax.Array,
  gradient: jax.Array,
) -> tuple[jax.Array]:
  count, blocks = _blocks(x.shape[axis], window, stride, dilation)
  taps = list(_taps(x, axis, window, stride, dilation))
  best = functools.reduce(jnp.maximum, taps)
  free = jnp.ones(best.shape, bool)
  parts = [jnp.zeros((), gradient.dtype)] * stride
  margins = [(0, 0)] * x.ndim
  for i, tap in enumerate(taps):
    first, part = divmod(i * dilation, stride)
    margins[axis] = first, blocks - count - first
    won = jnp.where(free & (tap == best), gradient, 0)
    free &= tap != best
    parts[part] += jnp.pad(won, margins)
  shape = [blocks if i == axis else side for i, side in enumerate(x.shape)]
  spread = jnp.stack(
    [jnp.broadcast_to(part, shape) for part in parts], axis + 1
  )
  shape[axis] *= stride
  return (_resized(spread.reshape(shape), axis, x.shape[axis]),)


_max_along.defvjp(_max_forward, _max_backward)


def _blocks(
  side: int, window: int, stride: int, dilation: int
) -> tuple[int, int]:
  """How many windows there are, and blocks of a stride's length they touch."""
  reach = (window - 1) * dilation
  count = (side - reach - 1) // stride + 1
  return count, count + reach // stride


def _taps(
  x: jax.Array, axis: int, window: int, stride: int, dilation: int
) -> Iterator[jax.Array]:
  """Yields what each place of a window meets along an axis.

  The stride's steps get an axis of their own: XLA's strided slices, and even
  more their gradients, are slow on a CPU.
  """
  count, blocks = _blocks(x.shape[axis], window, stride, dilation)
  x = _resized(x, axis, blocks * stride)
  x = x.reshape(*x.shape[:axis], blocks, stride, *x.shape[axis + 1 :])
  for i in range(window):
    first, part = divmod(i * dilation, stride)
    along = jax.lax.index_in_dim(x, part, axis + 1, keepdims=False)
    yield jax.lax.slice_in_dim(along, first, first + count, axis=axis)


def _resized(x: jax.Array, axis: int, size: int) -> jax.Array:
  """Cut off at the end of an axis, or filled with zeros there."""
  margins = [(0, 0, 0)] * x.ndim
  margins[axis] = (0, size - x.shape[axis], 0)
  return jax.lax.pad(x, jnp.zeros((), x.dtype), margins)
