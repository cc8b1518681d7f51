"""The edits to the metadata of a photo."""

import dataclasses
import re

from fawkes_jax.photos.orientation import Orientation

_LOCATION = re.compile(
  r"gps|latitude|longt?itude|altitude|(?:geo|georss):(?:lat|long?|alt|point)\b",
  re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edits:
  """What is done to the metadata of a photo.

  Attributes:
    cloaked: whether the pixels are changed: then pictures besides them go, and
      what promises them.
    alone: whether nothing is behind the first picture any more, so that what
      promises pictures and clips there goes; so it is where `cloaked`.
    extended: whether XMP goes on in packets of its own.
    how: how the pixels were turned; None where they are as stored, and the
      orientation with them.
    width: the width of the picture as stored, in pixels.
    height: the height of the picture as stored, in pixels.
    strip_location: whether GPS goes.
    strip_names: whether names of people, regions of faces, and keywords go.
    names: of people, in lower case, as found in the photo; with `strip_names`
      other texts that have one go, too.
  """

  cloaked: bool = True
  alone: bool = False
  extended: bool = True
  how: Orientation | None = None
  width: int = 0
  height: int = 0
  strip_location: bool = False
  strip_names: bool = False
  names: frozenset[str] = frozenset()

  @property
  def transposes(self) -> bool:
    """Whether width and height change places."""
    return self.how is not None and self.how.transpose

  def turn_point(
    self, x: float, y: float, *, width: float, height: float
  ) -> tuple[float, float]:
    """Where a point of the stored picture is in the upright one.

    Args:
      x: from the left.
      y: from the top.
      width: of the picture, less than which no x is at the right border.
      height: the height of the picture.
    """
    if self.how is None:
      return x, y
    if self.how.transpose:
      x, y, width, height = y, x, height, width
    if self.how.flip_columns:
      x = width - x
    if self.how.flip_rows:
      y = height - y
    return x, y

  def turn_area(self, values: tuple[int, ...]) -> tuple[int, ...]:
    """Turns an area of EXIF: its centre's pixel, and its extent.

    Args:
      values: x and y; then a diameter, or a width and a height, or nothing.
    """
    x, y = self.turn_point(
      *values[:2], width=self.width - 1, height=self.height - 1
    )
    extent = values[2:]
    if self.transposes and len(extent) == 2:
      extent = extent[::-1]
    return max(int(x), 0), max(int(y), 0), *extent

  def is_named_in(self, value: bytes | str) -> bool:
    """Whether a text has the name of a person in the photo."""
    if not self.names:
      return False
    pattern = "|".join(
      rf"(?<!\w){re.escape(name)}(?!\w)" for name in self.names
    )
    texts = [value] if isinstance(value, str) else _decodings(value)
    return any(re.search(pattern, text.lower()) for text in texts)


def is_located(value: bytes | str) -> bool:
  """Whether a text, or the name of a property, is about a place on the earth.

  Words such as GPS, latitude and longitude tell.
  """
  texts = [value] if isinstance(value, str) else _decodings(value)
  return any(map(_LOCATION.search, texts))


def _decodings(value: bytes) -> list[str]:
  encodings = "utf-8", "latin-1", "utf-16-le", "utf-16-be"
  return [value.decode(encoding, "replace") for encoding in encodings]
