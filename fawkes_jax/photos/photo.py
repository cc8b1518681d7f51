"""A decoded photo, with all that is needed to encode it like its source."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from fawkes_jax.photos.orientation import Orientation


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Photo:
  """A decoded photo.

  Attributes:
    shape: height and width, upright, in pixels.
    load: gives `pixels` and `alpha`; asked once, when they are.
    grey: whether the source is greyscale; then the three channels are equal.
    jpeg_tables: uint16 [2, 8, 8], the luma and the chroma quantisation table
      of a JPEG, vertical frequency before horizontal, as they apply to the
      upright photo; twice the luma table for a greyscale JPEG. None for other
      formats and for JPEGs that are not YCbCr.
    subsampling: "4:4:4", "4:2:2", "4:2:0", "4:4:0", "4:1:1" or "other" for a
      JPEG in colour, as it applies to the upright photo; None for others.
    format: JPEG, PNG, WEBP, TIFF, BMP or HEIF.
    how: how the stored picture was turned upright.
    lossless: whether the format keeps pixels exactly.
    palette: whether the source is a palette picture.
    info: what goes along: `exif`, `icc_profile`, `xmp` (bytes), `dpi`,
      `compression`, `predictor`, `lost` (names of what a HEIF has besides);
      only what the source has.
    source: the file's bytes; of a converted picture, those that were made
      of it.
    suffix: of the name that a converted picture gets; empty for others.
    note: what a conversion kept, in words; None without one.
  """

  shape: tuple[int, int]
  load: Callable[[], tuple[np.ndarray, np.ndarray | None]]
  grey: bool
  jpeg_tables: np.ndarray | None
  subsampling: str | None
  format: str
  how: Orientation
  lossless: bool
  palette: bool
  info: dict
  source: bytes
  suffix: str = ""
  note: str | None = None

  @property
  def pixels(self) -> np.ndarray:
    """uint8 [height, width, 3], RGB, upright."""
    return self.layers[0]

  @property
  def alpha(self) -> np.ndarray | None:
    """uint8 [height, width], upright, where the source has transparency."""
    return self.layers[1]

  @property
  def nbytes(self) -> int:
    """How many bytes `pixels` has."""
    height, width = self.shape
    return 3 * height * width

  @functools.cached_property
  def layers(self) -> tuple[np.ndarray, np.ndarray | None]:
    """`pixels` and `alpha`, as `load` gives them."""
    return self.load()
