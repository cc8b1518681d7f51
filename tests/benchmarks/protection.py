"""Measures protection against real dlib, on the saved files.

A person publishes cloaked photos; a tracker trains on them, beside the clean
photos of other people, and then sees clean photos of the person (Shan et al.
2020, section 5). User and tracker share the extractor here: this is the check
that the whole chain works, down to the file, not that cloaks transfer.

The tracker is dlib itself (detector, landmarks, chip, descriptor), never our
ports. Usage, after `pip install -e .[test]`:

    python tests/benchmarks/protection.py --data=LFW --work=FOLDER [--mode=mid]

LFW is a folder of identities with at least 15 photos for 20 of them. Prints a
table and writes FOLDER/protection.json.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys

import dlib
import numpy as np
from PIL import Image
from skimage import metrics
from sklearn import linear_model

from fawkes_jax.weights import dlib as files

PEOPLE, PROTECTED, TRAIN, TEST = 20, 10, 10, 5


class Tracker:
  """dlib's own chain from a photo to a descriptor."""

  def __init__(self):
    def path(name: str) -> str:
      return str(files.package_file(name))

    self._detector = dlib.cnn_face_detection_model_v1(path(files.MMOD_FILE))
    self._points = dlib.shape_predictor(path(files.LANDMARK_FILE))
    self._network = dlib.face_recognition_model_v1(path(files.RESNET_FILE))

  def look(self, photo: pathlib.Path):
    """The descriptor and box of the face nearest to the photo's centre."""
    pixels = np.asarray(Image.open(photo).convert("RGB"))
    found = [face.rect for face in self._detector(pixels, 0)]
    if not found:
      return None, None
    height, width = pixels.shape[:2]

    def off_centre(box) -> float:
      centre = box.center()
      return abs(centre.x - width / 2) + abs(centre.y - height / 2)

    box = min(found, key=off_centre)
    chip = dlib.get_face_chip(pixels, self._points(pixels, box), 150, 0.25)
    return np.array(self._network.compute_face_descriptor(chip)), box


def dssim_in(box, before: pathlib.Path, after: pathlib.Path) -> float:
  """scikit-image's DSSIM, averaged over a face's box."""
  a, b = (np.asarray(Image.open(p).convert("RGB")) for p in (before, after))
  _, full = metrics.structural_similarity(
    a,
    b,
    channel_axis=2,
    data_range=255,
    gaussian_weights=True,
    sigma=1.5,
    use_sample_covariance=False,
    full=True,
  )
  rows = slice(max(box.top(), 0), box.bottom() + 1)
  columns = slice(max(box.left(), 0), box.right() + 1)
  return float((1 - full[rows, columns].mean()) / 2)


def people(data: pathlib.Path) -> list[pathlib.Path]:
  """Twenty identities with enough photos, evenly over the alphabet."""
  rich = [
    folder
    for folder in sorted(data.iterdir())
    if folder.is_dir() and len(list(folder.iterdir())) >= TRAIN + TEST
  ]
  return [rich[i * len(rich) // PEOPLE] for i in range(PEOPLE)]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--data", type=pathlib.Path, required=True)
  parser.add_argument("--work", type=pathlib.Path, required=True)
  parser.add_argument("--mode", default="mid")
  arguments, rest = parser.parse_known_args()
  plain, cloaked = arguments.work / "plain", arguments.work / "cloaked"
  shutil.rmtree(plain, ignore_errors=True)
  identities = people(arguments.data)
  for folder in identities[::2]:
    (plain / folder.name).mkdir(parents=True)
    for photo in sorted(folder.iterdir())[:TRAIN]:
      shutil.copy(photo, plain / folder.name)
  command = [sys.executable, "-m", "fawkes_jax", "cloak", f"--input={plain}"]
  command += [f"--output={cloaked}", f"--mode={arguments.mode}", *rest]
  subprocess.run(command, check=True)

  tracker = Tracker()
  train, test, shifts, dssims, sizes = [], [], [], [], []
  lost = 0
  for label, folder in enumerate(identities):
    photos = sorted(folder.iterdir())
    for photo in photos[:TRAIN]:
      clean, box = tracker.look(photo)
      seen = clean
      if label % 2 == 0:
        saved = cloaked / folder.name / photo.name
        seen, _ = tracker.look(saved)
        if seen is not None and clean is not None:
          shifts.append(np.linalg.norm(seen - clean))
          dssims.append(dssim_in(box, photo, saved))
          sizes.append(saved.stat().st_size / photo.stat().st_size)
      if seen is None:
        lost += 1
      else:
        train.append((label, clean, seen))
    for photo in photos[TRAIN : TRAIN + TEST]:
      features, _ = tracker.look(photo)
      if features is not None:
        test.append((label, features))
  truth = np.array([label for label, _ in test])
  x_test = np.array([features for _, features in test])
  y = np.array([label for label, _, _ in train])
  protected = truth % 2 == 0

  def accuracy(x: np.ndarray) -> dict[str, tuple[float, float]]:
    """Of both trackers, on protected and on other people."""
    centroids = np.stack([x[y == i].mean(axis=0) for i in range(PEOPLE)])
    distance = np.linalg.norm(x_test[:, None] - centroids, axis=-1)
    probe = linear_model.LogisticRegression(C=100, max_iter=5000).fit(x, y)
    answers = {
      "nearest centroid": distance.argmin(axis=1),
      "logistic": probe.predict(x_test),
    }
    return {
      name: tuple(
        float((answer[group] == truth[group]).mean())
        for group in (protected, ~protected)
      )
      for name, answer in answers.items()
    }

  result = {
    "mode": arguments.mode,
    "photos cloaked": len(shifts),
    "faces the tracker does not find": lost,
    "shift": float(np.mean(shifts)),
    "dssim mean": float(np.mean(dssims)),
    "dssim 95th percentile": float(np.percentile(dssims, 95)),
    "file size ratio": float(np.mean(sizes)),
    "accuracy before": accuracy(np.array([clean for _, clean, _ in train])),
    "accuracy after": accuracy(np.array([seen for _, _, seen in train])),
  }
  for name, (own, _) in result["accuracy after"].items():
    result[f"protection success rate, {name}"] = 1 - own
  text = json.dumps(result, indent=2)
  (arguments.work / "protection.json").write_text(text + "\n")
  print(text)


if __name__ == "__main__":
  main()
