"""How visible cloaks are on published photos, measured once and kept."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from fawkes_jax.evaluation import detectors, kept, people, quality
from fawkes_jax.evaluation.bars import Bars
from fawkes_jax.evaluation.cloaks import Cloaks
from fawkes_jax.evaluation.detections import Detections


class Visibility:
  """Compares published photos with what they were."""

  def __init__(
    self,
    tables: kept.Tables,
    detections: Detections,
    detector: detectors.Detector,
    bars: Bars,
  ):
    """Measures nothing yet.

    Args:
      tables: keep what was measured.
      detections: of faces.
      detector: whose box is measured in.
      bars: show progress.
    """
    self._table = tables.get("visibility", detector.key)
    self._detections = detections
    self._detector = detector
    self._bars = bars

  def measure(
    self, photos: Sequence[people.Photo], cloaks: Cloaks
  ) -> Float[np.ndarray, "n 3"]:
    """DSSIM, change of colour and of the file's size, of published photos.

    Args:
      photos: as they were.
      cloaks: as they are published.

    Returns:
      A row for each photo in which the detector finds the face: scikit-image's
      DSSIM and the mean absolute change of a* and b* (CIELAB), both in its box,
      and the size of the file divided by that before.
    """
    photos = [photo for photo in photos if photo in cloaks.photos]
    table = self._table

    def key(photo: people.Photo) -> str:
      return f"{photo.sha256} {cloaks.photos[photo].sha256}"

    def compute(photo: people.Photo) -> Callable[[], np.ndarray | None]:
      return lambda: self._compare(photo, cloaks.photos[photo])

    todo = [photo for photo in photos if key(photo) not in table]
    for photo in self._bars.track(todo, "measuring"):
      table.get(key(photo), compute(photo))
    table.save()
    self._detections.save(self._detector)
    rows = [table.get(key(photo), compute(photo)) for photo in photos]
    return np.array([row for row in rows if row is not None]).reshape(-1, 3)

  def _compare(
    self, photo: people.Photo, after: people.Photo
  ) -> np.ndarray | None:
    """A row of `measure`; None where there is no face to measure in."""
    before = self._detections.pixels(photo)
    saved = self._detections.pixels(after)
    if before is None or saved is None:
      return None
    face = self._detections.face(self._detector, photo, before)
    if face is None:
      return None
    ratio = after.path.stat().st_size / photo.path.stat().st_size
    return np.array([*quality.visibility(before, saved, face.box), ratio])
