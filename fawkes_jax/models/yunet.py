"""YuNet: boxes and five landmarks of faces in one pass.

Every cell of three grids, of 8, 16 and 32 pixels, says whether the centre of a
face is in it, where its box is, and where eyes, nose and the corners of the
mouth are.

Source: "YuNet: A Tiny Millisecond-level Face Detector" (Wu, Peng and Yu, 2023;
github.com/ShiqiYu/libfacedetection.train). Its separable convolutions are a
matrix a pixel and a depthwise convolution behind it.
"""

import concurrent.futures
import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, UInt8

from fawkes_jax import types
from fawkes_jax.models import layers, resizing
from fawkes_jax.models.onnx import folding
from fawkes_jax.xla import compiler

STRIDES = (8, 16, 32)
"""Pixels of the image from one cell to the next, by grid."""

MULTIPLE = 32
"""Heights and widths of images are multiples of this."""

_ROOM = 1.6
"""A photo is searched again where its longer side is more than this times the
largest face that is found well."""

_LEAST_AGAIN = 1.5
"""What is found in a smaller copy counts from this times `least_side` on."""

DOUBT = 0.2
"""From this likelihood on a face is likely; docs/cloaking.md has the
measurement."""

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
    all_of_them = _concatenated(*parts)
    kept = suppress(all_of_them.boxes, all_of_them.scores, overlap)
    found.append(_some(all_of_them, np.array(kept, int)))
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


@functools.cache
def _program() -> jax.stages.Wrapped:
  """Looks for faces in images: gives grids, and how likely each place is."""

  def look(
    variables: Any, images: UInt8[Array, "n h w 3"]
  ) -> tuple[list[Grid], list[jax.Array]]:
    grids: Any = YuNet().apply(variables, images)
    return grids, [likelihood(grid.scores) for grid in grids]

  return compiler.jit(look)


_Shape = tuple[int, ...]  # Height and width.


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Detector(types.Detector):
  """Finds faces and their landmarks in photos of any size.

  Photos are searched at a scale at which the smallest face that is looked for
  has `least_side` pixels; where the network knows no faces as large as they may
  be there, a second time at a smaller one. A photo may lie on its side, as
  scanned ones do: where no face is beyond doubt, it is searched turned by one,
  two and three quarters, too. Canvases have a coarse ladder of sizes, so that
  photos of many sizes need few compilations.

  Attributes:
    name: for reports.
    variables: the weights of the network.
    threshold: the least likelihood of a face, 0..1.
    doubt: the least likelihood with which a face is likely.
    overlap: see `decode`.
    least_side: the side of the smallest face that the network finds well.
    most_side: that of the largest one; None where it finds all.
    certain: the likelihood from which on a face is beyond doubt, so that its
      photo is upright; None where photos are only searched as they are.
    turned_threshold: the least likelihood of a face in a turned photo, where
      `threshold` is not higher.
    max_pixels: a photo is never searched at more pixels than this, which bounds
      memory. It prevails over the smallest face; `smallest_face` says what is
      looked for.
    batch_size: as many photos of one size of canvas are searched at once. On a
      CPU one is fastest.
  """

  name: str
  variables: Any
  threshold: float = 0.6
  doubt: float = DOUBT
  overlap: float = 0.3
  least_side: float = 16.0
  most_side: float | None = None
  certain: float | None = None
  turned_threshold: float = 0.6
  max_pixels: int = 4_000_000
  batch_size: int = 1

  def look(
    self,
    photos: Sequence[UInt8[np.ndarray, "h w 3"]],
    *,
    min_face_pixels: float | None = None,
    pool: concurrent.futures.Executor | None = None,
  ) -> list[types.Detections]:
    """Finds the faces of photos, or where they are likely.

    Args:
      photos: uint8 [h, w, 3], RGB, upright, of any sizes.
      min_face_pixels: the side of the smallest faces to look for, in pixels of
        the photo. Halving it makes the search four times as expensive. None
        means `default_min_face` of each photo.
      pool: of threads that make photos smaller; None for the caller's.

    Returns:
      What is in each photo, with landmarks. Right and bottom of a box are the
      last pixels inside, and it may reach outside the photo.

    Raises:
      ValueError: `min_face_pixels` is not positive.
    """
    if min_face_pixels is not None and min_face_pixels <= 0:
      raise ValueError(f"min_face_pixels must be > 0, got {min_face_pixels}")
    looks = []
    for i, photo in enumerate(photos):
      shape = photo.shape[:2]
      looks += [(i, s) for s in self._search_sizes(shape, min_face_pixels)]
    apply = map if pool is None else pool.map
    scaled: list[list[np.ndarray]] = [[] for _ in photos]
    for (i, _), image in zip(
      looks,
      apply(
        resizing.resized,
        [photos[i] for i, _ in looks],
        [size for _, size in looks],
      ),
      strict=True,
    ):
      scaled[i].append(image)
    shapes = [photo.shape[:2] for photo in photos]
    searched = self._all_searched(scaled)
    upright = [
      self._joined(some, shape, self.threshold)
      for some, shape in zip(searched, shapes, strict=True)
    ]
    doubtful = [
      i
      for i, faces in enumerate(upright)
      if self.certain is not None and not (faces.scores >= self.certain).any()
    ]
    turned = self._turned(
      [scaled[i] for i in doubtful], [shapes[i] for i in doubtful]
    )
    for i, more in zip(doubtful, turned, strict=True):
      upright[i] = self._best(upright[i], more)
    found = []
    for faces, some, shape in zip(upright, searched, shapes, strict=True):
      likely = None
      if not faces.scores.size:
        doubted = _listed(self._joined(some, shape, self.doubt))
        likely = max(doubted, key=lambda face: face.score, default=None)
      found.append(types.Detections(faces=_listed(faces), likely=likely))
    return found

  def _all_searched(
    self, scaled: Sequence[Sequence[np.ndarray]]
  ) -> list[list[tuple[_Shape, Faces]]]:
    """Each photo's images with their faces; the images' sizes beside them."""
    faces = iter(self._searched([image for some in scaled for image in some]))
    return [[(i.shape[:2], next(faces)) for i in some] for some in scaled]

  def _searched(
    self, images: Sequence[UInt8[np.ndarray, "h w 3"]]
  ) -> list[Faces]:
    """The faces of images at the scale at which they are searched."""
    canvases: dict[tuple[int, int], list[int]] = {}
    for i, image in enumerate(images):
      height, width = image.shape[:2]
      bucket = canvas_side(height), canvas_side(width)
      canvases.setdefault(bucket, []).append(i)
    variables = jax.device_put(self.variables)
    found: dict[int, Faces] = {}
    for bucket, members in canvases.items():
      while members:
        count = self.batch_size if len(members) >= self.batch_size else 1
        chunk, members = members[:count], members[count:]
        canvas = np.zeros((count, *bucket, 3), np.uint8)
        for i, place in zip(chunk, canvas, strict=True):
          height, width = images[i].shape[:2]
          place[:height, :width] = images[i]
        grids, likely = jax.device_get(
          _program()(variables, jax.device_put(canvas))
        )
        # What is less likely does not suppress what is likelier.
        least = min(self.doubt, self.threshold)
        read = decode(grids, likely, threshold=least, overlap=self.overlap)
        found.update(zip(chunk, read, strict=True))
    return [found[i] for i in range(len(images))]

  def _turned(
    self, scaled: Sequence[Sequence[np.ndarray]], shapes: Sequence[_Shape]
  ) -> list[Faces]:
    """The faces of photos that are not upright.

    Args:
      scaled: each photo at the scales at which it is searched.
      shapes: of the photos.
    """
    quarters = 1, 2, 3
    least = max(self.turned_threshold, self.threshold)
    searched = iter(
      self._all_searched(
        [[np.rot90(s, q) for s in some] for some in scaled for q in quarters]
      )
    )
    turned = []
    for shape in shapes:
      parts = []
      for quarter in quarters:
        here = shape[::-1] if quarter % 2 else shape
        faces = self._joined(next(searched), here, least)
        parts.append(_turned_back(faces, quarter, shape))
      turned.append(_concatenated(*parts))
    return turned

  def _joined(
    self,
    looks: Sequence[tuple[_Shape, Faces]],
    shape: _Shape,
    least: float,
  ) -> Faces:
    """The faces of a photo that was searched at one or two scales.

    What the first search finds beyond the sizes that the network knows may be a
    part of a face; it is kept where the second finds no face.

    Args:
      looks: the size at which it was searched, and what was found, of each.
      shape: of the photo.
      least: the likelihood that counts.
    """
    looks = [(size, _some(f, f.scores >= least)) for size, f in looks]
    (size, faces), *again = looks
    sides = _sides(faces)
    faces = _scaled(faces, size, shape)
    for size, others in again:
      large = _sides(others) >= _LEAST_AGAIN * self.least_side
      others = _scaled(_some(others, large), size, shape)
      doubtful = sides > (self.most_side or np.inf)
      part = [
        unsure and bool((_covered(box, others.boxes) > 0.5).any())
        for unsure, box in zip(doubtful, faces.boxes, strict=True)
      ]
      faces = _some(faces, ~np.array(part, bool))
      faces = self._best(faces, others)
    inside = (faces.boxes[:, :2] < shape[::-1]).all(axis=1)
    return _some(faces, np.asarray(inside))

  def _best(self, *parts: Faces) -> Faces:
    """The likeliest of faces that overlap."""
    faces = _concatenated(*parts)
    kept = suppress(faces.boxes, faces.scores, self.overlap)
    return _some(faces, np.array(kept, int))

  def smallest_face(
    self, shape: tuple[int, int], min_face_pixels: float | None = None
  ) -> float:
    """See `types.Detector`."""
    size = self._search_sizes(shape, min_face_pixels)[0]
    return self.least_side * shape[0] / size[0]

  def _search_sizes(
    self, shape: tuple[int, ...], min_face_pixels: float | None
  ) -> list[tuple[int, int]]:
    """Heights and widths at which a photo is searched, one or two."""
    height, width = shape
    smallest = min_face_pixels or default_min_face(height, width)
    scales = [
      min(
        self.least_side / smallest,
        math.sqrt(self.max_pixels / (height * width)),
      )
    ]
    # No face is larger than the photo.
    longest = max(shape)
    if (
      self.most_side is not None
      and scales[0] * longest > _ROOM * self.most_side
    ):
      scales.append(_ROOM * self.most_side / longest)
    return [
      (max(1, round(height * scale)), max(1, round(width * scale)))
      for scale in scales
    ]


def _some(faces: Faces, which: np.ndarray) -> Faces:
  """Those of a mask, or of indices."""
  return Faces(*(array[which] for array in faces))


def _sides(faces: Faces) -> np.ndarray:
  """The square roots of the areas of boxes."""
  boxes = faces.boxes
  return np.sqrt(np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1))


def _scaled(faces: Faces, size: _Shape, shape: _Shape) -> Faces:
  """Faces of a photo that was searched at some height and width."""
  ratio = np.array([shape[1] / size[1], shape[0] / size[0]], np.float32)
  return Faces(
    faces.boxes * np.tile(ratio, 2), faces.points * ratio, faces.scores
  )


def _concatenated(*parts: Faces) -> Faces:
  return Faces(*map(np.concatenate, zip(*parts, strict=True)))


def _turned_back(faces: Faces, quarters: int, shape: _Shape) -> Faces:
  """Faces of a photo of some shape that `np.rot90` has turned."""
  height, width = shape
  boxes, points = faces.boxes.reshape(-1, 2, 2), faces.points
  for quarter in range(quarters, 0, -1):
    # What this quarter has turned was so wide.
    side = width if quarter % 2 else height
    boxes, points = (
      np.stack([np.float32(side) - at[..., 1], at[..., 0]], axis=-1)
      for at in (boxes, points)
    )
  boxes = np.concatenate([boxes.min(axis=1), boxes.max(axis=1)], axis=1)
  return Faces(boxes, points, faces.scores)


def _listed(faces: Faces) -> list[types.Detection]:
  """Faces with their boxes from edges to the last pixels inside."""
  return [
    types.Detection(
      box=box - np.array([0, 0, 1, 1], np.float32),
      score=float(score),
      points=point - np.float32(0.5),
    )
    for box, point, score in zip(*faces, strict=True)
  ]


def _covered(box: np.ndarray, others: np.ndarray) -> np.ndarray:
  """How much of a box each of others covers, 0..1."""
  shared = np.maximum(
    np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0
  ).prod(axis=1)
  return shared / max(float((box[2:] - box[:2]).prod()), 1e-9)


def default_min_face(height: int, width: int) -> float:
  """The smallest face worth looking for in a photo of some size.

  Args:
    height: of the photo, in pixels.
    width: of the photo, in pixels.

  Returns:
    Pixels: 1/64 of the longer side, but at least 16.
  """
  return max(16.0, max(height, width) / 64)


def canvas_side(side: int) -> int:
  """Rounds a side up to 128 * 2 ** (k / 4), in multiples of `MULTIPLE`."""
  step = max(0, math.ceil(4 * math.log2(side / 128) - 1e-9))
  return MULTIPLE * math.ceil(128 / MULTIPLE * 2 ** (step / 4) - 1e-9)


TWIN_MOST_SIDE = 160.0
"""The largest faces that a twin places well; see `Detector.most_side`."""

TWIN_CERTAIN, TWIN_TURNED = 0.9, 0.65
"""See `Detector.certain` and `Detector.turned_threshold`; docs/training.md has
the measurement."""
