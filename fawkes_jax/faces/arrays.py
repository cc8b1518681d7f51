"""Images and results of the Python API."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from fawkes_jax import types

_CHANNELS = {1: "greyscale", 3: "RGB", 4: "RGBA"}
_MODES = ("L", "RGB", "RGBA")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Face:
  """A face of an image, and what its cloak does, measured on the result.

  Attributes:
    box: left, top, right, bottom in pixels of the image; right and bottom are
      exclusive.
    person: the same number for the faces of one person in one call.
    target: what it approaches: "person K", which is the `person` of other faces
      of the call, or the name of a stranger.
    dssim: the structural dissimilarity of the face and its original, 0..1.
    cost: what the budget function says of it; `dssim` without one. At most
      `SolverOptions.rho`.
    cosine: by extractor, the cosine between the embedding of the cloaked face
      and that of the original, around the mean of many people: 1 where it is
      the same person to that extractor, 0 where it is anybody.
    steps: the steps of the solver.
    unprotected: why the face is about as recognisable as before; None where it
      is protected.
  """

  box: tuple[int, int, int, int]
  person: int
  target: str
  dssim: float
  cost: float
  cosine: Mapping[str, float]
  steps: int
  unprotected: str | None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Cloaked:
  """An image with every face cloaked.

  Attributes:
    image: of the shape and type that was given.
    faces: that were found, the most certain ones first; empty where there is
      none, and the image is as it was.
  """

  image: np.ndarray
  faces: tuple[Face, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
  """An image that was given, and its pixels for the networks.

  Attributes:
    given: as it was.
    pixels: RGB.
    grey: whether it is greyscale.
  """

  given: np.ndarray
  pixels: UInt8[np.ndarray, "height width 3"]
  grey: bool

  def changed(self, pixels: UInt8[np.ndarray, "height width 3"]) -> np.ndarray:
    """The image with other pixels, of the shape and type that was given.

    What is transparent, and each value that is the same, stays as it was.
    """
    layers = pixels[..., 0] if self.given.ndim == 2 else pixels
    before = self.pixels[..., 0] if self.given.ndim == 2 else self.pixels
    result = self.given.copy()
    part = result[..., : 1 if self.grey else 3] if result.ndim == 3 else result
    if self.grey and result.ndim == 3:
      layers, before = layers[..., :1], before[..., :1]
    floating = np.issubdtype(result.dtype, np.floating)
    values = layers / 255 if floating else layers
    part[...] = np.where(layers != before, values, part)
    return result


def pictures(images: Any, *, name: str = "images") -> list[Picture]:
  """Reads the images that a caller gives.

  Args:
    images: a sequence of arrays, or one array with a first axis for them. Each
      is [height, width] or [height, width, 1] for greyscale, or has three
      channels for RGB or four for RGBA; uint8, or floating point in 0..1.
    name: the name of the argument, for messages.

  Raises:
    FawkesError: one of them is something else; names the argument.
  """
  shape = getattr(images, "shape", None)
  if isinstance(images, Image.Image) or (
    shape is not None and (len(shape) == 2 or _is_one_image(shape))
  ):
    raise types.FawkesError(
      f"{name} must be a list of images, or an array with a first axis for"
      f" them; got one image: [image] is a list of it"
    )
  try:
    several = list(images)
  except TypeError:
    raise types.FawkesError(
      f"{name} must be a list of images, got {type(images).__name__}"
    ) from None
  return [_picture(f"{name}[{i}]", image) for i, image in enumerate(several)]


def embeddings(
  given: Mapping[str, Any],
  like: Mapping[str, Float32[np.ndarray, "n d"]],
  *,
  name: str,
) -> dict[str, Float32[np.ndarray, "n d"]]:
  """Reads the embeddings that a caller gives.

  Args:
    given: by extractor, raw embeddings [d] or [n, d].
    like: the embeddings of the faces that they are for.
    name: the name of the argument, for messages.

  Raises:
    FawkesError: they are none for these faces; names the argument.
  """
  if not isinstance(given, Mapping) or set(given) != set(like):
    got = ", ".join(given) if isinstance(given, Mapping) else repr(type(given))
    raise types.FawkesError(
      f"{name} must have an embedding by the name of each extractor,"
      f" {', '.join(like)}; got {got}"
    )
  found = {}
  for extractor, own in like.items():
    array = np.asarray(given[extractor], np.float32)
    if array.shape not in (own.shape, own.shape[1:]):
      raise types.FawkesError(
        f"{name}[{extractor!r}] must have the shape {list(own.shape[1:])} or"
        f" {list(own.shape)}, got {list(array.shape)}"
      )
    found[extractor] = np.broadcast_to(array, own.shape)
  return found


def labels(people: Sequence[Any] | None, count: int) -> list[Any]:
  """Reads who is on each image.

  Raises:
    FawkesError: there is not one label for each image.
  """
  if people is None:
    return [None] * count
  given = list(people)
  if len(given) != count:
    raise types.FawkesError(
      f"people must have one label for each image, got {len(given)} for"
      f" {count} images"
    )
  return given


def _is_one_image(shape: Sequence[int]) -> bool:
  """Whether three axes are those of an image in colour.

  A stack of greyscale images that are three or four pixels wide is taken for
  one, too; it would have no face.
  """
  return len(shape) == 3 and shape[2] in _CHANNELS and shape[2] > 1


def _picture(name: str, image: Any) -> Picture:
  if isinstance(image, Image.Image) and image.mode not in _MODES:
    raise types.FawkesError(
      f"{name} must have the mode {', '.join(_MODES)}, got {image.mode};"
      ' image.convert("RGB") gives one that has'
    )
  try:
    array = np.asarray(image)
  except (TypeError, ValueError) as error:
    raise types.FawkesError(f"{name} must be an array: {error}") from error
  if array.ndim == 2:
    channels = 1
  elif array.ndim == 3 and array.shape[2] in _CHANNELS:
    channels = array.shape[2]
  else:
    raise types.FawkesError(
      f"{name} must be [height, width] or [height, width, channels] with 1"
      f" (greyscale), 3 (RGB) or 4 (RGBA) channels, got {list(array.shape)}"
    )
  if 0 in array.shape:
    raise types.FawkesError(f"{name} must have pixels, got {list(array.shape)}")
  if array.dtype == np.uint8:
    values = array
  elif np.issubdtype(array.dtype, np.floating):
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):  # Also false of what is no number.
      raise types.FawkesError(
        f"{name} must be in 0..1 where it is floating point, got"
        f" {low:g}..{high:g}"
      )
    values = np.rint(array * 255.0).astype(np.uint8)
  else:
    raise types.FawkesError(
      f"{name} must be uint8, or floating point in 0..1; got {array.dtype}"
    )
  if values.ndim == 2:
    values = values[..., None]
  pixels = np.ascontiguousarray(
    np.broadcast_to(values[..., :3], (*values.shape[:2], 3))
  )
  return Picture(given=array, pixels=pixels, grey=channels == 1)
