r"""Measures whether the order of an archive changes how well it is protected.

    python tests/benchmarks/order.py --data=LFW --output=FOLDER \
      --trackers=a.onnx,b.onnx [--people=6] [--others=2000] [--steps=40] \
      [--rho=.012]

LFW is a folder of identities. Ten photos of each of some people are cloaked
twice: alone, in a folder for each person; and called by hashes, in an archive
with so many photos of others. Prints whether the files are the same, and for
each tracker the share of ten other, clean photos of these people that it gets
wrong after it has learned the cloaked ones beside three clean photos of
everybody else with at least twenty photos (nearest photo, nearest centroid),
and the cosine of the mean cloaked photo to the mean clean one, around the
tracker's mean.
"""

import argparse
import dataclasses
import hashlib
import pathlib
import random
import shutil

import numpy as np
from PIL import Image

from fawkes_jax.evaluation import detectors, trackers
from fawkes_jax.options import MODES, CloakOptions
from fawkes_jax.protection import heads
from fawkes_jax.runs import pipeline

PHOTOS = 10
CLEAN = 3


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--data", type=pathlib.Path, required=True)
  parser.add_argument("--output", type=pathlib.Path, required=True)
  parser.add_argument("--trackers", type=lambda t: t.split(","), required=True)
  parser.add_argument("--people", type=int, default=6)
  parser.add_argument("--others", type=int, default=2000)
  parser.add_argument("--steps", type=int, default=40)
  parser.add_argument("--rho", type=float, default=0.012)
  given = parser.parse_args()
  folders = {
    f.name: sorted(f.iterdir()) for f in given.data.iterdir() if f.is_dir()
  }
  known = sorted(n for n, f in folders.items() if len(f) >= 2 * PHOTOS)
  chosen = known[:: len(known) // given.people][: given.people]
  names = _write(given, folders, chosen)
  solver = dataclasses.replace(MODES["mid"], steps=given.steps, rho=given.rho)
  results = {}
  for kind, whole in (("sorted", "sorted"), ("hashed", "mixed")):
    output = given.output / f"cloaked {kind}"
    options = CloakOptions(
      input=given.output / whole, output=output, solver=solver,
      min_face_pixels=50, keep_index=True, targets="bank",
    )  # fmt: skip
    pipeline.index_archive(options)
    # The others count for who is who; to cloak them would take hours.
    part = dataclasses.replace(options, input=given.output / kind)
    pipeline.cloak_archive(part)
    paths = {
      name: output / (name if kind == "sorted" else hashed)
      for name, hashed in names.items()
    }
    # A photo that nothing protects is not written.
    results[kind] = {n: path for n, path in paths.items() if path.exists()}
  both = results["sorted"].keys() & results["hashed"].keys()
  same = sum(
    results["sorted"][name].read_bytes() == results["hashed"][name].read_bytes()
    for name in both
  )
  print(f"{same} of {len(both)} files are the same", flush=True)
  clean = {name: given.output / "sorted" / name for name in names}
  rest = [n for n in known if n not in chosen]
  _measure(given.trackers, folders, chosen, rest, {"clean": clean} | results)


def _write(given, folders, chosen):
  """The archives; returns the hashed name of each photo that is cloaked."""
  names = {}
  for kind in ("sorted", "hashed", "mixed"):
    (given.output / kind).mkdir(parents=True)
  for name in chosen:
    (given.output / "sorted" / name).mkdir()
    for path in folders[name][:PHOTOS]:
      png = f"{name}/{path.stem}.png"
      names[png] = f"{hashlib.sha256(png.encode()).hexdigest()[:16]}.png"
      Image.open(path).convert("RGB").save(given.output / "sorted" / png)
      for kind in ("hashed", "mixed"):
        shutil.copy(
          given.output / "sorted" / png, given.output / kind / names[png]
        )
  others = sorted(p for n, f in folders.items() if n not in chosen for p in f)
  random.Random(0).shuffle(others)
  for path in others[: given.others]:
    name = hashlib.sha256(path.name.encode()).hexdigest()[:16]
    shutil.copy(path, given.output / "mixed" / f"{name}{path.suffix}")
  return names


def _measure(files, folders, chosen, rest, results):
  dlib = detectors.Dlib()
  found = {}

  def pixels(path):
    return np.array(Image.open(path).convert("RGB"))

  def features(tracker, paths, clean):
    """Of each photo with a face, found in the clean photo, and its index."""
    rows = []
    for i, (path, original) in enumerate(zip(paths, clean, strict=True)):
      if original not in found:
        found[original] = dlib.find(pixels(original))
      if found[original] is not None:
        rows.append((i, tracker.embed(pixels(path), found[original])))
    return np.stack([e for _, e in rows]), [i for i, _ in rows]

  for file in files:
    tracker = trackers.load(file, dlib, dlib)
    gallery = [(n, p) for n in rest for p in folders[n][:CLEAN]]
    test = [(n, p) for n in chosen for p in folders[n][PHOTOS : 2 * PHOTOS]]
    everybody = [*chosen, *rest]
    paths = [p for _, p in gallery]
    others, kept = features(tracker, paths, paths)
    whom = [gallery[i][0] for i in kept]
    paths = [p for _, p in test]
    asked, kept = features(tracker, paths, paths)
    truth = np.array([everybody.index(test[i][0]) for i in kept])
    for kind, published in results.items():
      names = list(published)
      own, kept = features(
        tracker, published.values(), [results["clean"][n] for n in names]
      )
      labels = [*(names[i].partition("/")[0] for i in kept), *whom]
      y = np.array([everybody.index(label) for label in labels])
      x = _unit(np.concatenate([own, others]))
      centre = x.mean(axis=0)
      x, z = _unit(x - centre), _unit(_unit(asked) - centre)
      nearest, centroid = (
        float((head(x, y, z) != truth).mean())
        for head in (heads.nearest_neighbour, heads.nearest_centroid)
      )
      cosine = np.mean(
        [
          _unit(x[y == i].mean(0, keepdims=True))[0]
          @ _unit(z[truth == i].mean(0, keepdims=True))[0]
          for i in range(len(chosen))
        ]
      )
      print(
        f"{pathlib.Path(file).stem}, {kind}: {nearest:.3f} nearest,"
        f" {centroid:.3f} centroid, cosine {cosine:.3f}, {len(asked)} photos",
        flush=True,
      )


def _unit(rows):
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


if __name__ == "__main__":
  main()
