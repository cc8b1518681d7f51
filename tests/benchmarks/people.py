r"""Measures what it gives to cloak the photos of a person together.

    python tests/benchmarks/people.py --data=LFW --unseen=a.onnx,b.xml \
      [--people=6] [--photos=4] [--of=1,2,4,14] [--own_weights=12] \
      [--surrogates=A,B] [--steps=80] [--extractors_per_step=3]

LFW is a folder of identities with enough photos. Some photos of each person are
cloaked against the mean embedding of so many (--of), the photo itself among
them. Prints the mean DSSIM of the solver's results, and for each extractor the
cosine of a cloaked photo to its original, and of the mean of a person's cloaked
photos to the person, around the extractor's mean. The people are those of the
folder's first identities that have enough photos, every second one.
"""

import argparse
import dataclasses
import itertools
import pathlib

import jax
import numpy as np

from fawkes_jax.archive import scan
from fawkes_jax.cloaking import targets
from fawkes_jax.engine import embedder, executor
from fawkes_jax.faces import cloaker, recognition
from fawkes_jax.options import MODES, CloakOptions, FaceOptions
from fawkes_jax.weights import extractors


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--data", type=pathlib.Path, required=True)
  parser.add_argument("--unseen", type=lambda text: text.split(","), default=[])
  parser.add_argument("--mode", default="mid")
  parser.add_argument("--people", type=int, default=6)
  parser.add_argument("--photos", type=int, default=4)
  parser.add_argument("--of", default="1,2,4,14")
  parser.add_argument("--own_weights", default="12")
  parser.add_argument("--surrogates", type=lambda text: tuple(text.split(",")))
  parser.add_argument("--steps", type=int)
  parser.add_argument("--extractors_per_step", type=int)
  arguments = parser.parse_args()
  options = CloakOptions(
    input=arguments.data,
    output=arguments.data,
    min_face_pixels=50,
    extractors=arguments.surrogates or FaceOptions.extractors,
  )
  engine = cloaker.Cloaker(options)
  known = engine.recognition
  unseen = [extractors.load_extractor(name) for name in arguments.unseen]
  everyone = embedder.Embedder(
    [*known.extractors, *unseen], batch_size=2, mesh=known.mesh
  )
  counts = [int(n) for n in arguments.of.split(",")]
  groups = list(_groups(arguments, options, known, max(counts)))
  who = np.repeat(np.arange(len(groups)), max(counts))
  faces = [face for group in groups for face in group]
  sides = recognition.sides(faces)
  raw = everyone.embed(np.stack([face.crop for face in faces]), sides)
  centres = {n: engine.centres.get(n, e.mean(axis=0)) for n, e in raw.items()}
  clean = embedder.normalised(raw, centres)
  means = targets.identities(clean, who)
  chosen = targets.choose(
    {e.name: clean[e.name] for e in known.extractors}, who, engine.candidates
  )
  rows = [i for i in range(len(who)) if i % max(counts) < arguments.photos]
  print(f"{len(rows)} photos of {len(groups)} people, {jax.default_backend()}")
  print("own_weight of | DSSIM, name: cosine of a photo, of the mean")
  weights = [float(w) for w in arguments.own_weights.split(",")]
  for weight, count in itertools.product(weights, counts):
    given = {
      name: value
      for name in ("steps", "extractors_per_step")
      if (value := getattr(arguments, name)) is not None
    }
    solver = dataclasses.replace(MODES[arguments.mode], **given)
    problems = []
    for i in rows:
      others = [j for j in np.flatnonzero(who == who[i]) if j != i]
      part = [i, *others][:count]
      own = {
        name: e[0]
        for name, e in targets.identities(
          {e.name: clean[e.name][part] for e in known.extractors},
          np.zeros(len(part), np.int64),
        ).items()
      }
      problem = engine.problem(
        faces[i],
        own=own,
        target={n: e[chosen[i]] for n, e in engine.candidates.items()},
        exchanged=False,
        grey=False,
        seed=int(i),
      )
      # The whole budget: nothing is saved here.
      problem = problem._replace(
        budget=np.float32(solver.rho), own_weight=np.float32(weight)
      )
      problems.append((i, problem))
    solutions = dict(
      executor.Executor(
        known.extractors,
        engine.centres,
        solver,
        slots=8,
        mesh=known.mesh,
      ).solve(problems)
    )
    crops = [np.clip(faces[i].crop + solutions[i].change, 0, 255) for i in rows]
    after = embedder.normalised(
      everyone.embed(np.stack(crops), sides[rows]), centres
    )
    learned = targets.identities(after, who[rows])
    dssim = np.mean([s.dssim for s in solutions.values()])
    figures = ", ".join(
      f"{name}: {(after[name] * clean[name][rows]).sum(axis=1).mean():+.3f}"
      f" {(learned[name] * means[name][rows]).sum(axis=1).mean():+.3f}"
      for name in after
    )
    print(f"{weight:5g} {count:3} | {dssim:.4f}, {figures}", flush=True)


def _groups(arguments, options, known, count):
  """The largest face of each of `count` photos, for each person."""
  found = []
  for folder in sorted(f for f in arguments.data.iterdir() if f.is_dir()):
    sources = list(itertools.islice(scan.scan(folder), count))
    if len(sources) == count:
      found.append(sources)
    if len(found) == 2 * arguments.people:
      break
  for sources in found[::2]:
    group = []
    for source in sources:
      photo = recognition.load_photo(source, options)
      faces = known.finder.find([photo.pixels])[0]
      if faces:
        group.append(max(faces, key=lambda face: face.alignment.extent))
    if len(group) == count:
      yield group


if __name__ == "__main__":
  main()
