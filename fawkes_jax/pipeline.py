"""Cloaks an archive: the only place where files and devices meet.

Photos go through in waves, a few at a time, so that memory is bounded
by what is in flight and not by the archive. Faces of all photos share the
solver's slots; a photo is saved as soon as its last face is solved.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import safetensors.numpy

from fawkes_jax import cloaker as cloaker_lib
from fawkes_jax import config, recognition, types
from fawkes_jax.archive import codec, files, manifest, scan
from fawkes_jax.archive.photo import Photo
from fawkes_jax.cloaking import solver, targets
from fawkes_jax.engine import executor, finder
from fawkes_jax.imaging import geometry, ssim
from fawkes_jax.weights import cache

# A wave ends at this many photos or decoded bytes.
WAVE_PHOTOS = 16
WAVE_BYTES = 128 << 20

# Files of other kinds lie in photo folders without harm; a file with one of
# these names that is not an image is damaged.
_PHOTO_SUFFIXES = frozenset(
  f".{kind}"
  for kind in (
    *("avif", "bmp", "dib", "gif", "heic", "heif", "ico", "jfif", "jpe"),
    *("jpeg", "jpg", "png", "tif", "tiff", "webp"),
  )
)

# The least cosine between two faces of one person, of centred embeddings of
# the first extractor; docs/cloaking.md has the measurement.
_SAME_PERSON = 0.45

# Saving costs or adds a little: the change is scaled until the saved file is
# between this fraction of what it aims at and the budget, in so many tries.
_BUDGET_BAND = 0.95
_MAX_TRIES = 5
_AIM = 0.985

Item = TypeVar("Item")


@dataclasses.dataclass(kw_only=True, eq=False)
class _Job:
  """A photo with faces on its way through the solver."""

  source: scan.SourceFile
  sha256: str
  photo: Photo
  faces: list[finder.AlignedFace]
  started: float
  embeddings: dict[str, np.ndarray]
  target_names: list[str]
  solutions: dict[int, executor.Solution] = dataclasses.field(
    default_factory=dict
  )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
  """What became of one input file.

  Attributes:
    row: its row of the manifest.
    fresh: whether this run did it, or an earlier one.
    redone: why an earlier run's result was not kept, or None.
  """

  row: manifest.Row
  fresh: bool
  redone: str | None = None


def cloak_archive(
  options: config.CloakOptions,
  report: Callable[[Outcome], None],
  *,
  cloaker: cloaker_lib.Cloaker | None = None,
) -> dict[str, float]:
  """Cloaks all faces of an archive.

  Args:
    options: of the run.
    report: called with the outcome of each input file as soon as it is known,
      in no particular order.
    cloaker: of the same options, but for the folders, from an earlier run,
      which need not be loaded and compiled again.

  Returns:
    How many seconds the run spent on each stage, without what its threads did
    at the same time: "loading" is waiting for photos, "finding", "embedding",
    "solving", and "measuring" includes waiting for what is saved.

  Raises:
    FawkesError: the run cannot begin or go on: the folders, the weights, or
      the manifest. A single photo never raises.
  """
  sources = scan.scan(options.input)
  scan.check_output(options.input, options.output)
  with (
    manifest.Manifest(options.output) as record,
    concurrent.futures.ThreadPoolExecutor(options.threads) as pool,
  ):
    run = _Run(
      options, record, pool, report, cloaker or cloaker_lib.Cloaker(options)
    )
    started = time.monotonic()
    run.run(sources)
    spent = time.monotonic() - started
    record.finish()
  return {**run.seconds, "solving": spent - sum(run.seconds.values())}


def forget_people(options: config.CloakOptions) -> None:
  """Removes what a run remembers of the people it has met."""
  with contextlib.suppress(OSError):
    _people_file(options).unlink(missing_ok=True)


def count_faces(
  options: config.CloakOptions,
  report: Callable[[scan.SourceFile, int | str], None],
) -> None:
  """Counts the faces of an archive without writing anything.

  Args:
    options: of the run.
    report: called with each input file and its number of faces, or the reason
      why it cannot have any.

  Raises:
    FawkesError: the input or the weights cannot be used.
  """
  find = recognition.Recognition(options).finder.find

  def load(source: scan.SourceFile) -> Photo | str:
    try:
      return recognition.load_photo(source, options)
    except types.PhotoError as error:
      return str(error)

  with concurrent.futures.ThreadPoolExecutor(options.threads) as pool:
    for wave in _waves(scan.scan(options.input), load, options, pool):
      photos = [item for _, item in wave if isinstance(item, Photo)]
      counts = iter([len(faces) for faces in find([p.pixels for p in photos])])
      for source, item in wave:
        report(source, next(counts) if isinstance(item, Photo) else item)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Loaded:
  """A decoded photo and its file's digest."""

  photo: Photo
  sha256: str


class _Run:
  """The state of one run over an archive."""

  def __init__(
    self,
    options: config.CloakOptions,
    record: manifest.Manifest,
    pool: concurrent.futures.Executor,
    report: Callable[[Outcome], None],
    cloaker: cloaker_lib.Cloaker,
  ):
    self.seconds = dict.fromkeys(
      ("loading", "finding", "embedding", "measuring"), 0.0
    )
    self._options = options
    self._cloaker = cloaker
    self._record = record
    self._pool = pool
    self._report = report
    self._config = options.fingerprint()
    self._redone: dict[str, str] = {}
    self._people_file = _people_file(options)
    first = self._cloaker.recognition.extractors[0].name
    self._people = _load_people(self._people_file, first)

  @contextlib.contextmanager
  def _stage(self, name: str) -> Iterator[None]:
    """Adds up the time that is spent in a stage."""
    started = time.monotonic()
    try:
      yield
    finally:
      self.seconds[name] += time.monotonic() - started

  def run(self, sources: Iterator[scan.SourceFile]) -> None:
    """Brings every source to its outcome."""
    saving: collections.deque = collections.deque()
    for (job, index), solution in self._cloaker.executor.solve(
      self._problems(sources)
    ):
      job.solutions[index] = solution
      if len(job.solutions) == len(job.faces):
        saving.append((job, self._pool.submit(self._save, job)))
      while saving and (
        saving[0][1].done() or len(saving) > self._options.threads
      ):
        self._finish_job(*saving.popleft())
    while saving:
      self._finish_job(*saving.popleft())

  def _problems(
    self, sources: Iterator[scan.SourceFile]
  ) -> Iterator[tuple[tuple[_Job, int], solver.Problem]]:
    """The faces of an archive; photos without any are settled on the way."""
    waves = _waves(sources, self._load, self._options, self._pool)
    while True:
      with self._stage("loading"):
        wave = next(waves, None)
      if wave is None:
        return
      started = time.monotonic()
      good = []
      for source, item in wave:
        if isinstance(item, _Loaded):
          good.append((source, item))
        else:
          self._finish(item)
      with self._stage("finding"):
        found = self._cloaker.recognition.finder.find(
          [item.photo.pixels for _, item in good]
        )
      jobs = []
      for (source, item), faces in zip(good, found, strict=True):
        if faces:
          jobs.append(
            _Job(
              source=source,
              sha256=item.sha256,
              photo=item.photo,
              faces=faces,
              started=started,
              embeddings={},
              target_names=[],
            )
          )
        else:
          self._finish(self._pass_through(source, item))
      yield from self._wave_problems(jobs)

  def _load(self, source: scan.SourceFile) -> _Loaded | Outcome:
    """Reads a photo, unless there is nothing left to do for it."""
    if source.status is not None:
      return self._new(source, source.status, source.reason)
    sha256 = None
    try:
      data = recognition.read(source)
      sha256 = hashlib.sha256(data).hexdigest()
      why = self._record.why_unfinished(
        source.name, source_sha256=sha256, config=self._config
      )
      if why is None:
        return Outcome(row=self._record.rows[source.name], fresh=False)
      if why != "new":
        self._redone[source.name] = why
      return _Loaded(
        photo=codec.decode(data, max_pixels=self._options.max_pixels),
        sha256=sha256,
      )
    except types.PhotoError as error:
      known = source.path.suffix.lower() in _PHOTO_SUFFIXES
      status = "failed" if known or sha256 is None else "skipped"
      return self._new(source, status, str(error), source_sha256=sha256)

  def _new(
    self,
    source: scan.SourceFile,
    status: str,
    reason: str | None,
    **fields: Any,
  ) -> Outcome:
    """The outcome of a file that needs no solver."""
    row = manifest.Row(
      path=source.name,
      status=status,
      reason=reason,
      config=self._config,
      **fields,
    )
    return Outcome(row=row, fresh=True, redone=self._redone.get(source.name))

  def _finish(self, outcome: Outcome) -> None:
    """Records an outcome and reports it."""
    if outcome.fresh:
      self._record.append(outcome.row)
    self._report(outcome)

  def _pass_through(self, source: scan.SourceFile, item: _Loaded) -> Outcome:
    """Copies a photo without a face, or leaves it out."""
    options, known = self._options, {"source_sha256": item.sha256}
    if options.on_no_face == "skip":
      reason = "left out, --on_no_face=skip"
      return self._new(source, "no_face", reason, **known)
    try:
      data = codec.encode(item.photo, (), strip_location=options.strip_location)
      files.write_atomically(options.output / source.relative, data)
    except types.PhotoError as error:
      return self._new(source, "failed", str(error), **known)
    known["output_sha256"] = hashlib.sha256(data).hexdigest()
    return self._new(source, "no_face", None, **known)

  def _wave_problems(
    self, jobs: list[_Job]
  ) -> Iterator[tuple[tuple[_Job, int], solver.Problem]]:
    """Targets and problems of a wave's faces."""
    if not jobs:
      return
    cloaker = self._cloaker
    with self._stage("embedding"):
      raw = cloaker.recognition.embed([f for job in jobs for f in job.faces])
      own = cloaker.normalised(raw)
    known = len(self._people.targets)
    _, chosen = self._people.assign(own, cloaker.candidates)
    if len(self._people.targets) > known:
      _save_people(self._people_file, self._people)
    first = 0
    for job in jobs:
      rows = slice(first, first + len(job.faces))
      first = rows.stop
      job.embeddings = {name: e[rows] for name, e in raw.items()}
      job.target_names = [cloaker.target_names[t] for t in chosen[rows]]
      for index, face in enumerate(job.faces):
        digest = hashlib.sha256(
          f"{self._options.solver.seed} {job.sha256} {index}".encode()
        ).digest()
        problem = cloaker.problem(
          face,
          own={name: e[rows][index] for name, e in own.items()},
          target=chosen[rows][index],
          grey=job.photo.grey,
          seed=int.from_bytes(digest[:4], "little"),
          jpeg_tables=job.photo.jpeg_tables,
        )
        yield (job, index), problem

  def _finish_job(
    self, job: _Job, saved: "concurrent.futures.Future[tuple[bytes, Photo]]"
  ) -> None:
    """Measures a saved photo's faces and records its outcome."""
    with self._stage("measuring"):
      self._finish(self._outcome(job, saved))

  def _outcome(
    self, job: _Job, saved: "concurrent.futures.Future[tuple[bytes, Photo]]"
  ) -> Outcome:
    """The outcome of a photo that was, or could not be, saved."""
    seconds = time.monotonic() - job.started
    try:
      data, photo = saved.result()
    except types.PhotoError as error:
      return self._new(
        job.source,
        "failed",
        str(error),
        source_sha256=job.sha256,
        seconds=seconds,
      )
    return self._new(
      job.source,
      "cloaked",
      None,
      source_sha256=job.sha256,
      output_sha256=hashlib.sha256(data).hexdigest(),
      seconds=seconds,
      faces=self._measure(job, photo),
    )

  def _save(self, job: _Job) -> tuple[bytes, Photo]:
    """Saves a cloaked photo and reads it back from the disk."""
    path = self._options.output / job.source.relative
    data = self._encode_within_budget(job)
    files.write_atomically(path, data)
    written = files.read_source(path, max_bytes=recognition.MAX_FILE_BYTES)
    return written, codec.decode(written, max_pixels=self._options.max_pixels)

  def _encode_within_budget(self, job: _Job) -> bytes:
    """Encodes a photo so that no face exceeds the budget once decoded.

    Resampling and the file's own quantisation swallow some of a change or add
    to it, so the changes are scaled, each by its own factor; to nothing where
    the format itself (lossy WebP, HEIC) uses up a very small budget.
    """
    rho = self._options.solver.rho
    solved = np.array([job.solutions[i].dssim for i in range(len(job.faces))])
    # Use all of the budget where the solver came close to it.
    wanted = np.where(solved > 0.8 * rho, _AIM * rho, solved)
    scales = np.ones(len(job.faces))
    best, most = None, -1.0
    for tried in range(1, 4 * _MAX_TRIES):
      data = self._encode(job, scales)
      photo = codec.decode(data, max_pixels=self._options.max_pixels)
      dssim = self._dssim(job, photo)
      over = dssim > rho
      if not over.any() and dssim.sum() > most:
        best, most = data, dssim.sum()
      settled = (dssim >= _BUDGET_BAND * wanted).all()
      if best is not None and (tried >= _MAX_TRIES or settled):
        return best
      # Whoever goes over the budget aims lower, in the end at nothing.
      wanted = np.where(
        over, (_AIM if tried < _MAX_TRIES else 0.5) * wanted, wanted
      )
      wanted = np.where(wanted > 0.05 * rho, wanted, 0)
      ratio = np.sqrt(wanted / np.maximum(dssim, 1e-6))
      scales = np.clip(scales * np.clip(ratio, 0, 1.5), 0, 2)
    # The format alone costs more than the budget allows: no change at all.
    return self._encode(job, np.zeros(len(job.faces)))

  def _encode(self, job: _Job, scales: np.ndarray) -> bytes:
    linf = np.float32(self._options.solver.linf)
    patches = []
    for i, face in enumerate(job.faces):
      side = face.alignment.side
      change = np.float32(scales[i]) * job.solutions[i].change[:side, :side]
      left, top, change = geometry.paste(
        np.clip(change, -linf, linf),
        face.alignment,
        job.photo.pixels.shape[:2],
      )
      if change.size:
        patches.append(types.Patch(left=left, top=top, change=change))
    return codec.encode(
      job.photo, patches, strip_location=self._options.strip_location
    )

  def _dssim(self, job: _Job, photo: Photo) -> np.ndarray:
    crops = self._cloaker.recognition.finder.crops(photo.pixels, job.faces)
    return np.array(
      [
        float(ssim.measure(face.crop, crop, face.weights))
        for face, crop in zip(job.faces, crops, strict=True)
      ]
    )

  def _measure(self, job: _Job, photo: Photo) -> tuple[dict, ...]:
    """A saved photo's faces for its row, measured on what was read back."""
    crops = self._cloaker.recognition.finder.crops(photo.pixels, job.faces)
    dssim = self._dssim(job, photo)
    raw = self._cloaker.recognition.embedder.embed(
      crops, recognition.sides(job.faces)
    )
    before = self._cloaker.normalised(job.embeddings)
    after = self._cloaker.normalised(raw)
    difference = np.abs(
      photo.pixels.astype(np.int16) - job.photo.pixels.astype(np.int16)
    )
    faces = []
    for i, face in enumerate(job.faces):
      left, top, right, bottom = face.box
      region = difference[top:bottom, left:right]
      faces.append(
        {
          "box": list(face.box),
          "target": job.target_names[i],
          "steps": job.solutions[i].steps,
          "dssim": float(dssim[i]),
          "linf": int(region.max()) if region.size else 0,
          "extractors": {
            name: {
              "shift": float(
                np.linalg.norm(raw[name][i] - job.embeddings[name][i])
              ),
              "cosine": float(before[name][i] @ after[name][i]),
            }
            for name in raw
          },
        }
      )
    return tuple(faces)


def _waves(
  sources: Iterator[scan.SourceFile],
  load: Callable[[scan.SourceFile], Item],
  options: config.CloakOptions,
  pool: concurrent.futures.Executor,
) -> Iterator[list[tuple[scan.SourceFile, Item]]]:
  """Loads sources ahead in threads, and groups them in their order."""
  pending: collections.deque = collections.deque()
  wave: list[tuple[scan.SourceFile, Item]] = []
  size = 0
  while True:
    for source in itertools.islice(sources, options.threads - len(pending)):
      pending.append((source, pool.submit(load, source)))
    if not pending:
      break
    source, future = pending.popleft()
    item = future.result()
    wave.append((source, item))
    photo = getattr(item, "photo", item)
    size += photo.pixels.nbytes if isinstance(photo, Photo) else 0
    if len(wave) >= WAVE_PHOTOS or size >= WAVE_BYTES:
      yield wave
      wave, size = [], 0
  if wave:
    yield wave


def _people_file(options: config.CloakOptions) -> Path:
  """Where a run remembers the people it has met.

  Not in the output: embeddings of clean faces must never lie beside cloaked
  photos that may be published.
  """
  where = f"{options.output.resolve()} {options.fingerprint()}"
  name = hashlib.sha256(where.encode(errors="surrogateescape")).hexdigest()
  return cache.directory() / "runs" / f"{name[:16]}.safetensors"


def _load_people(file: Path, extractor: str) -> targets.People:
  people = targets.People(extractor=extractor, threshold=_SAME_PERSON)
  with contextlib.suppress(OSError, safetensors.SafetensorError, KeyError):
    stored = safetensors.numpy.load_file(file)
    people.references = list(stored["references"])
    people.targets = [int(t) for t in stored["targets"]]
  return people


def _save_people(file: Path, people: targets.People) -> None:
  """Remembers people where the cache can be written."""
  data = safetensors.numpy.save(
    {
      "references": np.stack(people.references),
      "targets": np.array(people.targets, np.int64),
    }
  )
  with contextlib.suppress(types.PhotoError):
    files.write_atomically(file, data)
