"""People of coloured squares, and a tracker that looks at their colours.

Every identity has its own pattern; the tracker's features are the pattern,
and a cloak that works gives photos another person's pattern.
"""

import dataclasses
import hashlib
import io
import json

import numpy as np
import pytest
import rich.console
from PIL import Image

from fawkes_jax.archive import manifest, scan
from fawkes_jax.evaluation import detectors, study, trackers
from fawkes_jax.faces import recognition
from fawkes_jax.options import EvaluateOptions
from fawkes_jax.runs import outcomes, pipeline

PATTERNS = 4  # A pattern is so many squares in each direction,
SQUARE = 12  # of so many pixels.


def pattern(person):
  """The colours of a person, uint8 [PATTERNS, PATTERNS, 3]."""
  rng = np.random.default_rng(person)
  return rng.integers(30, 226, (PATTERNS, PATTERNS, 3), np.uint8)


def picture(person, number):
  """A photo of a person."""
  rng = np.random.default_rng([person, number])
  squares = np.repeat(np.repeat(pattern(person), SQUARE, 0), SQUARE, 1)
  noisy = squares + rng.normal(0, 4, squares.shape)
  return np.clip(noisy, 0, 255).astype(np.uint8)


@pytest.fixture
def people_folder(tmp_path):
  """Seven people with five photos, one with two."""
  root = tmp_path / "people"
  for person in range(8):
    folder = root / f"Person {person}"
    folder.mkdir(parents=True)
    for number in range(5 if person < 7 else 2):
      Image.fromarray(picture(person, number)).save(folder / f"{number}.png")
  return root


@dataclasses.dataclass
class Looks:
  """Counts what is done, so that tests can see what is not done twice."""

  found: int = 0
  embedded: int = 0
  cloaked: int = 0


class Eyes:
  """Finds a face in every photo that is not black."""

  name = "eyes"
  key = "eyes"

  def __init__(self, looks):
    self._looks = looks

  def find(self, pixels):
    self._looks.found += 1
    if not pixels.any():
      return None
    side = PATTERNS * SQUARE - 1
    box = np.array([0.0, 0, side, side])
    return detectors.Face(box=box, points=np.zeros((5, 2)))

  def reference(self, template, size):
    return np.zeros((5, 2))


def fake_cloaks(looks, cloak):
  """A pipeline that cloaks with `cloak(pixels, path) -> pixels`, or fails."""

  def cloak_archive(options, watcher):
    with manifest.Manifest(options.output) as record:
      for source in scan.scan(options.input):
        looks.cloaked += 1
        data = recognition.read(source)
        pixels = cloak(
          np.asarray(Image.open(io.BytesIO(data))), source.relative
        )
        row = {
          "path": source.name,
          "config": options.fingerprint(),
          "source_sha256": hashlib.sha256(data).hexdigest(),
        }
        if pixels is None:
          row |= {"status": "failed", "reason": "on purpose"}
        else:
          path = options.output / source.relative
          path.parent.mkdir(parents=True, exist_ok=True)
          Image.fromarray(pixels).save(path)
          digest = hashlib.sha256(path.read_bytes()).hexdigest()
          row |= {"status": "cloaked", "output_sha256": digest, "faces": [{}]}
        record.append(manifest.Row.from_json(json.dumps(row)))
        outcome = record.rows.get(source.name)
        watcher.settled(outcomes.Outcome(row=outcome, fresh=True))
      record.finish()

  return cloak_archive


def opposite(pixels, path):
  """A perfect cloak: the opposite of the person's pattern, noise as it was."""
  own = pattern(int(path.split("/")[0].split()[-1])).astype(int)
  change = np.repeat(np.repeat(255 - 2 * own, SQUARE, 0), SQUARE, 1)
  return np.clip(pixels + change, 0, 255).astype(np.uint8)


def nothing(pixels, path):
  """A cloak that changes nothing a tracker could see."""
  return pixels ^ 1


@pytest.fixture
def fakes(monkeypatch):
  """Replaces detector, trackers and pipeline; returns what they count.

  Called with a cloak, it replaces the pipeline's.
  """
  looks = Looks()
  eyes = Eyes(looks)

  def embed(pixels, face):
    looks.embedded += 1
    squares = pixels.reshape(PATTERNS, SQUARE, PATTERNS, SQUARE, 3)
    return squares.mean(axis=(1, 3)).ravel() / 255

  def load(name, *_):
    return trackers.Tracker(
      name=name, key=name, identity=name, detector=eyes, embed=embed
    )

  monkeypatch.setattr(detectors, "Dlib", lambda: eyes)
  monkeypatch.setattr(trackers, "load", load)

  def use(cloak):
    monkeypatch.setattr(pipeline, "cloak_archive", fake_cloaks(looks, cloak))
    return looks

  use(opposite)
  looks.use = use
  return looks


@pytest.fixture
def begin(people_folder, tmp_path):
  """Makes the study of some options."""

  def study_of(**changes):
    given = {
      "data": str(people_folder),
      "output": tmp_path / "out",
      "identities": 4,
      "train": 3,
      "test": 2,
      "draws": 50,
    }
    options = EvaluateOptions(**(given | changes))
    return study.Study(options, rich.console.Console(quiet=True))

  return study_of
