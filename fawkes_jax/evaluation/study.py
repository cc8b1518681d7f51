"""An evaluation's people, cloaks and features, computed once and kept."""

from pathlib import Path
from typing import Any

import rich.console

from fawkes_jax import version
from fawkes_jax.archive import scan
from fawkes_jax.evaluation import detectors, kept, people, trackers
from fawkes_jax.evaluation.bars import Bars
from fawkes_jax.evaluation.cloaks import Cloaks, Wardrobe
from fawkes_jax.evaluation.detections import Detections
from fawkes_jax.evaluation.features import Gallery
from fawkes_jax.evaluation.visibility import Visibility
from fawkes_jax.options import EvaluateOptions

# Experiments that look at people beyond those of the tracker.
_WIDE = {"identities", "adaptive"}


class Study:
  """Everything that experiments share.

  Attributes:
    options: of the run.
    people: who takes part.
    trackers: the recognisers.
    wardrobe: what people publish.
    detections: the faces that detectors find.
    gallery: the features that trackers compute.
    visibility: of cloaks.
    memory: results of earlier runs.
  """

  def __init__(self, options: EvaluateOptions, console: rich.console.Console):
    """Chooses the people and loads the trackers; cloaks nothing yet.

    Raises:
      FawkesError: the data, a tracker or a runtime cannot be used.
    """
    self.options = options
    self._dlib = detectors.Dlib()
    self._detector: detectors.Detector = self._dlib
    if options.tracker_detector is not None:
      self._detector = detectors.YuNet(options.tracker_detector)
    self.trackers = [self.tracker(name) for name in options.trackers]
    self.memory = kept.Memory(options.output / "results")
    console.print(f"choosing people of {options.data}")
    self.people = people.choose(
      options, extras=bool(_WIDE & set(options.experiments))
    )
    _check_free(options, self.people)
    bars = Bars(console)
    tables = kept.Tables(options.output / "features")
    self.wardrobe = Wardrobe(options, self.people, bars)
    self.detections = Detections(tables, max_pixels=options.max_pixels)
    self.gallery = Gallery(tables, self.detections, bars)
    self.visibility = Visibility(tables, self.detections, self._dlib, bars)

  def tracker(self, name: str) -> trackers.Tracker:
    """Loads a tracker.

    Raises:
      FawkesError: it cannot be used.
    """
    return trackers.load(name, self._dlib, self._detector)

  def key(
    self, tracker: trackers.Tracker, cloaks: Cloaks, *parts: Any
  ) -> list[Any]:
    """What results of a tracker and of cloaks depend on, and more parts."""
    return [
      version.__version__,
      self.people.key(),
      tracker.key,
      cloaks.key,
      self.options.heads,
      self.options.draws,
      *parts,
    ]


def _check_free(options: EvaluateOptions, everybody: people.People) -> None:
  """Makes sure that the output is not within the data."""
  for photo in people.train_photos(everybody.chosen)[:1]:
    if not photo.path.is_relative_to(options.output / "photos"):
      scan.check_output(Path(options.data), options.output, flag="data")
