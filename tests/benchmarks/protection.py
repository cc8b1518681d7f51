"""Measures protection on the saved files, against trackers of their own.

A person publishes cloaked photos; a tracker trains on them, beside the clean
photos of other people, and then sees clean photos of the person (Shan et al.
2020, section 5). Twenty people, ten of them cloaked, ten photos each to train
on and five clean ones to test.

Trackers never use the package's networks: dlib runs as dlib (detector,
landmarks, chip, descriptor), recognisers in ONNX run in onnxruntime on faces
that YuNet found, aligned to ArcFace's template. Usage, after
`pip install -e .[test]`:

    python tests/benchmarks/protection.py --data=LFW --work=FOLDER \\
      [--mode=mid] [--trackers=WEIGHTS] [flags of fawkes-jax cloak]

LFW is a folder of identities with at least 15 photos for 20 of them; WEIGHTS a
folder with yunet_n_dynamic.onnx and any of the recognisers in RECOGNISERS.
Prints a table and writes FOLDER/protection.json.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys

import dlib
import numpy as np
import onnxruntime
from PIL import Image
from skimage import metrics, transform
from sklearn import linear_model

from fawkes_jax.weights import dlib as files

PEOPLE, TRAIN, TEST = 20, 10, 5

# What is subtracted from RGB in 0..255, and then divided by.
RECOGNISERS = {
  "esp_mfn": (127.5, 127.5),
  "mobileface_v3": (0, 1),
  "foamliu_mobilefacenet": (
    (123.675, 116.28, 103.53),
    (58.395, 57.12, 57.375),
  ),
  "mobileface_v2": (0, 1),
}

ARCFACE = np.array(
  [
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
  ]
)


def nearest(boxes: np.ndarray, pixels: np.ndarray) -> int:
  """The box whose centre is nearest to the photo's; [n, 4], l t r b."""
  height, width = pixels.shape[:2]
  centres = (boxes[:, :2] + boxes[:, 2:]) / 2
  return int(np.abs(centres - (width / 2, height / 2)).sum(axis=1).argmin())


class Dlib:
  """dlib's own chain from a photo to a descriptor."""

  def __init__(self):
    def path(name: str) -> str:
      return str(files.package_file(name))

    self._detector = dlib.cnn_face_detection_model_v1(path(files.MMOD_FILE))
    self._points = dlib.shape_predictor(path(files.LANDMARK_FILE))
    self._network = dlib.face_recognition_model_v1(path(files.RESNET_FILE))

  def look(self, pixels: np.ndarray):
    """The descriptor and box of the face nearest to the photo's centre."""
    found = [face.rect for face in self._detector(pixels, 0)]
    if not found:
      return None, None
    sides = [(b.left(), b.top(), b.right(), b.bottom()) for b in found]
    box = found[nearest(np.array(sides), pixels)]
    chip = dlib.get_face_chip(pixels, self._points(pixels, box), 150, 0.25)
    return np.array(self._network.compute_face_descriptor(chip)), box


class YuNet:
  """Faces aligned as ArcFace does it."""

  def __init__(self, weights: pathlib.Path):
    self._session = onnxruntime.InferenceSession(
      weights / "yunet_n_dynamic.onnx"
    )

  def chip(self, pixels: np.ndarray) -> np.ndarray | None:
    """The face nearest to the centre, uint8 [112, 112, 3]."""
    height, width = pixels.shape[:2]
    padding = ((0, -height % 32), (0, -width % 32), (0, 0))
    image = np.pad(pixels, padding)[..., ::-1].astype(np.float32)
    names = [output.name for output in self._session.get_outputs()]
    outputs = self._session.run(
      names, {"input": image.transpose(2, 0, 1)[None]}
    )
    found = dict(zip(names, (output[0] for output in outputs), strict=True))
    boxes, points, scores = [], [], []
    for stride in (8, 16, 32):
      rows, columns = (size // stride for size in image.shape[:2])
      cells = np.stack(np.mgrid[:rows, :columns][::-1], -1).reshape(-1, 2)
      score = np.sqrt(found[f"cls_{stride}"] * found[f"obj_{stride}"])[:, 0]
      box = found[f"bbox_{stride}"]
      centre = (cells + box[:, :2]) * stride
      half = np.exp(box[:, 2:]) * stride / 2
      boxes.append(np.concatenate([centre - half, centre + half], axis=1))
      marks = found[f"kps_{stride}"].reshape(-1, 5, 2)
      points.append((cells[:, None] + marks) * stride)
      scores.append(score)
    score = np.concatenate(scores)
    good = score > 0.6
    if not good.any():
      return None
    box, marks = np.concatenate(boxes)[good], np.concatenate(points)[good]
    near = np.abs(box - box[nearest(box, pixels)]).max(axis=1) < 20
    best = np.flatnonzero(near)[score[good][near].argmax()]
    fit = transform.SimilarityTransform.from_estimate(ARCFACE, marks[best])
    chip = transform.warp(
      pixels, fit, output_shape=(112, 112), preserve_range=True
    )
    return chip.round().astype(np.uint8)


class Recogniser:
  """A network in onnxruntime on aligned faces."""

  def __init__(self, file: pathlib.Path, mean, scale):
    self._session = onnxruntime.InferenceSession(file)
    self._mean, self._scale = np.float32(mean), np.float32(scale)

  def embed(self, chip: np.ndarray) -> np.ndarray:
    """Of length one."""
    x = ((chip - self._mean) / self._scale).astype(np.float32)
    name = self._session.get_inputs()[0].name
    (y,) = self._session.run(None, {name: x.transpose(2, 0, 1)[None]})
    return y.ravel() / np.linalg.norm(y)


class Trackers:
  """All trackers' features of a photo."""

  def __init__(self, weights: pathlib.Path | None):
    self._dlib = Dlib()
    self._yunet = YuNet(weights) if weights else None
    self._networks = {
      name: Recogniser(weights / f"{name}.onnx", *contract)
      for name, contract in RECOGNISERS.items()
      if weights and (weights / f"{name}.onnx").exists()
    }

  def look(self, photo: pathlib.Path):
    """By tracker, the features or None; and dlib's box or None."""
    pixels = np.asarray(Image.open(photo).convert("RGB"))
    features, box = self._dlib.look(pixels)
    seen = {"dlib": features}
    chip = self._yunet.chip(pixels) if self._yunet else None
    for name, network in self._networks.items():
      seen[name] = None if chip is None else network.embed(chip)
    return seen, box


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
  parser.add_argument("--trackers", type=pathlib.Path)
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

  trackers = Trackers(arguments.trackers)
  train, test, dssims, sizes = [], [], [], []
  for label, folder in enumerate(identities):
    photos = sorted(folder.iterdir())
    for photo in photos[:TRAIN]:
      clean, box = trackers.look(photo)
      seen = clean
      if label % 2 == 0:
        saved = cloaked / folder.name / photo.name
        seen, _ = trackers.look(saved)
        sizes.append(saved.stat().st_size / photo.stat().st_size)
        if box is not None:
          dssims.append(dssim_in(box, photo, saved))
      train.append((label, clean, seen))
    for photo in photos[TRAIN : TRAIN + TEST]:
      test.append((label, trackers.look(photo)[0]))
  result = {
    "mode": arguments.mode,
    "flags": rest,
    "photos cloaked": len(sizes),
    "dssim mean": float(np.mean(dssims)),
    "dssim 95th percentile": float(np.percentile(dssims, 95)),
    "file size ratio": float(np.mean(sizes)),
    "trackers": {name: protection(name, train, test) for name in test[0][1]},
  }
  text = json.dumps(result, indent=2)
  (arguments.work / "protection.json").write_text(text + "\n")
  print(text)


def protection(name: str, train: list, test: list) -> dict:
  """What one tracker makes of it; None features are faces it did not find."""
  clean = [(y, c[name]) for y, c, s in train if c[name] is not None]
  seen = [(y, s[name]) for y, c, s in train if s[name] is not None]
  pairs = [
    (c[name], s[name])
    for y, c, s in train
    if y % 2 == 0 and c[name] is not None and s[name] is not None
  ]
  before, after = (np.array(x) for x in zip(*pairs, strict=True))
  lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
  tests = [(y, t[name]) for y, t in test if t[name] is not None]
  own = accuracy(seen, tests)
  return {
    "accuracy on the ten, uncloaked": accuracy(clean, tests, cloaked=True),
    "accuracy on the others, after": accuracy(seen, tests, cloaked=False),
    "protection success rate": {k: 1 - v for k, v in own.items()},
    "shift": float(np.linalg.norm(after - before, axis=1).mean()),
    "cosine": float(((before * after).sum(axis=1) / lengths).mean()),
    "cloaked faces not found": len(train) - len(seen),
  }


def accuracy(train: list, test: list, *, cloaked: bool = True) -> dict:
  """Of a nearest-centroid and a logistic tracker, on one half of the people."""
  y, x = (np.array(part) for part in zip(*train, strict=True))
  truth, x_test = (np.array(part) for part in zip(*test, strict=True))
  centroids = np.stack([x[y == i].mean(axis=0) for i in range(PEOPLE)])
  distance = np.linalg.norm(x_test[:, None] - centroids, axis=-1)
  probe = linear_model.LogisticRegression(C=100, max_iter=5000).fit(x, y)
  answers = {
    "nearest centroid": distance.argmin(axis=1),
    "logistic": probe.predict(x_test),
  }
  group = (truth % 2 == 0) == cloaked
  return {
    name: float((answer[group] == truth[group]).mean())
    for name, answer in answers.items()
  }


if __name__ == "__main__":
  main()
