"""Scenes to train a detector on, made of photos and of single faces.

A scene is a square of a photo at a random scale and turn, with faces of other
photos pasted into it, under other light, blurred, covered or compressed.
"""

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image, ImageDraw, ImageFilter

from fawkes_jax.faces.annotations import Annotated

_MOST = 256
"""Faces of a scene that are told, the largest ones."""

_LEAST_SIDE = 10.0
"""Pixels of the side of a face that must be found."""


class Scenes(NamedTuple):
  """Scenes, and what is known of them.

  Attributes:
    images: RGB.
    boxes: left, top, right, bottom of what may be a face, in pixels; those
      behind the last are empty.
    known: which of them are faces that must be found: neither covered nor tiny,
      nor what the table says to ignore.
  """

  images: UInt8[np.ndarray, "n size size 3"]
  boxes: Float32[np.ndarray, "n 256 4"]
  known: Bool[np.ndarray, "n 256"]


class _Boxes(NamedTuple):
  """The faces of one scene: their boxes, and which must be found."""

  at: np.ndarray
  known: np.ndarray


class Studio:
  """Draws scenes."""

  def __init__(
    self,
    photos: Sequence[Annotated],
    singles: Sequence[Annotated],
    *,
    size: int,
    seed: int,
  ):
    """Reads nothing yet.

    Args:
      photos: whose squares are shown.
      singles: photos of one face each, to be pasted.
      size: of a scene.
      seed: the same seed gives the same scenes.
    """
    self._photos, self._singles = photos, singles
    self._size, self._seed = size, seed

  def draw(self, step: int, count: int) -> Scenes:
    """The scenes of a step, whatever was drawn before."""
    rng = np.random.default_rng((self._seed, step))
    drawn = [self._scene(rng) for _ in range(count)]
    boxes = np.zeros((count, _MOST, 4), np.float32)
    known = np.zeros((count, _MOST), bool)
    for i, (_, faces) in enumerate(drawn):
      areas = _areas(faces.at)
      largest = np.argsort(-areas, kind="stable")[:_MOST]
      boxes[i, : len(largest)] = faces.at[largest]
      known[i, : len(largest)] = faces.known[largest] & (
        areas[largest] >= _LEAST_SIDE**2
      )
    return Scenes(np.stack([image for image, _ in drawn]), boxes, known)

  def _scene(self, rng: np.random.Generator) -> tuple[np.ndarray, _Boxes]:
    photo = self._photos[int(rng.integers(len(self._photos)))]
    image, boxes = self._view(photo, rng)
    if self._singles and rng.random() < 0.4:
      for _ in range(rng.integers(1, 7)):
        single = self._singles[int(rng.integers(len(self._singles)))]
        image, boxes = self._paste(image, boxes, single, rng)
    if rng.random() < 0.2:
      boxes = _cover(image, boxes, rng)
    if rng.random() < 0.5:
      image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
      left, right = self._size - boxes.at[:, 2], self._size - boxes.at[:, 0]
      at = np.stack([left, boxes.at[:, 1], right, boxes.at[:, 3]], axis=1)
      boxes = boxes._replace(at=at)
    return _relit(image, rng), boxes

  def _view(
    self, photo: Annotated, rng: np.random.Generator
  ) -> tuple[Image.Image, _Boxes]:
    """A square of a photo, and the faces in it."""
    size = self._size
    with Image.open(photo.path) as file:
      image = file.convert("RGB")
    # The scene is full along the photo's longer side.
    least = size / max(image.size)
    sides = np.sqrt(_areas(photo.boxes))
    known = np.flatnonzero(~photo.ignored & (sides >= 4))
    if len(known) and rng.random() < 0.7:
      chosen = rng.choice(known)
      wanted = math.exp(rng.uniform(math.log(8), math.log(300)))
      scale = float(np.clip(wanted / sides[chosen], least, 2.5))
      left, top, right, bottom = photo.boxes[chosen]
      middle = complex((left + right) / 2, (top + bottom) / 2)
    else:
      scale = math.exp(rng.uniform(math.log(least), math.log(2.5)))
      middle = complex(rng.random() * image.width, rng.random() * image.height)
    turn = rng.uniform(-45, 45) if rng.random() < 0.3 else rng.normal() * 3
    # What the scene's middle shows; as little as can be from beyond the photo.
    middle -= complex(*rng.uniform(-0.4, 0.4, 2)) * size / scale
    x, y = (
      side / 2
      if side < size / scale
      else np.clip(value, size / scale / 2, side - size / scale / 2)
      for value, side in zip(
        (middle.real, middle.imag), image.size, strict=True
      )
    )
    axis = scale * np.exp(1j * math.radians(turn))
    offset = complex(size / 2, size / 2) - axis * complex(x, y)
    boxes = _moved(photo.boxes, axis, offset)
    if scale < 1:
      smaller = (
        max(1, round(image.width * scale)),
        max(1, round(image.height * scale)),
      )
      image = image.resize(smaller, Image.Resampling.BILINEAR, reducing_gap=2.0)
      axis /= scale
    image = _transformed(image, axis, offset, (size, size))
    inside = (boxes[:, 2:] > 0).all(axis=1) & (boxes[:, :2] < size).all(axis=1)
    # Whose middle is beyond the scene need not be found.
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    shown = ((middle > 0) & (middle < size)).all(axis=1)
    return image, _Boxes(boxes[inside], (shown & ~photo.ignored)[inside])

  def _paste(
    self,
    image: Image.Image,
    boxes: _Boxes,
    single: Annotated,
    rng: np.random.Generator,
  ) -> tuple[Image.Image, _Boxes]:
    """The scene with one more face, where there is room."""
    with Image.open(single.path) as file:
      tile = file.convert("RGB")
    wanted = math.exp(rng.uniform(math.log(9), math.log(300)))
    scale = wanted / math.sqrt(_areas(single.boxes)[0])
    turn = rng.uniform(-45, 45) if rng.random() < 0.5 else rng.normal() * 5
    axis = scale * np.exp(1j * math.radians(turn))
    left, top, right, bottom = single.boxes[0]
    middle = complex((left + right) / 2, (top + bottom) / 2)
    place = complex(*rng.uniform(0, self._size, 2))
    offset = place - axis * middle
    [box] = _moved(single.boxes, axis, offset)
    if _overlaps(box, boxes.at):
      return image, boxes
    mask = Image.new("L", tile.size)
    # The head, and a little more or less of what is around it.
    wide = (right - left) * rng.uniform(0.62, 0.95)
    high = (bottom - top) * rng.uniform(0.62, 0.9)
    x, y = middle.real, middle.imag - 0.08 * (bottom - top)
    ImageDraw.Draw(mask).ellipse(
      (x - wide, y - high, x + wide, y + high), fill=255
    )
    mask = mask.filter(ImageFilter.GaussianBlur(rng.uniform(1, 5)))
    frame = Image.new("L", tile.size)
    frame.paste(mask.crop((2, 2, tile.width - 2, tile.height - 2)), (2, 2))
    if scale < 1:
      smaller = (
        max(1, round(tile.width * scale)),
        max(1, round(tile.height * scale)),
      )
      tile = tile.resize(smaller, Image.Resampling.BILINEAR)
      frame = frame.resize(smaller, Image.Resampling.BILINEAR)
      axis /= scale
    gain = rng.uniform(0.6, 1.3)
    tile = tile.point(lambda value: int(min(255, value * gain)))
    size = (self._size, self._size)
    image.paste(
      _transformed(tile, axis, offset, size),
      mask=_transformed(frame, axis, offset, size),
    )
    return image, _Boxes(
      np.concatenate([boxes.at, box[None]]), np.append(boxes.known, True)
    )


def _moved(boxes: np.ndarray, axis: complex, offset: complex) -> np.ndarray:
  """Boxes under the map z -> axis * z + offset.

  A turned box is that of the ellipse in the box.
  """
  middle = (boxes[:, :2] + boxes[:, 2:]) / 2 @ (1, 1j)
  half = (boxes[:, 2:] - boxes[:, :2]) / 2
  middle = axis * middle + offset
  wide = np.hypot(half[:, 0] * axis.real, half[:, 1] * axis.imag)
  high = np.hypot(half[:, 0] * axis.imag, half[:, 1] * axis.real)
  return np.stack(
    [
      middle.real - wide,
      middle.imag - high,
      middle.real + wide,
      middle.imag + high,
    ],
    axis=1,
  )


def _areas(boxes: np.ndarray) -> np.ndarray:
  return np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)


def _overlaps(box: np.ndarray, others: np.ndarray) -> bool:
  """Whether a box, with a head around it, meets any other."""
  margin = 0.4 * (box[2:] - box[:2])
  low, high = box[:2] - margin, box[2:] + margin
  shared = np.minimum(high, others[:, 2:]) - np.maximum(low, others[:, :2])
  return bool((shared > 0).all(axis=1).any())


def _transformed(
  image: Image.Image, axis: complex, offset: complex, size: tuple[int, int]
) -> Image.Image:
  """An image under the map z -> axis * z + offset, black outside."""
  a, b = 1 / axis, -offset / axis
  data = (a.real, -a.imag, b.real, a.imag, a.real, b.imag)
  return image.transform(
    size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
  )


def _cover(
  image: Image.Image, boxes: _Boxes, rng: np.random.Generator
) -> _Boxes:
  """Covers a part of some faces, which need not be found."""
  draw = ImageDraw.Draw(image)
  known = boxes.known.copy()
  for i, box in enumerate(boxes.at):
    if rng.random() < 0.5:
      continue
    known[i] = False
    width, height = box[2:] - box[:2]
    x = box[0] + width * rng.uniform(-0.2, 0.8)
    y = box[1] + height * rng.uniform(0, 0.9)
    if rng.random() < 0.5:  # The lower half, as masks and hands do.
      x, y = box[0], box[1] + height * rng.uniform(0.5, 0.8)
    colour = tuple(int(value) for value in rng.integers(0, 256, 3))
    draw.rectangle(
      (
        x,
        y,
        x + width * rng.uniform(0.2, 1),
        y + height * rng.uniform(0.15, 0.5),
      ),
      fill=colour,
    )
  return boxes._replace(known=known)


def _relit(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
  """The pixels under other light, and through a worse camera."""
  chance = rng.random(5)
  if chance[0] < 0.15:
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.5)))
  if chance[1] < 0.15:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(20, 80)))
    image = Image.open(buffer).convert("RGB")
  if chance[2] < 0.1:
    image = image.convert("L").convert("RGB")
  values = np.arange(256) / 255
  tables = []
  gamma = math.exp(rng.normal() * 0.3)
  contrast, light = math.exp(rng.normal() * 0.2), rng.normal() * 0.08
  for _ in range(3):
    gain = 1 + rng.normal() * 0.07
    table = ((values**gamma - 0.5) * contrast + 0.5 + light) * gain
    tables.append(np.clip(255 * table, 0, 255))
  image = image.point(np.concatenate(tables).astype(int).tolist())
  pixels = np.asarray(image)
  if chance[3] < 0.15:
    noise = rng.normal(size=pixels.shape).astype(np.float32)
    pixels = np.clip(pixels + rng.uniform(2, 12) * noise, 0, 255)
  return pixels.astype(np.uint8)
