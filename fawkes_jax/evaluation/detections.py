"""The face that a detector finds in each photo, found once and kept."""

import numpy as np
from jaxtyping import UInt8

from fawkes_jax import types
from fawkes_jax.archive import files
from fawkes_jax.evaluation import detectors, kept, people
from fawkes_jax.evaluation.countermeasures import CLEAN
from fawkes_jax.photos import codec

Pixels = UInt8[np.ndarray, "height width 3"]


class Detections:
  """The faces of photos, by detector."""

  def __init__(self, tables: kept.Tables, *, max_pixels: int):
    """Looks at nothing yet.

    Args:
      tables: keep what was found.
      max_pixels: larger photos count as damaged.
    """
    self._tables = tables
    self._max_pixels = max_pixels

  def pixels(self, photo: people.Photo) -> Pixels | None:
    """A decoded photo; None where that is impossible."""
    try:
      data = files.read_source(photo.path, max_bytes=1 << 30)
      return codec.decode(data, max_pixels=self._max_pixels).pixels
    except (OSError, types.PhotoError):
      return None

  def face(
    self,
    detector: detectors.Detector,
    photo: people.Photo,
    pixels: Pixels,
    countermeasure: str = CLEAN,
  ) -> detectors.Face | None:
    """What a detector finds in a photo.

    Args:
      detector: that looks, unless it has.
      photo: of which the pixels are.
      pixels: what it looks at.
      countermeasure: what was done to the pixels.
    """

    def find() -> np.ndarray | None:
      face = detector.find(pixels)
      return None if face is None else face.flat()

    key = f"{photo.sha256} {countermeasure}"
    row = self._table(detector).get(key, find)
    return None if row is None else detectors.Face.from_flat(row)

  def shown(
    self, detector: detectors.Detector, photo: people.Photo
  ) -> tuple[Pixels, detectors.Face] | None:
    """The pixels of a photo and the face that a detector finds in it."""
    pixels = self.pixels(photo)
    if pixels is None:
      return None
    face = self.face(detector, photo, pixels)
    return None if face is None else (pixels, face)

  def save(self, detector: detectors.Detector) -> None:
    """Writes what is new. Raises FawkesError where it cannot be written."""
    self._table(detector).save()

  def _table(self, detector: detectors.Detector) -> kept.Table:
    return self._tables.get(f"faces-{detector.name}", detector.key)
