"""Measures the solver beside other engines' loops on the same faces.

    python tests/benchmarks/against_peers.py --data=PHOTOS [--faces=8,40] \
      [--pytorch=PYTHON] [--fawkes=PYTHON] [--processor]

PHOTOS are photos, or folders of them, with a face each. PYTHON is the Python of
an environment with what `peers/pytorch.py` or `peers/fawkes_tf.py` needs; ours
is the one that runs this. All have the same task: faces of 150 x 150 pixels as
dlib's network sees them, within the budget of DSSIM, without random views, each
towards the least similar of the others (Fawkes: away from itself). Each engine
is a process that waits while another has its turn. Prints, of so many rounds,
the median of the face-steps a second, its extremes, and of the ratios to ours
in the same round; then what the engines reached with --steps steps: the means
over faces of the DSSIM, and of the distance that dlib's embedding has moved.
With --processor seconds are the processor's, which other work on the machine
disturbs less.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import flax.traverse_util
import jax
import numpy as np

from fawkes_jax.archive import scan
from fawkes_jax.cloaking import objective, solver
from fawkes_jax.faces import cloaker, recognition
from fawkes_jax.imaging import geometry, ssim, views
from fawkes_jax.models import dlib_resnet
from fawkes_jax.options import CloakOptions, SolverOptions
from fawkes_jax.weights import extractors
from fawkes_jax.xla import compiler, memory

SIZE = dlib_resnet.INPUT_SIZE
WEIGHTS = np.full((SIZE, SIZE), 1 / SIZE**2, np.float32)
_PAUSE = 1.0
PEERS = pathlib.Path(__file__).parent / "peers"


class Ours:
  """The solver, in this process."""

  def __init__(self, extractor, faces, own, target, centre, steps):
    # The faces are what the network sees already.
    self._extractor = dataclasses.replace(extractor, template=geometry.CROP)
    self._options = options(steps)
    self._problems = [
      solver.Problem(
        original=face,
        coverage=np.ones((SIZE, SIZE), np.float32),
        weights=WEIGHTS,
        side=np.float32(SIZE),
        tables=np.ones((2, 8, 8), np.float32),
        colour=np.float32(1),
        budget=np.float32(self._options.rho),
        own={"dlib_resnet": own[i]},
        target={"dlib_resnet": target[i]},
        own_weight=np.float32(0),
        seed=np.uint32(i),
      )
      for i, face in enumerate(faces)
    ]
    self._variables = jax.device_put(
      {"dlib_resnet": {"weights": extractor.variables, "centre": centre}}
    )
    self._start = compiler.jit(
      jax.vmap(lambda problem: solver.start(problem, self._options))
    )
    self._step = compiler.jit(
      lambda states, variables: jax.vmap(
        lambda s: solver.step(s, variables, [self._extractor], self._options)
      )(states),
      donate_argnums=0,
    )

  def run(self, steps):
    """The cloaked faces, and the seconds it took, as `Peer.run` has them."""
    started = time.perf_counter(), time.process_time()
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *self._problems)
    states = self._start(stacked)
    for _ in range(steps):
      states = self._step(states, self._variables)
    change = np.asarray(states.result)
    ended = time.perf_counter(), time.process_time()
    seconds = [b - a for a, b in zip(started, ended, strict=True)]
    return stacked.original + change, seconds


def options(steps):
  """No random views, no bound that the peers do not have."""
  return SolverOptions(
    rho=0.012,
    steps=steps,
    jitter=0,
    jpeg=0,
    blur=0,
    chroma=255,
  )


class Peer:
  """Another engine, in its own process."""

  def __init__(self, python, program, task, *how):
    self._process = subprocess.Popen(
      [python, str(PEERS / program), task, *how],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    self._answer()

  def _answer(self):
    line = self._process.stdout.readline()
    if not line:
      raise SystemExit(f"{' '.join(map(str, self._process.args))} ended")
    return json.loads(line)

  def run(self, steps, name="-"):
    """The seconds it took, by both clocks; the faces go to a file."""
    self._process.stdin.write(f"{steps} {name}\n")
    self._process.stdin.flush()
    return self._answer()


def main() -> None:
  memory.keep_freed()
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--data", required=True)
  parser.add_argument("--faces", default="8,40")
  parser.add_argument("--pytorch")
  parser.add_argument("--fawkes")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--round_steps", type=int, default=10)
  parser.add_argument("--steps", type=int, default=40)
  parser.add_argument("--processor", action="store_true")
  arguments = parser.parse_args()
  counts = [int(n) for n in arguments.faces.split(",")]
  extractor = extractors.load_extractor("dlib_resnet")
  faces = _faces(arguments.data, extractor, max(counts))
  raw = np.concatenate([extractor.embed(face[None]) for face in faces])
  centre = raw.mean(axis=0)
  unit = np.asarray(objective.normalised(raw, centre))
  for count in counts:
    _compare(
      arguments, extractor, faces[:count], raw[:count], unit[:count], centre
    )


def _compare(arguments, extractor, faces, raw, unit, centre):
  """One table."""
  farthest = (unit @ unit.T).argmin(axis=1)
  task = {
    "faces": faces,
    "target": unit[farthest],
    "centre": centre,
    "mean_pixel": np.array(dlib_resnet.MEAN_PIXEL, np.float32),
    "rho": options(1).rho,
    "learning_rate": options(1).learning_rate,
  }
  flat = flax.traverse_util.flatten_dict(extractor.variables["params"], sep="/")
  with tempfile.TemporaryDirectory() as folder:
    path, out = f"{folder}/task.npz", f"{folder}/faces.npy"
    np.savez(path, **task, **flat)
    ours = Ours(extractor, faces, unit, unit[farthest], centre, arguments.steps)
    engines = {"fawkes_jax": lambda steps: ours.run(steps)[1]}
    peers = {}
    if arguments.fawkes:
      peers["Fawkes 1.0.4"] = (arguments.fawkes, "fawkes_tf.py", path)
    if arguments.pytorch:
      for how in ("eager", "compile"):
        for kind in ("float32", "bfloat16"):
          peers[f"PyTorch {how} {kind}"] = (
            arguments.pytorch,
            "pytorch.py",
            path,
            how,
            kind,
          )
    peers = {name: Peer(*how) for name, how in peers.items()}
    engines |= {name: peer.run for name, peer in peers.items()}
    reached = {"fawkes_jax": ours.run(arguments.steps)[0]}
    for name, peer in peers.items():
      peer.run(arguments.steps, out)
      reached[name] = np.load(out)
    work = len(faces) * arguments.round_steps
    rates = {name: [] for name in engines}
    for _ in range(arguments.rounds):
      for name, run in engines.items():
        # The threads of the one before look for work a while, on all cores.
        time.sleep(_PAUSE)
        seconds = run(arguments.round_steps)[arguments.processor]
        rates[name].append(work / seconds)
  print(f"\n{len(faces)} faces, {jax.default_backend()}\n")
  print("| engine | face-steps/s | ours to it | DSSIM | shift |")
  print("|---|---|---|---|---|")
  for name, figures in rates.items():
    ratios = [a / b for a, b in zip(rates["fawkes_jax"], figures, strict=True)]
    after = reached[name]
    dssim = [
      float(ssim.measure(a, b, WEIGHTS))
      for a, b in zip(faces, after, strict=True)
    ]
    moved = np.concatenate([extractor.embed(face[None]) for face in after])
    shift = np.linalg.norm(moved - raw, axis=1).mean()
    print(
      f"| {name} | {_spread(figures)} | {_spread(ratios)}"
      f" | {np.mean(dssim):.4f} | {shift:.2f} |",
      flush=True,
    )


def _spread(values):
  low, high = min(values), max(values)
  return f"{statistics.median(values):.3g} [{low:.3g}, {high:.3g}]"


def _faces(data, extractor, count):
  """float32 [count, 150, 150, 3]: faces as dlib's network sees them."""
  settings = CloakOptions(input=data, output=data, min_face_pixels=50)
  finder = cloaker.Cloaker(settings).recognition.finder
  found = []
  for source in scan.scan(pathlib.Path(data)):
    photo = recognition.load_photo(source, settings)
    for face in finder.find([photo.pixels])[0][:1]:
      view = views.template_view(
        face.crop,
        np.float32(face.alignment.side),
        extractor.template,
        SIZE,
        shift=np.zeros(2, np.float32),
        zoom=np.float32(1),
        blur=np.float32(1),
      )
      found.append(np.asarray(view).round())
    if len(found) == count:
      return np.stack(found)
  sys.exit(f"{data} has {len(found)} photos with faces, not {count}")


if __name__ == "__main__":
  main()
