"""YuNet: boxes and five landmarks of faces in one pass.

Every cell of three grids, of 8, 16 and 32 pixels, says whether the centre of a
face is in it, where its box is, and where eyes, nose and the corners of the
mouth are.

Source: "YuNet: A Tiny Millisecond-level Face Detector" (Wu, Peng and Yu, 2023;
github.com/ShiqiYu/libfacedetection.train). Its separable convolutions are a
matrix a pixel and a depthwise convolution behind it.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from fawkes_jax.models import layers
from fawkes_jax.models.onnx import folding

STRIDES = (8, 16, 32)
"""Pixels of the image from one cell to the next, by grid."""

MULTIPLE = 32
"""Heights and widths of images are multiples of this."""

# Channels after the first convolution, of what the grids are read from, how
# many numbers say that there is a face, and the channels of the separable
# convolutions at every 4th, 8th, 16th and 32nd pixel.
_STEM = 16
_NECK = 64
_SCORES = 2
_STAGES = ((16, 64, 64, 64), (64, 64), (64, 64), (64, 64))


class Grid(NamedTuple):
  """What the cells of one grid say of an image.

  Attributes:
    scores: [n, rows, columns, 2], logits; a face is as likely as the geometric
      mean of their logistic functions.
    boxes: [n, rows, columns, 4], the centre of the box from the cell's upper
      left corner, x and y, then the logarithms of its width and height; all in
      cells.
    points: [n, rows, columns, 10], x and y of each landmark from the cell's
      upper left corner, in cells: the eyes, the nose, the corners of the mouth,
      from left to right in the picture.
  """

  scores: Float32[Array, "n r c 2"]
  boxes: Float32[Array, "n r c 4"]
  points: Float32[Array, "n r c 10"]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _relu(x: jax.Array, leak: float) -> jax.Array:
  """ReLU, whose gradient below zero is `leak`."""
  return nn.relu(x)


@_relu.defjvp
def _relu_jvp(
  leak: float, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
  [x], [tangent] = primals, tangents
  return nn.relu(x), jnp.where(x > 0, tangent, leak * tangent)


class _Separable(nn.Module):
  """A matrix a pixel, then a depthwise 3x3 convolution.

  Attributes:
    width: channels of the result.
    active: whether a ReLU follows.
    leak: see `YuNet`.
    dtype: the type of the computation.
  """

  width: int
  active: bool = True
  leak: float = 0.0
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w d"]:
    x = layers.Convolution(self.width, dtype=self.dtype, name="pointwise")(x)
    x = layers.Convolution(
      self.width, size=3, depthwise=True, dtype=self.dtype, name="depthwise"
    )(x)
    if self.active:
      x = _relu(x, self.leak)
    return x


class _Stem(nn.Module):
  """A 3x3 convolution of stride 2 as one product, which is fast on a CPU.

  Attributes:
    width: channels of the result.
    dtype: the type of the computation.
  """

  width: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n p q d"]:
    depth = x.shape[-1]
    kernel = layers.weight(
      self, "kernel", nn.initializers.lecun_normal(), (3, 3, depth, self.width)
    )
    bias = layers.weight(self, "bias", nn.initializers.zeros, (self.width,))
    half = x.shape[1] // 2, x.shape[2] // 2
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    views = layers.windows(x, (3, 3), half, (2, 2), (1, 1))
    places = jnp.concatenate(list(views), axis=-1)
    y = places @ kernel.astype(self.dtype).reshape(-1, self.width)
    return layers.add_bias(y, bias.astype(self.dtype))


def _halved(x: jax.Array) -> jax.Array:
  """The maxima of squares of 2x2 places."""
  return layers.max_pool(x, (2, 2), (2, 2))


def _doubled(x: jax.Array) -> jax.Array:
  """Each place as a square of 2x2."""
  n, rows, columns, width = x.shape
  x = jnp.broadcast_to(x[:, :, None, :, None], (n, rows, 2, columns, 2, width))
  return x.reshape(n, 2 * rows, 2 * columns, width)


class YuNet(nn.Module):
  """A detector of faces.

  Attributes:
    leak: the gradient of ReLUs below zero, which changes nothing of what the
      network says. In a training with 0, channels that are nowhere above
      zero stay so.
    dtype: the type of the computation.
  """

  leak: float = 0.0
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, images: Float[Array, "n h w 3"]) -> tuple[Grid, ...]:
    """Looks for faces.

    Args:
      images: RGB in 0..255; height and width are multiples of `MULTIPLE`.

    Returns:
      The grids of `STRIDES`.
    """

    def separable(x: jax.Array, width: int, name: str) -> jax.Array:
      return _Separable(width, leak=self.leak, dtype=self.dtype, name=name)(x)

    x = images.astype(self.dtype)
    x = _relu(_Stem(_STEM, dtype=self.dtype, name="stem")(x), self.leak)
    x = separable(x, _STEM, "stem_separable")
    features = []
    for i, widths in enumerate(_STAGES):
      x = _halved(x)
      for j, width in enumerate(widths):
        x = separable(x, width, f"stage_{i}_{j}")
      features.append(x)
    grids: list[Grid] = []
    for i in (2, 1, 0):
      own = features[i + 1]
      if grids:
        own = own + _doubled(x)
      x = separable(own, _NECK, f"lateral_{i}")
      read = separable(x, _NECK, f"shared_{i}")
      grids.append(self._read(read, i))
    return tuple(reversed(grids))

  def _read(self, x: jax.Array, grid: int) -> Grid:
    """What the cells of a grid say; called while the module is applied."""
    y = _Separable(
      _SCORES + 14, active=False, dtype=self.dtype, name=f"head_{grid}"
    )(x)
    y = y.astype(jnp.float32)
    return Grid(
      y[..., :_SCORES], y[..., _SCORES : _SCORES + 4], y[..., _SCORES + 4 :]
    )


def ends_block(name: str) -> bool:
  """Whether a block of `YuNet` ends with a module; see `training.blocks`.

  Args:
    name: of a module of the network.

  Returns:
    True for the first convolution and each separable one.
  """
  kind = name.split("_")[0]
  return kind in ("stem", "stage", "lateral", "shared", "head")


def likelihood(scores: Float[Array, "*places 2"]) -> Float[Array, "*places"]:
  """How likely there is a face, 0..1.

  Args:
    scores: of a `Grid`.
  """
  return jnp.exp(jax.nn.log_sigmoid(scores).mean(axis=-1))


class Faces(NamedTuple):
  """Faces of an image, by falling score.

  Attributes:
    boxes: left, top, right, bottom in pixels; 0 is the first pixel's left edge.
    points: x and y of five landmarks, likewise.
    scores: 0..1.
  """

  boxes: Float32[np.ndarray, "n 4"]
  points: Float32[np.ndarray, "n 5 2"]
  scores: Float32[np.ndarray, " n"]

  def some(self, which: np.ndarray) -> "Faces":
    """Those of a mask, or of indices."""
    return Faces(*(array[which] for array in self))

  @classmethod
  def together(cls, *parts: "Faces") -> "Faces":
    """Those of all parts, one after the other."""
    return cls(*map(np.concatenate, zip(*parts, strict=True)))


def decode(
  grids: Sequence[Grid],
  likely: Sequence[Float32[np.ndarray, "n rows columns"]],
  *,
  threshold: float,
  overlap: float,
) -> list[Faces]:
  """Reads the faces out of grids.

  Args:
    grids: what a network says of a batch of images.
    likely: the `likelihood` of each grid's scores.
    threshold: the least likelihood of a face.
    overlap: of boxes whose intersection is more than this part of their union,
      the likeliest remains.

  Returns:
    The faces of each image.
  """
  boxes, points = (
    [np.asarray(getattr(grid, name)) for grid in grids]
    for name in ("boxes", "points")
  )
  found = []
  for i in range(len(likely[0])):
    parts = []
    for grid, stride in enumerate(STRIDES):
      places = np.argwhere(likely[grid][i] >= threshold)
      at = tuple(places.T)
      corners = places[:, ::-1].astype(np.float32)
      box, point = boxes[grid][i][at], points[grid][i][at]
      centre = corners + box[:, :2]
      half = np.exp(np.minimum(box[:, 2:], 8)) / 2
      parts.append(
        Faces(
          np.concatenate([centre - half, centre + half], axis=1) * stride,
          (point.reshape(-1, 5, 2) + corners[:, None]) * stride,
          likely[grid][i][at],
        )
      )
    all_of_them = Faces.together(*parts)
    kept = suppress(all_of_them.boxes, all_of_them.scores, overlap)
    found.append(all_of_them.some(np.array(kept, int)))
  return found


def suppress(
  boxes: Float[np.ndarray, "n 4"],
  scores: Float[np.ndarray, " n"],
  overlap: float,
) -> list[int]:
  """Keeps the best of overlapping boxes.

  Args:
    boxes: left, top, right, bottom.
    scores: the higher the better.
    overlap: see `decode`.

  Returns:
    The indices of those that remain, by falling score.
  """
  kept: list[int] = []
  for i in np.argsort(-scores, kind="stable"):
    if not (overlaps(boxes[i], boxes[kept]) > overlap).any():
      kept.append(int(i))
  return kept


def overlaps(
  box: Float[np.ndarray, "4"], others: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, " n"]:
  """The intersections of a box with others over their unions."""
  shared = np.maximum(
    np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0
  ).prod(axis=1)
  areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
  union = areas + (box[2:] - box[:2]).prod() - shared
  return shared / np.maximum(union, 1e-9)


def convert(network: folding.Layers) -> dict[str, Any]:
  """Turns YuNet in ONNX into the variables of `YuNet`.

  Args:
    network: YuNet of github.com/ShiqiYu/libfacedetection.train.

  Returns:
    The Flax variables, float32.

  Raises:
    FawkesError: the network has more or fewer layers.
  """
  both = ("pointwise", "depthwise")
  names: list[folding.Name] = [("stem",)]
  names += [("stem_separable", part) for part in both]
  for i, widths in enumerate(_STAGES):
    for j, _ in enumerate(widths):
      names += [(f"stage_{i}_{j}", part) for part in both]
  names += [(f"lateral_{i}", part) for i in (2, 1, 0) for part in both]
  names += [(f"shared_{i}", part) for i in range(3) for part in both]
  # The graph has all matrices of the heads before their convolutions.
  for part, heads in (
    ("pointwise", ("class", "box", "object", "points")),
    ("depthwise", ("class", "object", "box", "points")),
  ):
    names += [(f"{head}_{i}", part) for head in heads for i in range(3)]
  params = network.named(names)
  for i in range(3):
    # The heads' layers side by side are one of more channels.
    parts = [
      params.pop(f"{head}_{i}") for head in ("class", "object", "box", "points")
    ]
    params[f"head_{i}"] = {
      part: {
        key: np.concatenate([head[part][key] for head in parts], axis=-1)
        for key in ("kernel", "bias")
      }
      for part in both
    }
  # It was trained on blue, green and red.
  params["stem"]["kernel"] = params["stem"]["kernel"][:, :, ::-1]
  return {"params": params}
