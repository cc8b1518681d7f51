"""Alignment of faces: similarity transforms, crops and pasting back.

All extractors look at an aligned face, each through its own template. They
agree on one frame, the face frame: the unit square of dlib's mean face, in
which the eyes lie near (0.23, 0.22) and (0.75, 0.22) and the base of the nose
at (0.49, 0.63). A template is a square of that frame. The crop that carries a
face's change is the square CROP of it, which holds every template with room
for small shifts.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

# dlib's mean face: the outer and inner corners of the eye on the right of the
# picture, those of the eye on its left, and the base of the nose. (x, y).
MEAN_FACE = np.array(
  [
    (0.8595674595992, 0.2134981538014),
    (0.6460604764104, 0.2289674387677),
    (0.1205750620789, 0.2137274526848),
    (0.3340850613712, 0.2290642403242),
    (0.4901123135679, 0.6277975316475),
  ]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Template:
  """A square of the face frame that an extractor, or the crop, looks at.

  Attributes:
    left: x of the square's left edge, in units of the face frame.
    top: y of its top edge.
    side: its side.
  """

  left: float
  top: float
  side: float

  def zoom(self, other: "Template") -> tuple[float, float, float]:
    """Where `other` lies in this square, as fractions of this one's side.

    Returns:
      left, top and side of `other`; (0, 0, 1) for the square itself.
    """
    return (
      (other.left - self.left) / self.side,
      (other.top - self.top) / self.side,
      other.side / self.side,
    )


CROP = Template(left=-0.5, top=-0.68, side=2.0)

ARCFACE_POINTS = np.array(
  [
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
  ]
)
"""Where eyes, nose and the corners of the mouth are in ArcFace's 112 x 112
pixels; (x, y), left and right as seen in the picture."""

ARCFACE = Template(left=-0.338, top=-0.566, side=1.66)
"""Where those pixels lie in the face frame: the mean over 5,384 faces of
Labeled Faces in the Wild on which both kinds of landmarks were found."""

# The face itself, from the brows' upper ends to the chin: where dlib's detector
# puts its box, on average over photographs.
FACE = Template(left=-0.2, top=-0.25, side=1.3)

# The change fades to zero between this fraction of the crop's side and its
# edge, so that no seam is seen where the crop ends.
_FADE = 0.14


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment:
  """The similarity transform between a photo and the aligned crop of a face.

  A point (x, y) of the photo is origin + (c * axis) for the crop's point c,
  both read as complex numbers x + iy, in pixels.

  Attributes:
    origin: the photo's point under the centre of the crop's first pixel.
    axis: the step in the photo for one pixel to the right in the crop; its
      modulus is the scale (pixels of the photo a pixel of the crop).
    side: the crop's side in pixels.
  """

  origin: complex
  axis: complex
  side: int

  @property
  def scale(self) -> float:
    """Pixels of the photo a pixel of the crop; at least 1."""
    return abs(self.axis)

  def seen_from(self, left: int, top: int) -> "Alignment":
    """The same in a part of the photo that begins at a pixel."""
    origin = self.origin - complex(left, top)
    return dataclasses.replace(self, origin=origin)

  def in_photo(
    self, points: Float32[np.ndarray, "n 2"]
  ) -> Float32[np.ndarray, "n 2"]:
    """The points of the photo that are under points of the crop."""
    z = self.origin + self.axis * (points @ np.array([1, 1j]))
    return np.stack([z.real, z.imag], axis=-1).astype(np.float32)

  @property
  def extent(self) -> float:
    """The crop's side in pixels of the photo."""
    return self.side * self.scale


def similarity_transform(
  source: np.ndarray, target: np.ndarray
) -> tuple[complex, complex]:
  """The least-squares similarity transform from one set of points to another.

  Args:
    source: points, float [n, 2].
    target: points, float [n, 2].

  Returns:
    (a, b), complex, with target = a * source + b for points x + iy
    (Umeyama 1991, in two dimensions and without reflection).

  Raises:
    ValueError: all source points coincide.
  """
  z = np.asarray(source, np.float64) @ (1, 1j)
  w = np.asarray(target, np.float64) @ (1, 1j)
  centred = z - z.mean()
  spread = np.vdot(centred, centred).real
  if spread <= 0:
    raise ValueError("the points of a similarity transform must not coincide")
  a = complex(np.vdot(centred, w - w.mean()) / spread)
  return a, complex(w.mean() - a * z.mean())


def align(landmarks: Float32[np.ndarray, "5 2"], *, max_side: int) -> Alignment:
  """Aligns a face to its crop, at the face's own resolution where possible.

  Args:
    landmarks: dlib's five points of one face, (x, y) in pixels of the photo.
    max_side: the largest side of the crop in pixels; a larger face is scaled
      down to it.

  Returns:
    The alignment; its scale is 1 for faces that fit, larger for others. Where
    all landmarks coincide, its side is 1.
  """
  return _native(*similarity_transform(MEAN_FACE, landmarks), max_side)


def align_centres(
  points: Float32[np.ndarray, "5 2"], *, max_side: int
) -> Alignment:
  """Aligns a face as `align` does, by ArcFace's five points.

  Args:
    points: of `ARCFACE_POINTS`, (x, y) in pixels of the photo.
    max_side: as in `align`.

  Returns:
    The alignment. By YuNet's points it was that by dlib's landmarks on average
    (0.7 % larger, 0.8 degrees, 0.2 % of the crop's side); a single face was off
    by 2.3 % of the side, 6.7 % in scale and 4.7 degrees (standard deviations
    over 879 faces of Labeled Faces in the Wild).

  Raises:
    ValueError: all points coincide.
  """
  return _native(*similarity_transform(_arcface_frame(), points), max_side)


def _arcface_frame() -> np.ndarray:
  """`ARCFACE_POINTS` in the face frame, [5, 2]."""
  return ARCFACE_POINTS / 112 * ARCFACE.side + (ARCFACE.left, ARCFACE.top)


def _native(a: complex, b: complex, max_side: int) -> Alignment:
  """The crop of a face whose frame lies at a * frame + b in the photo."""
  native = abs(a) * CROP.side
  side = max(1, min(round(native), max_side))
  step = CROP.side / side
  first = complex(CROP.left + step / 2, CROP.top + step / 2)
  return Alignment(origin=a * first + b, axis=a * step, side=side)


def align_arcface(
  landmarks: Float32[np.ndarray, "5 2"], *, side: int
) -> Alignment:
  """Aligns a face by ArcFace's five points to a crop of a given size.

  Args:
    landmarks: of `ARCFACE_POINTS`, (x, y) in pixels of the photo.
    side: the crop's side in pixels.

  Returns:
    The alignment; its scale may be below 1.

  Raises:
    ValueError: all landmarks coincide.
  """
  a, b = similarity_transform(_arcface_frame(), landmarks)
  step = CROP.side / side
  first = complex(CROP.left + step / 2, CROP.top + step / 2)
  return Alignment(origin=a * first + b, axis=a * step, side=side)


def extract(
  pixels: UInt8[np.ndarray, "height width 3"],
  alignment: Alignment,
  *,
  corner: tuple[int, int] = (0, 0),
) -> Float32[np.ndarray, "side side 3"]:
  """Cuts the aligned crop of one face out of a photo.

  Large faces are first reduced with an anti-aliasing filter, then sampled
  with cubic convolution. What lies outside the photo is black, as in dlib.

  Args:
    pixels: the photo, RGB in 0..255, or a part of it that has its `reach`.
    alignment: where the face is in the photo.
    corner: x and y of the part's first pixel in the photo.

  Returns:
    The crop, in 0..255, not rounded: rounding would count as a change where
    crops are compared.
  """
  alignment = alignment.seen_from(*corner)
  left, top, right, bottom = reach(pixels.shape[:2], alignment)
  part = np.ascontiguousarray(pixels[top:bottom, left:right])
  return _sample(part, alignment.seen_from(left, top))


def reach(
  shape: tuple[int, int], alignment: Alignment
) -> tuple[int, int, int, int]:
  """The part of a photo that a crop is made of.

  Args:
    shape: height and width of the photo.
    alignment: where the face is.

  Returns:
    Left, top, right and bottom, inside the photo; empty where the crop lies
    outside.
  """
  left, top, right, bottom = _box(shape, alignment)
  # The filter that reduces a picture looks further than the box.
  margin = math.ceil(8 * alignment.scale) if _is_reduced(alignment) else 0
  return (
    max(left - margin, 0),
    max(top - margin, 0),
    min(right + margin, shape[1]),
    min(bottom + margin, shape[0]),
  )


def coverage(
  shape: tuple[int, int], alignment: Alignment
) -> Float32[np.ndarray, "side side"]:
  """Which pixels of a crop may change: 1 inside, fading to 0 at the edges.

  Args:
    shape: height and width of the photo.
    alignment: where the face is.

  Returns:
    Weights in 0..1; 0 where the crop lies outside the photo.
  """
  x, y = _crop_grid(alignment)
  inside = (x >= 0) & (y >= 0) & (x <= shape[1] - 1) & (y <= shape[0] - 1)
  position = (np.arange(alignment.side) + 0.5) / alignment.side
  depth = np.clip(np.minimum(position, 1 - position) / _FADE, 0, 1)
  fade = 0.5 - 0.5 * np.cos(np.pi * depth)
  return (fade[:, None] * fade[None, :] * inside).astype(np.float32)


def budget_weights(
  coverage: Float32[np.ndarray, "side side"],
) -> Float32[np.ndarray, "side side"]:
  """How much each pixel counts towards a face's DSSIM.

  All that may change counts, but only the area of the face divides: the
  dissimilarity around a face is not diluted by the background beside it.

  Args:
    coverage: from `coverage`.

  Returns:
    Weights at least 0 that sum to 1 over FACE.
  """
  side = len(coverage)
  left, top, size = (side * part for part in CROP.zoom(FACE))
  rows = slice(round(top), round(top + size))
  columns = slice(round(left), round(left + size))
  area = coverage[rows, columns].sum()
  return (coverage / max(area, 1.0)).astype(np.float32)


def paste(
  change: Float32[np.ndarray, "side side 3"],
  alignment: Alignment,
  shape: tuple[int, int],
) -> tuple[int, int, Float32[np.ndarray, "height width 3"]]:
  """Resamples the change of a crop to the pixels of its photo.

  Only the change is resampled, never the photo: a change of zero is zero.

  Args:
    change: what is added to the crop, in units of 0..255; zero at its edge.
    alignment: where the face is.
    shape: height and width of the photo.

  Returns:
    left, top, and the change of the photo's pixels from there on; the
    rectangle lies inside the photo and is empty when the crop does not.
  """
  side = alignment.side
  corners = np.array([0, side - 1, (side - 1) * 1j, (side - 1) * (1 + 1j)])
  z = alignment.origin + alignment.axis * corners
  left = min(max(math.floor(np.min(z.real)), 0), shape[1])
  top = min(max(math.floor(np.min(z.imag)), 0), shape[0])
  right = max(min(math.ceil(np.max(z.real)) + 1, shape[1]), left)
  bottom = max(min(math.ceil(np.max(z.imag)) + 1, shape[0]), top)
  width, height = right - left, bottom - top
  if not width or not height:
    return left, top, np.zeros((height, width, 3), np.float32)
  # crop = (photo - origin) / axis
  inverse = 1 / alignment.axis
  offset = (complex(left, top) - alignment.origin) * inverse
  data = _pillow_coefficients(inverse, offset)
  channels = [
    Image.fromarray(np.ascontiguousarray(change[..., c])) for c in range(3)
  ]
  return left, top, _transform(channels, (width, height), data)


def _box(
  shape: tuple[int, int], alignment: Alignment
) -> tuple[int, int, int, int]:
  """The part of a photo that lies under a crop, and a little around it."""
  x, y = _crop_grid(alignment, corners_only=True)
  margin = 4 * alignment.scale
  left = min(max(math.floor(x.min() - margin), 0), shape[1])
  top = min(max(math.floor(y.min() - margin), 0), shape[0])
  right = max(min(math.ceil(x.max() + margin) + 1, shape[1]), left)
  bottom = max(min(math.ceil(y.max() + margin) + 1, shape[0]), top)
  return left, top, right, bottom


def _is_reduced(alignment: Alignment) -> bool:
  """Whether a photo is made smaller before its crop is sampled."""
  return alignment.scale > 1.01


def _sample(
  part: UInt8[np.ndarray, "height width 3"], alignment: Alignment
) -> np.ndarray:
  """The crop of a photo's part; black outside."""
  side, scale = alignment.side, alignment.scale
  left, top, right, bottom = box = _box(part.shape[:2], alignment)
  width, height = right - left, bottom - top
  if not width or not height:
    return np.zeros((side, side, 3), np.float32)
  image = Image.fromarray(part)
  zoom_x = zoom_y = 1.0
  if _is_reduced(alignment):
    small = max(1, round(width / scale)), max(1, round(height / scale))
    image = image.resize(
      small, Image.Resampling.BICUBIC, box=box, reducing_gap=4.0
    )
    zoom_x, zoom_y = small[0] / width, small[1] / height
  else:
    image = image.crop(box)
  # The photo's point p is at (p + 0.5 - corner) * zoom - 0.5 in the part.
  a, b = alignment.axis.real * zoom_x, -alignment.axis.imag * zoom_x
  d, e = alignment.axis.imag * zoom_y, alignment.axis.real * zoom_y
  c = (alignment.origin.real + 0.5 - left) * zoom_x
  f = (alignment.origin.imag + 0.5 - top) * zoom_y
  # Pillow reads both ends of the map at half a pixel further.
  data = (a, b, c - (a + b) / 2, d, e, f - (d + e) / 2)
  # In floating point: of bytes, Pillow's transform drops the fractions.
  channels = [channel.convert("F") for channel in image.split()]
  return np.clip(_transform(channels, (side, side), data), 0, 255)


def _transform(
  channels: list[Image.Image], size: tuple[int, int], data: tuple[float, ...]
) -> np.ndarray:
  """Cubic convolution of float channels, float32 [height, width, n]."""
  affine, cubic = Image.Transform.AFFINE, Image.Resampling.BICUBIC
  moved = [channel.transform(size, affine, data, cubic) for channel in channels]
  return np.stack([np.asarray(channel) for channel in moved], axis=-1)


def _pillow_coefficients(
  axis: complex, origin: complex
) -> tuple[float, float, float, float, float, float]:
  """Pillow's AFFINE data for the map output -> origin + axis * output."""
  # Pillow maps (x + 0.5, y + 0.5) and reads its result as x + 0.5 too.
  shift = origin + 0.5 * (1 + 1j) - axis * 0.5 * (1 + 1j)
  return (axis.real, -axis.imag, shift.real, axis.imag, axis.real, shift.imag)


def _crop_grid(
  alignment: Alignment, *, corners_only: bool = False
) -> tuple[np.ndarray, np.ndarray]:
  """X and y in the photo of each pixel of the crop, float [side, side]."""
  ends = [0, alignment.side - 1]
  index = np.array(ends) if corners_only else np.arange(alignment.side)
  z = alignment.origin + alignment.axis * (index[None, :] + 1j * index[:, None])
  return z.real, z.imag
