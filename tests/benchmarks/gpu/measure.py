"""Measures on a machine with an accelerator and without network.

    python3 tests/benchmarks/gpu/measure.py --output=FOLDER [--steps=cloak,...]

Needs the checkout with the folder build/gpu that `pack.py` has filled, and that
machine's own Python with JAX. Each step of --steps consists of commands, each
of which is ended at its limit; what does not fit into --minutes is left out, so
that the most valuable steps come first:

    cloak      --compared photos in float32 and bfloat16, and in float32 on the
               processor beside the accelerator; then all photos by default
    solver     `fawkes-jax benchmark --parts=solver`: the default ensemble, and
               dlib's network alone
    profile    a trace of the default ensemble in bfloat16
    train      a student of dlib's network, or what --training says; recognisers
               that were packed as files teach under these files' names
    pipeline   `fawkes-jax benchmark`: photos as they are, and of 12 megapixels
    peers      the solver beside PyTorch's, see `against_peers.py`
    host       `fawkes-jax benchmark --parts=host`

FOLDER gets log.txt, with what the commands have printed, results.json, with
how each has ended and how far the cloaks differ, and, as .tar.gz, what they
have written: rows of cloaked photos, tables, a trace and trained weights. A
file that would be larger than 16 MiB is left out. --tiny rehearses all of that
on any machine.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent import futures

REPOSITORY = pathlib.Path(__file__).parents[3]
FOLDER = REPOSITORY / "build" / "gpu"
LARGEST = 2**24
STEPS = ("cloak", "solver", "profile", "train", "pipeline", "peers", "host")
FAWKES = (sys.executable, "-m", "fawkes_jax")
KINDS = ("float32", "bfloat16")
KEPT = {
  "rows": "**/manifest.jsonl",
  "tables": "**/*",
  "trace": "**/*",
  "trained": "*",  # Without the folder of the training's state.
}
"""Of what commands write, by folder."""
_END = {None: "ended at its limit", 0: "done"}
_SHOWN = 2000
"""Characters of the log that are shown of a command that has failed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
  """How much is done; the defaults are for one large accelerator.

  Attributes:
    carried: the largest number of carried photos that are used.
    compared: photos that are cloaked in three ways.
    solver: flags of whatever runs the solver.
    batches: faces solved at once, for dlib's network alone.
    default_batches: the same for the default ensemble.
    profiled: the same for the trace.
    rounds: of each benchmark.
    photos: the largest number of those that the pipeline is measured with.
    large: how many large ones are made for it.
    size: of these, width and height in pixels.
    training: flags of `fawkes-jax train`.
    peers: flags of `against_peers.py`.
    patience: what limits in seconds are multiplied by.
  """

  carried: int = 1_000_000
  compared: int = 32
  solver: tuple[str, ...] = ()
  batches: str = "64,256,1024,4096"
  default_batches: str = "256,1024"
  profiled: int = 256
  rounds: int = 3
  photos: int = 512
  large: int = 64
  size: tuple[int, int] = (4000, 3000)
  training: tuple[str, ...] = ("--minutes=1.5", "--batch_size=128")
  peers: tuple[str, ...] = ("--faces=8,256", "--rounds=3")
  patience: float = 1


TINY = Scale(
  carried=40,
  compared=2,
  solver=("--steps=6", "--surrogates=dlib_resnet"),
  batches="2",
  default_batches="2",
  profiled=2,
  rounds=1,
  photos=2,
  large=2,
  size=(800, 600),
  training=("--steps=2", "--batch_size=4", "--validation=0.3"),
  peers=("--faces=2", "--rounds=1", "--steps=2", "--round_steps=2"),
  patience=20,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
  """What is run.

  Attributes:
    name: in the results.
    seconds: after which it is ended.
    words: the command line.
    environment: what differs from this process's.
  """

  name: str
  seconds: float
  words: tuple[str, ...]
  environment: dict[str, str] = dataclasses.field(default_factory=dict)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--output", type=pathlib.Path, required=True)
  parser.add_argument("--steps", default=",".join(STEPS))
  parser.add_argument("--minutes", type=float, default=9, help="for all")
  parser.add_argument("--pytorch", default=sys.executable, help="its Python")
  parser.add_argument("--training", help="flags of fawkes-jax train, in quotes")
  parser.add_argument("--tiny", action="store_true")
  arguments = parser.parse_args()
  steps = arguments.steps.split(",")
  if unknown := set(steps) - set(STEPS):
    parser.error(f"--steps must be of {', '.join(STEPS)}, got {unknown}")
  end = time.monotonic() + 60 * arguments.minutes
  scale = TINY if arguments.tiny else Scale()
  if arguments.training is not None:
    training = tuple(shlex.split(arguments.training))
    scale = dataclasses.replace(scale, training=training)
  output = arguments.output.resolve()
  output.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory() as folder:
    work = pathlib.Path(folder)
    environment = prepare(work)
    results: dict[str, object] = {}
    for command in commands(steps, scale, work, arguments.pytorch):
      left = end - time.monotonic()
      limit = min(left, command.seconds * scale.patience)
      results[command.name] = run(command, limit, environment, output)
      results["compared"] = compared(work / "rows")
      results["left out"] = keep(work, output)
      (output / "results.json").write_text(json.dumps(results, indent=1))


def prepare(work: pathlib.Path) -> dict[str, str]:
  """Unpacks what was carried; the environment in which it is found."""
  with tarfile.open(FOLDER / "site.tar.xz") as file:
    file.extractall(work, filter="data")
  sys.path[:0] = found = [str(REPOSITORY), str(work / "site")]
  # Compiled programs are added to it.
  shutil.copytree(FOLDER / "cache", work / "cache")
  return {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(found),
    "PYTHONUNBUFFERED": "1",
    "FAWKES_JAX_CACHE": str(work / "cache"),
  }


def commands(
  steps: list[str], scale: Scale, work: pathlib.Path, pytorch: str
) -> Iterator[Command]:
  """What the steps consist of; what they need is made when they are due."""
  photos, few, large = work / "photos", work / "few", work / "large"
  some_of(FOLDER / "photos", scale.carried, photos)

  def cloak(
    name: str, source: pathlib.Path, seconds: float, *flags: str, **environment
  ) -> Command:
    words = "cloak", f"--input={source}", f"--output={work / 'rows' / name}"
    return Command(
      name=f"cloak {name}",
      seconds=seconds,
      words=(*FAWKES, *words, *scale.solver, *flags),
      environment=environment,
    )

  def benchmark(name: str, seconds: float, parts: str, *flags: str) -> Command:
    output = work / "tables" / name.replace(" ", "_")
    words = "benchmark", f"--parts={parts}", f"--output={output}"
    return Command(
      name=name,
      seconds=seconds,
      words=(
        *(*FAWKES, *words, f"--rounds={scale.rounds}", *scale.solver, *flags),
      ),
    )

  def solver(kind: str, batches: str, *flags: str) -> Command:
    name = "dlib" if flags else "default"
    how = f"--precision={kind}", f"--batch_size={batches}"
    return benchmark(f"solver {name} {kind}", 120, "solver", *how, *flags)

  yield Command(
    name="machine",
    seconds=60,
    words=(
      *(sys.executable, "-c"),
      "import os, jax; print(jax.__version__, jax.devices(), os.cpu_count())",
    ),
  )
  for step in steps:
    match step:
      case "cloak":
        some_of(photos, scale.compared, few)
        for kind in KINDS:
          yield cloak(kind, few, 120, f"--precision={kind}")
        how = "--precision=float32"
        yield cloak("processor", few, 180, how, JAX_PLATFORMS="cpu")
        yield cloak("all", photos, 180)
      case "solver":
        for kind in reversed(KINDS):
          yield solver(kind, scale.default_batches)
          yield solver(kind, scale.batches, "--surrogates=dlib_resnet")
      case "profile":
        how = "--precision=bfloat16", f"--batch_size={scale.profiled}"
        trace = f"--profile_dir={work / 'trace'}"
        yield benchmark("profile", 120, "solver", *how, trace)
      case "train":
        words = "train", f"--data={photos}", f"--output={work / 'trained'}"
        yield Command(
          name="train", seconds=540, words=(*FAWKES, *words, *scale.training)
        )
      case "pipeline":
        parts = "detector,codecs,pipeline"
        how = f"--data={photos}", f"--photos={scale.photos}"
        yield benchmark("pipeline", 150, parts, *how)
        make_large(scale, large)
        how = f"--data={large}", f"--photos={scale.large}"
        yield benchmark("pipeline large", 150, parts, *how)
      case "peers":
        program = str(REPOSITORY / "tests/benchmarks/against_peers.py")
        words = program, f"--data={photos}", f"--pytorch={pytorch}"
        yield Command(
          name="peers",
          seconds=150,
          words=(sys.executable, *words, *scale.peers),
          # Two of them use the accelerator's memory.
          environment={"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        )
      case "host":
        yield benchmark("host", 240, "host")


def some_of(photos: pathlib.Path, count: int, folder: pathlib.Path) -> None:
  """Copies the first so many photos, in folders as they are."""
  for path in sorted(photos.glob("*/*"))[:count]:
    target = folder / path.relative_to(photos)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)


def make_large(scale: Scale, folder: pathlib.Path) -> None:
  """Makes large photos with a face each, all different."""
  from fawkes_jax.benchmarking import scenes

  width, height = scale.size
  folder.mkdir()

  def make(seed: int) -> None:
    data = scenes.scene(
      width, height, 1, face=width // 8, quality=92, seed=seed
    )
    (folder / f"{seed}.jpg").write_bytes(data)

  with futures.ThreadPoolExecutor() as threads:
    list(threads.map(make, range(scale.large)))


def run(
  command: Command,
  limit: float,
  environment: dict[str, str],
  output: pathlib.Path,
) -> dict[str, object]:
  """Runs a command within its limit; how it ended.

  Args:
    command: to be run.
    limit: seconds that it may take.
    environment: of all commands.
    output: the folder of the log.
  """
  if limit < 1:
    return {"left out": "no time left"}
  began = time.monotonic()
  with open(output / "log.txt", "ab") as log:
    log.write(f"\n== {command.name}: {' '.join(command.words)}\n".encode())
    log.flush()
    process = subprocess.Popen(
      command.words,
      cwd=REPOSITORY,
      env={**environment, **command.environment},
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )
    try:
      code: int | None = process.wait(limit)
    except subprocess.TimeoutExpired:
      # And whatever it has started.
      os.killpg(process.pid, signal.SIGKILL)
      process.wait()
      code = None
  seconds = round(time.monotonic() - began, 1)
  print(f"{command.name}: {seconds} s, {_END.get(code, code)}", flush=True)
  if code != 0:
    print((output / "log.txt").read_text(errors="replace")[-_SHOWN:])
  return {"seconds": seconds, "exit code": code}


def compared(rows: pathlib.Path) -> dict[str, object]:
  """How far the faces' figures differ from those of the processor.

  Returns:
    For each way of cloaking, and for each figure, the mean over all faces, and
    the mean and the largest difference to the processor's where that is known.
  """
  figures = {name: _figures(rows / name) for name in ("processor", *KINDS)}
  reference = figures["processor"]
  said: dict[str, object] = {}
  for name, found in figures.items():
    for what in sorted({what for what, *_ in found}):
      own = {key: value for key, value in found.items() if key[0] == what}
      apart = [abs(own[key] - reference[key]) for key in own.keys() & reference]
      said[f"{name} {what}"] = {
        "faces": len(own),
        "mean": statistics.fmean(own.values()),
        "mean difference": statistics.fmean(apart) if apart else None,
        "largest difference": max(apart, default=None),
      }
  return said


def _figures(output: pathlib.Path) -> dict[tuple[str, str, int], float]:
  """What rows say of faces: by figure, photo and the face's number in it."""
  found = {}
  path = output / "manifest.jsonl"
  for line in path.read_text().splitlines() if path.is_file() else ():
    row = json.loads(line)
    for number, face in enumerate(row["faces"]):
      found["dssim", row["path"], number] = face["dssim"]
      for name, moved in face["extractors"].items():
        for what, value in moved.items():
          found[f"{what} {name}", row["path"], number] = value
  return found


def keep(work: pathlib.Path, output: pathlib.Path) -> dict[str, int]:
  """Puts what was written into tar files; sizes of those that are too large."""
  too_large = {}
  for name, which in KEPT.items():
    path = output / f"{name}.tar.gz"
    with tarfile.open(path, "w:gz") as file:
      for entry in sorted((work / name).glob(which)):
        if entry.is_file():
          file.add(entry, entry.relative_to(work))
    if (size := path.stat().st_size) > LARGEST:
      too_large[path.name] = size
      path.unlink()
  log = output / "log.txt"
  if log.stat().st_size > LARGEST:
    log.write_bytes(log.read_bytes()[-LARGEST // 2 :])
  return too_large


if __name__ == "__main__":
  main()
