"""Features that trackers compute of photos, computed once and kept."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from fawkes_jax import types
from fawkes_jax.evaluation import kept, people, trackers
from fawkes_jax.evaluation.bars import Bars
from fawkes_jax.evaluation.cloaks import Cloaks
from fawkes_jax.evaluation.countermeasures import CLEAN, COUNTERMEASURES
from fawkes_jax.evaluation.detections import Detections


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Features:
  """Features of the photos in which a tracker found a face.

  Attributes:
    x: the features, [n, d].
    labels: the labels of the people they show, [n].
  """

  x: Float[np.ndarray, "n d"]
  labels: Int[np.ndarray, " n"]

  def __add__(self, other: "Features") -> "Features":
    """Both together."""
    return Features(
      x=np.concatenate([self.x, other.x]),
      labels=np.concatenate([self.labels, other.labels]),
    )

  def mapped(
    self,
    function: Callable[[Float[np.ndarray, "n d"]], Float[np.ndarray, "n d"]],
  ) -> "Features":
    """The same faces with other features."""
    return Features(x=function(self.x), labels=self.labels)

  def of(self, labels: Sequence[int] | np.ndarray) -> "Features":
    """Those of some people."""
    rows = np.isin(self.labels, labels)
    return Features(x=self.x[rows], labels=self.labels[rows])


class Gallery:
  """The features of photos, by tracker."""

  def __init__(self, tables: kept.Tables, detections: Detections, bars: Bars):
    """Looks at nothing yet.

    Args:
      tables: keep what was computed.
      detections: of faces.
      bars: show progress.
    """
    self._tables = tables
    self._detections = detections
    self._bars = bars

  def rows(
    self,
    tracker: trackers.Tracker,
    photos: Sequence[people.Photo],
    countermeasure: str = CLEAN,
  ) -> list[Float[np.ndarray, " d"] | None]:
    """A tracker's features of photos; None where it finds no face."""
    table = self._table(tracker)

    def key(photo: people.Photo) -> str:
      return f"{photo.sha256} {countermeasure}"

    def compute(photo: people.Photo) -> Callable[[], np.ndarray | None]:
      return lambda: self._embed(tracker, photo, countermeasure)

    wanted = {key(photo): photo for photo in photos}
    todo = [photo for known, photo in wanted.items() if known not in table]
    for photo in self._bars.track(todo, f"looking, {tracker.name}"):
      table.get(key(photo), compute(photo))
    table.save()
    self._detections.save(tracker.detector)
    return [table.get(key(photo), compute(photo)) for photo in photos]

  def features(
    self,
    tracker: trackers.Tracker,
    photos: Sequence[people.Photo],
    countermeasure: str = CLEAN,
  ) -> Features:
    """A tracker's features of the photos in which it finds a face.

    Raises:
      FawkesError: it has never found one.
    """
    rows = self.rows(tracker, photos, countermeasure)
    found = [i for i, row in enumerate(rows) if row is not None]
    return self._features(tracker, rows, photos, found)

  def pairs(
    self,
    tracker: trackers.Tracker,
    photos: Sequence[people.Photo],
    cloaks: Cloaks,
  ) -> tuple[Features, Features]:
    """Features of photos and of what is published of them.

    Only of photos in which the tracker finds a face before and after.

    Raises:
      FawkesError: it has never found one.
    """
    photos = [photo for photo in photos if photo in cloaks.photos]
    before = self.rows(tracker, photos)
    after = self.rows(tracker, cloaks.published(photos))
    both = [
      i
      for i, (a, b) in enumerate(zip(before, after, strict=True))
      if a is not None and b is not None
    ]
    return (
      self._features(tracker, before, photos, both),
      self._features(tracker, after, photos, both),
    )

  def not_found(
    self, tracker: trackers.Tracker, photos: Sequence[people.Photo]
  ) -> list[str]:
    """The names of the photos in which a tracker finds no face."""
    rows = self.rows(tracker, photos)
    return [
      photo.name for photo, row in zip(photos, rows, strict=True) if row is None
    ]

  def _embed(
    self, tracker: trackers.Tracker, photo: people.Photo, countermeasure: str
  ) -> np.ndarray | None:
    """What a tracker makes of a photo."""
    pixels = self._detections.pixels(photo)
    if pixels is None:
      return None
    pixels = COUNTERMEASURES[countermeasure](pixels)
    face = self._detections.face(
      tracker.detector, photo, pixels, countermeasure
    )
    return None if face is None else tracker.embed(pixels, face)

  def _features(
    self,
    tracker: trackers.Tracker,
    rows: Sequence[np.ndarray | None],
    photos: Sequence[people.Photo],
    found: Sequence[int],
  ) -> Features:
    """The rows with these numbers."""
    width = self._table(tracker).width
    if not width:
      raise types.FawkesError(
        f"--trackers: {tracker.name} must find a face, got none in"
        f" {len(photos)} photos"
      )
    return Features(
      x=np.array([rows[i] for i in found]).reshape(len(found), width),
      labels=people.labels([photos[i] for i in found]),
    )

  def _table(self, tracker: trackers.Tracker) -> kept.Table:
    return self._tables.get(tracker.name, tracker.key)
