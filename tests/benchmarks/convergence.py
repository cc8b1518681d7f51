"""Measures how far the solver gets with how many steps, in each mode.

    python tests/benchmarks/convergence.py --data=LFW [--faces=16]

LFW is a folder of identities. Prints, for each mode and number of steps, the
means over faces (of the solver's result, before it is saved) of the DSSIM, and
for each extractor of the cosine to the original and to the target; the last row
of a mode is with its own number of steps.
"""

import argparse
import dataclasses
import pathlib

import jax
import numpy as np

from fawkes_jax.archive import scan
from fawkes_jax.cloaking import targets
from fawkes_jax.engine import executor
from fawkes_jax.faces import cloaker, recognition
from fawkes_jax.options import MODES, CloakOptions, FaceOptions


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--data", type=pathlib.Path, required=True)
  parser.add_argument("--faces", type=int, default=16)
  parser.add_argument("--steps", default="10,20,40,60,100")
  parser.add_argument("--extractors", default=",".join(FaceOptions.extractors))
  arguments = parser.parse_args()
  options = CloakOptions(
    input=arguments.data,
    output=arguments.data,
    min_face_pixels=50,
    extractors=tuple(arguments.extractors.split(",")),
  )
  engine = cloaker.Cloaker(options)
  folders = [f for f in sorted(arguments.data.iterdir()) if f.is_dir()]
  faces = []
  for i in range(arguments.faces):
    folder = folders[i * len(folders) // arguments.faces]
    source = next(scan.scan(folder))
    photo = recognition.load_photo(source, options)
    faces += engine.recognition.finder.find([photo.pixels])[0][:1]
  raw = engine.recognition.embed(faces)
  own = engine.normalised(raw)
  chosen = targets.choose(own, np.arange(len(faces)), engine.candidates)
  problems = [
    (
      i,
      engine.problem(
        face,
        own={name: e[i] for name, e in own.items()},
        target={n: e[chosen[i]] for n, e in engine.candidates.items()},
        exchanged=False,
        grey=False,
        seed=i,
      ),
    )
    for i, face in enumerate(faces)
  ]
  print(f"{len(faces)} faces, {jax.default_backend()}")
  print("mode steps | DSSIM, cosine to own, target")
  for mode, preset in MODES.items():
    runs = [int(n) for n in arguments.steps.split(",")]
    for steps in [*runs, preset.steps]:
      solver = dataclasses.replace(preset, steps=steps)
      solve = executor.Executor(
        engine.recognition.extractors,
        engine.centres,
        solver,
        slots=8,
        mesh=engine.recognition.mesh,
        steps_per_call=1,
      ).solve
      solutions = dict(solve(problems))
      crops = np.stack(
        [f.crop + solutions[i].change for i, f in enumerate(faces)]
      )
      after = engine.recognition.embedder.embed(crops, recognition.sides(faces))
      new = engine.normalised(after)
      figures = [np.mean([s.dssim for s in solutions.values()])]
      for name in options.extractors:
        target = np.stack([p.target[name] for _, p in problems])
        figures.append((new[name] * own[name]).sum(axis=1).mean())
        figures.append((new[name] * target).sum(axis=1).mean())
      cosines = " ".join(f"{x:+.3f}" for x in figures[1:])
      shown = f"{figures[0]:.4f} {cosines}"
      print(f"{mode:5} {steps:4} | {shown}", flush=True)


if __name__ == "__main__":
  main()
