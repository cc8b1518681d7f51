"""Which faces detectors find in annotated photos, and how long they take."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fawkes_jax import types
from fawkes_jax.benchmarking import rounds
from fawkes_jax.faces import annotations
from fawkes_jax.faces.annotations import Annotated
from fawkes_jax.models import yunet
from fawkes_jax.options import BenchmarkOptions
from fawkes_jax.photos import codec
from fawkes_jax.weights import detectors

_WIDTHS = ((0, 20), (20, 40), (40, 80), (80, None))
_SKINS = {"I-III": ("I", "II", "III"), "IV-VI": ("IV", "V", "VI")}


class Detection(rounds.Subject):
  """One detector on all annotated photos."""

  part = "detection"

  def __init__(
    self,
    detector: types.Detector,
    photos: Sequence[Annotated],
    options: BenchmarkOptions,
  ):
    """Reads nothing yet."""
    self._detector = detector
    self._photos = photos
    self._options = options
    self.title = {"detector": detector.name}

  def prepare(self) -> Mapping[str, Any]:
    """Looks at all photos, and counts."""
    found = [self._found(photo)[0] for photo in self._photos]
    return figures(self._photos, found)

  def measure(self, seconds: float) -> Mapping[str, float]:
    """Looks at all photos once; the time is that of all cores together."""
    spent = sum(self._found(photo)[1] for photo in self._photos)
    return {"s a photo": spent / len(self._photos)}

  def _found(self, photo: Annotated) -> tuple[list[types.Detection], float]:
    """The faces of a photo, and the processor's seconds without decoding."""
    decoded = codec.decode(
      photo.path.read_bytes(), max_pixels=self._options.max_pixels
    )
    started = time.process_time()
    [found] = self._detector.detect(
      [decoded.pixels], min_face_pixels=self._options.min_face_pixels
    )
    return found, time.process_time() - started


def subjects(options: BenchmarkOptions) -> Iterator[Detection]:
  """The detectors of the options.

  Raises:
    FawkesError: the table of annotations or a detector cannot be used.
  """
  if options.data is None:
    raise types.FawkesError(
      f"--data must be a folder with {annotations.BOXES} for --parts=detection"
    )
  photos = annotations.photos(options.data)
  for name in options.detectors:
    yield Detection(detectors.load_detector(name), photos, options)


def figures(
  photos: Sequence[Annotated], found: Sequence[Sequence[types.Detection]]
) -> dict[str, Any]:
  """Recall and precision.

  Args:
    photos: the annotations.
    found: the faces that were found in each, by falling confidence.

  Returns:
    By name: the number of faces; the recall of all faces, by difficulty, by
    width in pixels and by perceived skin where the annotations tell them; and
    the precision. What is ignored counts for neither.
  """
  hits: list[bool] = []
  labels: list[dict[str, str]] = []
  widths: list[float] = []
  right = wrong = 0
  for photo, detections in zip(photos, found, strict=True):
    matched = _matched(photo, detections)
    for i in np.flatnonzero(~photo.ignored):
      hits.append(i in matched.values())
      labels.append(photo.labels[i])
      widths.append(float(photo.boxes[i, 2] - photo.boxes[i, 0]))
    right += sum(not photo.ignored[i] for i in matched.values())
    wrong += len(detections) - len(matched)
  hit, width = np.array(hits, bool), np.array(widths)

  def recall(wanted: Sequence[bool] | np.ndarray) -> float | None:
    chosen = hit[np.array(wanted, bool)]
    return float(chosen.mean()) if len(chosen) else None

  rows: dict[str, Any] = {
    "faces": len(hit),
    "recall": recall(np.ones(len(hit), bool)),
  }
  for name in ("easy", "medium", "hard"):
    rows[name] = recall([label.get("difficulty") == name for label in labels])
  for low, high in _WIDTHS:
    name = f"{low}- px" if high is None else f"{low}-{high} px"
    rows[name] = recall((width >= low) & (width < (high or np.inf)))
  for name, kinds in _SKINS.items():
    rows[name] = recall(
      [label.get("perceived_skin") in kinds for label in labels]
    )
  rows["precision"] = right / max(right + wrong, 1)
  return rows


def _matched(
  photo: Annotated, detections: Sequence[types.Detection]
) -> dict[int, int]:
  """Which annotated face each detection is, the surest first.

  Faces come before what is ignored; each is found once, but what is ignored
  may be found again and again.
  """
  free = np.ones(len(photo.boxes), bool)
  matched: dict[int, int] = {}
  edge = np.array([0, 0, 1, 1], np.float32)
  for index, detection in enumerate(detections):
    shared = yunet.overlaps(detection.box + edge, photo.boxes)
    for wanted in (free & ~photo.ignored, photo.ignored):
      likely = np.where(wanted, shared, 0)
      if len(likely) and likely.max() >= annotations.SAME:
        best = int(np.argmax(likely))
        free[best] = False
        matched[index] = best
        break
  return matched
