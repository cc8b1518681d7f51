"""What photos cost the processor, whatever the devices do.

The devices' work is done by stand-ins that cost nothing: the boxes of faces are
those that the detector has found once, embeddings are drawn from the crops'
bytes, and the solver adds a fixed pattern that uses up the budget. All else is
what `fawkes-jax cloak` runs.
"""

import contextlib
import dataclasses
import hashlib
import multiprocessing
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from fawkes_jax import types
from fawkes_jax.archive import results, scan, stores
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.benchmarking import rounds, scenes
from fawkes_jax.cloaking import solver
from fawkes_jax.engine import executor
from fawkes_jax.faces import cloaker as cloaker_lib
from fawkes_jax.faces import recognition
from fawkes_jax.imaging import ssim
from fawkes_jax.options import BenchmarkOptions, CloakOptions
from fawkes_jax.photos import codec, drafts
from fawkes_jax.runs import outcomes, pipeline, saving

COUNTS = (1, 2, 4, 8, 16)
"""Of threads and of processes, as far as there are cores."""
_EMBEDDING = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Kind:
  """Photos that are alike.

  Attributes:
    name: for tables.
    folder: that holds copies of one, or real ones.
  """

  name: str
  folder: Path


class _KnownBoxes:
  """A detector that remembers what another one has found."""

  def __init__(self, detector: Any):
    self._detector = detector
    self._found: dict[bytes, types.Detections] = {}

  def look(
    self,
    photos: Sequence[np.ndarray],
    *,
    min_face_pixels: float | None,
    pool: Any = None,
  ) -> list[types.Detections]:
    """As the detector's own."""
    del pool
    return [self._look(photo, min_face_pixels) for photo in photos]

  def smallest_face(self, *arguments: Any) -> float:
    """As the detector's own."""
    return self._detector.smallest_face(*arguments)

  def _look(
    self, photo: np.ndarray, min_face_pixels: float | None
  ) -> types.Detections:
    key = photo[::16, ::16].tobytes()
    if key not in self._found:
      [self._found[key]] = self._detector.look(
        [photo], min_face_pixels=min_face_pixels
      )
    return self._found[key]


class _DrawnEmbeddings:
  """An embedder whose embeddings are random, and differ for other crops."""

  def __init__(self, names: Iterable[str]):
    self._names = list(names)

  def embed(
    self, crops: np.ndarray, sides: np.ndarray
  ) -> dict[str, np.ndarray]:
    """As the embedder's own."""
    drawn = []
    for crop in crops:
      rng = np.random.default_rng(int(crop.sum(dtype=np.float64)))
      drawn.append(rng.normal(size=_EMBEDDING))
    return {name: np.array(drawn, np.float32) for name in self._names}


class _FixedPattern:
  """A solver that adds the same pattern to each face."""

  slots = recognition.CPU_FACES

  def __init__(self) -> None:
    self._known: dict[bytes, executor.Solution] = {}

  def solve(
    self,
    problems: Iterable[tuple[Any, solver.Problem] | None],
    *,
    stopped: Callable[[], bool] = lambda: False,
    **_: Any,
  ) -> Iterator[tuple[Any, executor.Solution]]:
    """As the executor's own."""
    for item in problems:
      if stopped():
        return
      if item is not None:
        yield item[0], self.solution(item[1])

  def solution(self, problem: solver.Problem) -> executor.Solution:
    """The pattern, so strong that the saved face uses up the budget."""
    original, weights = problem.original, problem.weights
    budget = float(problem.budget)
    # Rounding takes more of it than of a cloak, which was made for that.
    goal = 1.2 * budget
    key = original[::8, ::8].tobytes()
    if key not in self._known:
      noise = np.random.default_rng(0).normal(size=original.shape)
      noise = ndimage.gaussian_filter(noise, (0.8, 0.8, 0))
      noise += 4 * noise.mean(axis=-1, keepdims=True)  # Mostly grey.
      change = (weights / weights.max())[..., None] * noise
      change = (6 / noise.std() * change).astype(np.float32)
      for _ in range(3):
        dssim = float(ssim.measure(original, original + change, weights))
        change *= np.sqrt(goal / max(dssim, 1e-9))
      self._known[key] = executor.Solution(
        change=change, dssim=goal, budget=budget, steps=1
      )
    return self._known[key]


def without_devices(options: CloakOptions) -> cloaker_lib.Cloaker:
  """What a run loads, with stand-ins for all that devices do."""
  loaded = cloaker_lib.Cloaker(options)
  networks = loaded.recognition
  names = [extractor.name for extractor in networks.extractors]
  known: Any = _KnownBoxes(networks.finder.detector)
  networks.finder = dataclasses.replace(networks.finder, detector=known)
  networks.embedder = _DrawnEmbeddings(names)  # type: ignore[assignment]
  loaded.executor = _FixedPattern()  # type: ignore[assignment]
  rng = np.random.default_rng(0)
  loaded.centres = {n: np.zeros(_EMBEDDING, np.float32) for n in names}
  loaded.candidates = loaded.normalised(
    {n: rng.normal(size=(4, _EMBEDDING)).astype(np.float32) for n in names}
  )
  return loaded


def subjects(
  options: BenchmarkOptions, folder: Path
) -> Iterator[rounds.Subject]:
  """The stages of each kind of photo, and whole runs.

  Args:
    options: of the benchmark.
    folder: for photos, before and after.
  """
  cores = len(os.sched_getaffinity(0))
  several = [n for n in COUNTS if n == 1 or n <= cores]
  for kind in _kinds(options, folder):
    run = options.cloak(
      kind.folder, folder / "host-cloaked", options.ensembles[0]
    )
    loaded = without_devices(run)
    yield from _stages(kind, run, loaded)
    for threads in several:
      yield Runs(
        kind=kind.name,
        options=dataclasses.replace(run, threads=threads),
        loaded=loaded,
        faces_per_second=options.faces_per_second,
      )
    for processes in several[1:]:
      yield Runs(
        kind=kind.name,
        options=dataclasses.replace(run, threads=1),
        loaded=loaded,
        processes=processes,
        faces_per_second=options.faces_per_second,
      )


def _kinds(options: BenchmarkOptions, folder: Path) -> Iterator[_Kind]:
  """Real photos, or copies of made ones."""
  if options.data is not None:
    real = folder / "photos"
    yield _Kind(name=options.data.name, folder=real)
    return
  count = options.photos or 8
  made: list[tuple[str, tuple[int, int, int], dict[str, int]]] = [
    ("250 x 250, 1 face", (250, 250, 1), {"face": 110, "quality": 75}),
    ("12 MP, 1 face", (4000, 3000, 1), {"face": 300, "quality": 92}),
    ("12 MP, 10 faces", (4000, 3000, 10), {"face": 300, "quality": 92}),
  ]
  for number, (name, shape, more) in enumerate(made):
    data = scenes.scene(*shape, seed=number, **more)
    place = folder / f"host-{number}"
    place.mkdir()
    for copy in range(count):
      (place / f"{copy:04}.jpg").write_bytes(data)
    yield _Kind(name=name, folder=place)


def _cpu() -> float:
  """Seconds of the processor that this process has used."""
  used = resource.getrusage(resource.RUSAGE_SELF)
  return used.ru_utime + used.ru_stime


@dataclasses.dataclass(kw_only=True, eq=False)
class Stage(rounds.Subject):
  """One thing that is done with each photo, on one thread.

  Attributes:
    title: what it is.
    call: does it with the first photo.
    megapixels: of that photo.
    megabytes: that it reads, or makes.
  """

  title: Mapping[str, Any]
  call: Callable[[], Any]
  megapixels: float
  megabytes: float
  part: str = "host stages"

  def prepare(self) -> Mapping[str, Any]:
    """Does it once."""
    self.call()
    return {}

  def measure(self, seconds: float) -> Mapping[str, float]:
    """Does it again and again."""
    started = _cpu()
    calls, _ = rounds.repeat(self.call, seconds)
    spent = 1e3 * (_cpu() - started) / calls
    return {
      "CPU ms a photo": spent,
      "CPU ms a megapixel": spent / self.megapixels,
      "MB a photo": self.megabytes,
    }


def _stages(
  kind: _Kind, options: CloakOptions, loaded: cloaker_lib.Cloaker
) -> Iterator[Stage]:
  """The stages of the first photo of a folder that has a face."""
  finder = loaded.recognition.finder
  for source in scan.scan(kind.folder):
    data = recognition.read(source)
    photo = recognition.decode(data, options)
    if finder.find([photo.pixels])[0]:
      break
  else:
    return
  job = _job(source, data, loaded)
  fitting = saving.Fitting(job, photo, options, loaded)
  attempt, faces = fitting.best()
  written, _, _ = fitting.encode(attempt, faces)
  areas = [face.area for face in job.faces]
  # Not where runs write, which would find a file that is none of theirs.
  apart = f"{options.output}-stages"
  kept = results.open_results(stores.open_store(apart), options.output_format)
  saver = saving.Saver(options, loaded, kept)
  again = recognition.decode(data, options, again=True)
  megabytes = len(data) / 1e6
  decoded = photo.pixels.nbytes / 1e6
  pieces = sum(part.nbytes for part in attempt.parts) / 1e6

  def fit() -> None:
    saving.Fitting(job, again, options, loaded).best()

  def fit_and_encode() -> None:
    fitting = saving.Fitting(job, again, options, loaded)
    fitting.encode(*fitting.best())

  def write() -> None:
    saver.write(source, written)
    kept.read(source.relative, None)

  def read_back() -> None:
    drafts.read_back(written, areas, max_pixels=options.max_pixels)

  stages: list[tuple[str, str, Callable[[], Any], float]] = [
    ("read and hash", "pool", lambda: _hash(source), megabytes),
    (
      "decode",
      "pool",
      lambda: codec.decode(data, max_pixels=options.max_pixels),
      decoded,
    ),
    ("align", "pool", lambda: finder.find([photo.pixels]), pieces),
    ("read coefficients, fit, encode", "pool", fit_and_encode, pieces),
    ("of that, read and fit", "pool", fit, pieces),
    ("of that, look at it", "pool", read_back, pieces),
    ("write and read", "pool", write, len(written) / 1e6),
  ]
  for what, thread, call, size in stages:
    yield Stage(
      title={"photos": kind.name, "stage": what, "thread": thread},
      call=call,
      megapixels=photo.pixels.size / 3e6,
      megabytes=size,
    )


def _hash(source: SourceFile) -> str:
  return hashlib.sha256(recognition.read(source)).hexdigest()


def _job(
  source: SourceFile, data: bytes, loaded: cloaker_lib.Cloaker
) -> saving.Job:
  """A photo whose faces are solved."""
  photo = recognition.decode(data, loaded.options)
  faces = loaded.recognition.finder.find([photo.pixels])[0]
  raw = loaded.recognition.embed(faces)
  own = loaded.normalised(raw)
  problems = [
    loaded.problem(
      face,
      own={name: e[i] for name, e in own.items()},
      target={name: e[0] for name, e in loaded.candidates.items()},
      exchanged=False,
      grey=photo.grey,
      seed=0,
      jpeg_tables=photo.jpeg_tables,
    )
    for i, face in enumerate(faces)
  ]
  return saving.Job(
    source=source,
    sha256=hashlib.sha256(data).hexdigest(),
    grey=photo.grey,
    jpeg_tables=photo.jpeg_tables,
    smallest_face=loaded.recognition.finder.smallest(photo.pixels),
    faces=faces,
    raw=raw,
    own=own,
    numbers=list(range(len(faces))),
    target_names=["pattern"] * len(faces),
    solutions={
      i: loaded.executor.solution(problem)  # type: ignore[attr-defined]
      for i, problem in enumerate(problems)
    },
  )


class Runs(rounds.Subject):
  """Whole runs of `fawkes-jax cloak` with a solver that costs nothing."""

  part = "host"

  def __init__(
    self,
    *,
    kind: str,
    options: CloakOptions,
    loaded: cloaker_lib.Cloaker,
    faces_per_second: float,
    processes: int = 1,
  ):
    """Loads nothing yet.

    Args:
      kind: of the photos, for the table.
      options: of the run of each process.
      loaded: from `without_devices`, for this process.
      faces_per_second: see `BenchmarkOptions`.
      processes: that run at the same time, each all photos.
    """
    self.title = {
      "photos": kind,
      "processes": processes,
      "threads each": options.threads,
    }
    self._options = options
    self._loaded = loaded
    self._speed = faces_per_second
    self._processes = processes

  def prepare(self) -> Mapping[str, Any]:
    """One run of each process, which finds the faces."""
    if self._processes == 1:
      self._run = _Run(self._options, self._loaded)
      counts = self._run.once()
    else:
      self._others = _start(self._options, self._processes)
      counts = self._others[0].recv()
      for other in self._others[1:]:
        other.recv()
    return {"faces a photo": counts["faces"] / counts["photos"]}

  def measure(self, seconds: float) -> Mapping[str, float]:
    """One run of each process, however long it takes."""
    del seconds
    started = time.perf_counter()
    if self._processes == 1:
      done = [self._run.once()]
    else:
      for other in self._others:
        other.send(None)
      done = [other.recv() for other in self._others]
    spent = time.perf_counter() - started
    sums = {name: sum(one[name] for one in done) for name in done[0]}
    photos, faces = sums["photos"], sums["faces"]
    wanted = self._speed * photos / max(faces, 1)
    cpu, main = sums["CPU"] / photos, sums["main thread"] / photos
    return {
      "photos/s": photos / spent,
      "CPU ms a photo": 1e3 * cpu,
      "main thread ms a photo": 1e3 * main,
      "main thread busy": sums["main thread"] / sums["seconds"],
      f"cores for {self._speed:g} faces/s": wanted * cpu,
      f"processes for {self._speed:g} faces/s": wanted * main,
      "peak MB": max(one["peak MB"] for one in done),
    }


class _Run:
  """Runs that use the same stand-ins."""

  def __init__(self, options: CloakOptions, loaded: cloaker_lib.Cloaker):
    self._options = options
    self._loaded = loaded

  def once(self) -> dict[str, float]:
    """One run; how much there was, and what it took, in seconds."""
    tally = outcomes.Tally()
    started = time.perf_counter(), _cpu(), time.thread_time()
    try:
      pipeline.cloak_archive(self._options, tally, cloaker=self._loaded)
      ended = time.perf_counter(), _cpu(), time.thread_time()
    finally:
      shutil.rmtree(self._options.output, ignore_errors=True)
    seconds, cpu, main = (b - a for a, b in zip(started, ended, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
      "photos": tally.counts["files"],
      "faces": tally.counts["faces"],
      "seconds": seconds,
      "CPU": cpu,
      "main thread": main,
      "peak MB": peak / 1024,
    }


def _start(options: CloakOptions, count: int) -> list[Connection]:
  """Starts processes, each of which runs whenever it is told to.

  They end with this one. None of them needs a device.
  """
  context = multiprocessing.get_context("spawn")
  ends = []
  with _environment("JAX_PLATFORMS", "cpu"):
    for number in range(count):
      own = dataclasses.replace(
        options, output=Path(f"{options.output}-{number}")
      )
      here, there = context.Pipe()
      context.Process(target=_serve, args=(there, own), daemon=True).start()
      ends.append(here)
  return ends


def _serve(pipe: Connection, options: CloakOptions) -> None:
  """What such a process does."""
  run = _Run(options, without_devices(options))
  with contextlib.suppress(EOFError):
    while True:
      pipe.send(run.once())
      pipe.recv()


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
  """A variable of the environment, for processes that are started inside."""
  before = os.environ.get(name)
  os.environ[name] = value
  try:
    yield
  finally:
    del os.environ[name]
    if before is not None:
      os.environ[name] = before
