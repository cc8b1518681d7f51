"""Cloaks an archive: the only place where files and devices meet.

An archive is taken up album by album, so many files in the order of their
names. First all photos of an album are looked through, a few at a time, and of
each face its crop is kept: the photos of a person are cloaked against what they
have in common. Then the faces go to the solver, which has slots for some; a
photo is read again and saved as soon as its last face is solved. Memory is
bounded by the faces of an album, not by the archive. An album is cloaked the
same way whatever other albums there are, so that several processes can share an
archive: the albums are dealt out to them like cards, and each lists the whole
archive for itself.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import datetime
import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from fawkes_jax import cloaker as cloaker_lib
from fawkes_jax import config, recognition, types
from fawkes_jax.archive import (
  codec,
  files,
  manifest,
  results,
  scan,
  storage,
  team,
)
from fawkes_jax.archive.photo import Photo
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.cloaking import solver, targets
from fawkes_jax.engine import executor, finder
from fawkes_jax.imaging import geometry, ssim

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

# The least cosine between a face and its person, of centred embeddings and as
# the mean over the extractors; docs/cloaking.md has the measurement.
_SAME_PERSON = 0.45

# Saving costs or adds a little: the change is scaled until the saved file is
# between this fraction of what it aims at and the budget, in so many tries.
_BUDGET_BAND = 0.95
_MAX_TRIES = 5
_AIM = 0.985

# Names that are noted at once.
_MANY = 4096

Item = TypeVar("Item")


@dataclasses.dataclass(kw_only=True, eq=False)
class _Job:
  """A photo with faces on its way through the solver.

  Attributes:
    source: its file.
    sha256: of the file.
    grey: whether it is greyscale.
    jpeg_tables: of the file, see `Photo`.
    faces: found in it.
    raw: by extractor, their embeddings.
    own: the same, normalised.
    target_names: of each face's target.
    solutions: by the index of the face.
    started: when the first face went to the solver.
  """

  source: SourceFile
  sha256: str
  grey: bool
  jpeg_tables: np.ndarray | None
  faces: list[finder.AlignedFace]
  raw: dict[str, np.ndarray]
  own: dict[str, np.ndarray]
  target_names: list[str] = dataclasses.field(default_factory=list)
  solutions: dict[int, executor.Solution] = dataclasses.field(
    default_factory=dict
  )
  started: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Saved:
  """A cloaked photo, as it was read back from the disk.

  Attributes:
    photo: decoded.
    sha256: of the file.
    place: of the file in a tar file, or None.
    linf: the largest change in the box of each face.
  """

  photo: Photo
  sha256: str
  place: results.Place | None
  linf: list[int]


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

  def count(self, counts: collections.Counter[str]) -> None:
    """Adds it to "files", "faces", its status, "fresh" and "fresh faces"."""
    faces = len(self.row.faces)
    counts["files"] += 1
    counts["faces"] += faces
    counts[self.row.status] += 1
    counts["fresh"] += self.fresh
    counts["fresh faces"] += faces if self.fresh else 0


class Watcher:
  """Is told what a run does; the methods of this one do nothing."""

  def listed(self, files: int) -> None:
    """The archive was listed to its end; called from a thread.

    Args:
      files: of this process's share; on process 0 those of all.
    """

  def looked(self) -> None:
    """One file more has been looked through for people."""

  def settled(self, outcome: Outcome) -> None:
    """The outcome of a file is known, and recorded; in no particular order."""

  def spent(self, stage: str, seconds: float) -> None:
    """So much time more was spent on a stage, see `cloak_archive`."""

  def others(self, states: list[team.State]) -> None:
    """On process 0 of several: how far each is.

    Called from a thread now and then, and when all are done.
    """


class Tally(Watcher):
  """Counts what comes of the files.

  Attributes:
    counts: see `Outcome.count`.
  """

  def __init__(self):
    self.counts: collections.Counter[str] = collections.Counter()

  def settled(self, outcome: Outcome) -> None:
    """See `Watcher`."""
    outcome.count(self.counts)


def cloak_archive(
  options: config.CloakOptions,
  watcher: Watcher | None = None,
  *,
  cloaker: cloaker_lib.Cloaker | None = None,
) -> dict[str, float]:
  """Cloaks all faces of an archive.

  Args:
    options: of the run.
    watcher: is told what happens.
    cloaker: of the same options, but for the folders, from an earlier run,
      which need not be loaded and compiled again.

  Returns:
    How many seconds the run spent on each stage, without what its threads did
    at the same time: "loading" is waiting for photos, "finding", "embedding",
    "solving", and "measuring" includes waiting for what is saved. Empty where
    the archive is.

  Raises:
    FawkesError: the run cannot begin or go on: the folders, the weights, the
      manifest, or another process. A single photo never raises.
  """
  sources = scan.scan(options.input)
  scan.check_output(options.input, options.output)
  begin = list(itertools.islice(sources, 1))
  if not begin:
    return {}  # Nothing is made, nor loaded.
  sources = itertools.chain(begin, sources)
  first, several = options.process_id == 0, options.num_processes > 1
  watcher = watcher or Watcher()
  counts: collections.Counter[str] = collections.Counter()
  with (
    manifest.Manifest(
      options.output,
      process=options.process_id,
      processes=options.num_processes,
    ) as record,
    concurrent.futures.ThreadPoolExecutor(options.threads) as pool,
    Listing(options, record, watcher) as listing,
  ):
    run = _Run(
      options,
      cloaker or cloaker_lib.Cloaker(options),
      record.store,
      record.rows.get,
      pool,
      recording(record, counts, watcher),
      watcher,
    )
    with team.Team(
      record.store,
      process=options.process_id,
      processes=options.num_processes,
      config=options.fingerprint(),
      wait_seconds=60 * options.wait_minutes,
      counts=counts.copy,
      watch=watcher.others,
    ) as processes:
      processes.meet()
      started = time.monotonic()
      run.run(_own(sources, options))
      spent = time.monotonic() - started
      record.sync()
      processes.done()
      if first:
        if several:
          listing.wait()
          processes.wait(lambda: _missing(record))
        record.finish()
        if options.output_format == "tar":
          results.tidy(record.store, record.rows)
        processes.dissolve()
      elif options.distributed:
        # All processes of such a run must end together.
        processes.wait_for_first()
  return {**run.seconds, "solving": spent - sum(run.seconds.values())}


def recording(
  record: manifest.Manifest,
  counts: collections.Counter[str],
  watcher: Watcher,
) -> Callable[[Outcome], None]:
  """What to do with an outcome: record, count and tell it."""

  def settle(outcome: Outcome) -> None:
    if outcome.fresh:
      record.append(outcome.row)
    outcome.count(counts)
    watcher.settled(outcome)

  return settle


def cloak_albums(
  options: config.CloakOptions,
  cloaker: cloaker_lib.Cloaker,
  albums: Iterable[Sequence[SourceFile]],
  known: Mapping[str, manifest.Row],
  report: Callable[[Outcome], None],
) -> None:
  """Cloaks albums and leaves it to the caller to record what comes of them.

  Args:
    options: of the run.
    cloaker: of the same options.
    albums: the files of each.
    known: by name, the rows of an earlier run.
    report: called with the outcome of each file.

  Raises:
    FawkesError: the output cannot be used.
  """
  store = storage.open_store(options.output)
  with concurrent.futures.ThreadPoolExecutor(options.threads) as pool:
    _Run(options, cloaker, store, known.get, pool, report, Watcher()).run(
      albums
    )


def albums_of(
  sources: Iterator[SourceFile], options: config.CloakOptions
) -> Iterator[list[SourceFile]]:
  """So many files each, in the order of the archive."""
  while album := list(itertools.islice(sources, options.album)):
    yield album


def _own(
  sources: Iterator[SourceFile], options: config.CloakOptions
) -> Iterator[list[SourceFile]]:
  """The albums of this process."""
  for number, album in enumerate(albums_of(sources, options)):
    if _share(options, number * options.album) == options.process_id:
      yield album


def _missing(record: manifest.Manifest) -> dict[int, int]:
  """By process, how many files have no outcome."""
  record.refresh()
  return record.rows.missing()


def _share(options: config.CloakOptions, index: int) -> int:
  """The process that a file belongs to, by its place in the archive."""
  return index // options.album % options.num_processes


class Listing(threading.Thread):
  """Lists an archive once more, ahead of the run, to know how large it is.

  Process 0 of several also notes what must have an outcome in the end.
  """

  def __init__(
    self,
    options: config.CloakOptions,
    record: manifest.Manifest,
    watcher: Watcher,
  ):
    super().__init__(daemon=True)
    self._options = options
    self._record = record
    self._watcher = watcher
    self._ended = False
    self._error: types.FawkesError | None = None

  def __enter__(self) -> "Listing":
    self.start()
    return self

  def __exit__(self, *error: object) -> None:
    self._ended = True
    self.join()

  def wait(self) -> None:
    """Waits until everything is listed. Raises FawkesError if it cannot be."""
    self.join()
    if self._error is not None:
      raise self._error

  def run(self) -> None:
    """What the thread does."""
    options, mine = self._options, self._options.process_id
    noting = mine == 0 and options.num_processes > 1
    total = 0
    try:
      sources = enumerate(scan.scan(options.input))
      # The run may end while a slow listing goes on.
      goes_on = itertools.takewhile(lambda _: not self._ended, sources)
      while batch := list(itertools.islice(goes_on, _MANY)):
        owners = [_share(options, index) for index, _ in batch]
        if noting:
          names = [source.name for _, source in batch]
          self._record.rows.expect(zip(names, owners, strict=True))
        total += len(batch) if mine == 0 else owners.count(mine)
      if self._ended:
        return
      self._watcher.listed(total)
    except types.FawkesError as error:
      self._error = error


def count_faces(
  options: config.CloakOptions,
  report: Callable[[SourceFile, int | str], None],
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

  def load(source: SourceFile) -> Photo | str:
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
  """Albums on their way to the outcomes of their files."""

  def __init__(
    self,
    options: config.CloakOptions,
    cloaker: cloaker_lib.Cloaker,
    store: storage.Store,
    known: Callable[[str], manifest.Row | None],
    pool: concurrent.futures.Executor,
    report: Callable[[Outcome], None],
    watcher: Watcher,
  ):
    self.seconds = dict.fromkeys(
      ("loading", "finding", "embedding", "measuring"), 0.0
    )
    self._options = options
    self._cloaker = cloaker
    self._store = store
    self._known = known
    self._pool = pool
    self._results = results.open_results(store, options.output_format)
    self._report = report
    self._config = options.fingerprint()
    self._watcher = watcher
    self._redone: dict[str, str] = {}

  @contextlib.contextmanager
  def _stage(self, name: str) -> Iterator[None]:
    """Adds up the time that is spent in a stage."""
    started = time.monotonic()
    try:
      yield
    finally:
      spent = time.monotonic() - started
      self.seconds[name] += spent
      self._watcher.spent(name, spent)

  def run(self, albums: Iterable[Sequence[SourceFile]]) -> None:
    """Brings every file to its outcome."""
    try:
      self._run(albums)
    finally:
      self._results.flush()

  def _finish(self, outcome: Outcome) -> None:
    """Tells of an outcome, as soon as the result lasts."""
    self._results.after(outcome.row.place, lambda: self._report(outcome))

  def _run(self, albums: Iterable[Sequence[SourceFile]]) -> None:
    saving: collections.deque = collections.deque()
    for (job, index), solution in self._cloaker.executor.solve(
      self._problems(albums)
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
    self, albums: Iterable[Sequence[SourceFile]]
  ) -> Iterator[tuple[tuple[_Job, int], solver.Problem]]:
    """The faces of albums; photos without any are settled on the way."""
    for album in albums:
      jobs, finished = self._survey(album)
      if jobs:
        yield from self._album_problems(jobs, finished)

  def _survey(
    self, album: Sequence[SourceFile]
  ) -> tuple[list[_Job], list[SourceFile]]:
    """Looks an album through, and settles what needs no solver.

    Returns:
      The photos with faces that are to be cloaked, and those that an earlier
      run has cloaked.
    """
    jobs, finished = [], []
    for source, item, job in self._seen(album, self._load):
      self._watcher.looked()
      if job is not None:
        jobs.append(job)
      elif isinstance(item, _Loaded):
        self._finish(self._pass_through(source, item))
      else:
        if item.row.faces:
          finished.append(source)
        self._finish(item)
    return jobs, finished

  def _seen(
    self,
    sources: Sequence[SourceFile],
    load: Callable[[SourceFile], Any],
  ) -> Iterator[tuple[SourceFile, Any, _Job | None]]:
    """Finds and embeds the faces of photos.

    Args:
      sources: their files.
      load: gives a `_Loaded`, or something else where there is nothing to see.

    Yields:
      Each source, what `load` gave, and a job where there are faces.
    """
    known = self._cloaker.recognition
    waves = _waves(iter(sources), load, self._options, self._pool)
    while True:
      with self._stage("loading"):
        wave = next(waves, None)
      if wave is None:
        return
      seen = [
        i for i, (_, item) in enumerate(wave) if isinstance(item, _Loaded)
      ]
      with self._stage("finding"):
        found = known.finder.find([wave[i][1].photo.pixels for i in seen])
      with self._stage("embedding"):
        everything = [face for faces in found for face in faces]
        raw = known.embed(everything) if everything else {}
        own = self._cloaker.normalised(raw)
      jobs: dict[int, _Job] = {}
      first = 0
      for i, faces in zip(seen, found, strict=True):
        rows = slice(first, first + len(faces))
        first = rows.stop
        if faces:
          source, item = wave[i]
          jobs[i] = _Job(
            source=source,
            sha256=item.sha256,
            grey=item.photo.grey,
            jpeg_tables=item.photo.jpeg_tables,
            faces=faces,
            raw={name: e[rows] for name, e in raw.items()},
            own={name: e[rows] for name, e in own.items()},
          )
      for i, (source, item) in enumerate(wave):
        yield source, item, jobs.get(i)

  def _album_problems(
    self, jobs: list[_Job], finished: list[SourceFile]
  ) -> Iterator[tuple[tuple[_Job, int], solver.Problem]]:
    """Targets and problems of an album's faces."""
    cloaker = self._cloaker
    # A person's mean is that of all photos, also after an interruption.
    again = [job for _, _, job in self._seen(finished, self._load_again) if job]
    everybody = sorted([*jobs, *again], key=lambda job: job.source.relative)
    own = {
      name: np.concatenate([job.own[name] for job in everybody])
      for name in cloaker.candidates
    }
    counts = [len(job.faces) for job in everybody]
    people = targets.people(
      own, np.repeat(np.arange(len(counts)), counts), threshold=_SAME_PERSON
    )
    means = targets.identities(own, people)
    chosen = targets.choose(own, people, cloaker.candidates)
    wanted = set(jobs)
    for job, end in zip(everybody, itertools.accumulate(counts), strict=True):
      if job not in wanted:
        continue
      at = end - len(job.faces)
      job.target_names = [cloaker.target_names[t] for t in chosen[at:end]]
      job.started = time.monotonic()
      for index, face in enumerate(job.faces):
        digest = hashlib.sha256(
          f"{self._options.solver.seed} {job.sha256} {index}".encode()
        ).digest()
        problem = cloaker.problem(
          face,
          own={name: e[at + index] for name, e in means.items()},
          target=chosen[at + index],
          grey=job.grey,
          seed=int.from_bytes(digest[:4], "little"),
          jpeg_tables=job.jpeg_tables,
        )
        yield (job, index), problem

  def _load_again(self, source: SourceFile) -> _Loaded | None:
    """Reads a photo that is finished, for the sake of others."""
    with contextlib.suppress(types.PhotoError):
      return _Loaded(
        photo=recognition.load_photo(source, self._options), sha256=""
      )
    return None

  def _load(self, source: SourceFile) -> _Loaded | Outcome:
    """Reads a photo, unless there is nothing left to do for it."""
    if source.status is not None:
      return self._new(source, source.status, source.reason)
    if source.relative == manifest.NAME:
      reason = "its name is that of the manifest"
      return self._new(source, "failed", reason)
    if source.address and storage.within(source.address, self._options.output):
      return self._new(source, "failed", "it lies in the output")
    sha256 = None
    try:
      data = recognition.read(source)
      sha256 = hashlib.sha256(data).hexdigest()
      row = self._known(source.name)
      why = manifest.why_unfinished(
        row, self._store, source_sha256=sha256, config=self._config
      )
      if why == "failed before" and not self._options.retry_failed:
        why = None
      if why is None:
        assert row is not None
        return Outcome(row=row, fresh=False)
      if why != "new":
        self._redone[source.name] = why
      return _Loaded(
        photo=codec.decode(data, max_pixels=self._options.max_pixels),
        sha256=sha256,
      )
    except types.PhotoError as error:
      known = source.suffix in _PHOTO_SUFFIXES
      status = "failed" if known or sha256 is None else "skipped"
      return self._new(source, status, str(error), source_sha256=sha256)

  def _new(
    self,
    source: SourceFile,
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
      finished=datetime.datetime.now(datetime.UTC).isoformat(
        timespec="seconds"
      ),
      **fields,
    )
    return Outcome(row=row, fresh=True, redone=self._redone.get(source.name))

  def _write(self, source: SourceFile, data: bytes) -> results.Place | None:
    """Writes a result; raises PhotoError."""
    try:
      return self._results.write(source.relative, data)
    except OSError as error:
      raise types.PhotoError(
        f"{source.name} cannot be written: {files.reason(error)}"
      ) from error

  def _pass_through(self, source: SourceFile, item: _Loaded) -> Outcome:
    """Copies a photo without a face, or leaves it out."""
    options, known = self._options, {"source_sha256": item.sha256}
    if options.on_no_face == "skip":
      reason = "left out, --on_no_face=skip"
      return self._new(source, "no_face", reason, **known)
    try:
      data = codec.encode(item.photo, (), strip_location=options.strip_location)
      place = self._write(source, data)
    except types.PhotoError as error:
      return self._new(source, "failed", str(error), **known)
    known["output_sha256"] = hashlib.sha256(data).hexdigest()
    return self._new(source, "no_face", None, place=place, **known)

  def _finish_job(
    self, job: _Job, saving: "concurrent.futures.Future[_Saved]"
  ) -> None:
    """Measures a saved photo's faces and records its outcome."""
    with self._stage("measuring"):
      self._finish(self._outcome(job, saving))

  def _outcome(
    self, job: _Job, saving: "concurrent.futures.Future[_Saved]"
  ) -> Outcome:
    """The outcome of a photo that was, or could not be, saved."""
    known: dict[str, Any] = {
      "source_sha256": job.sha256,
      "seconds": time.monotonic() - job.started,
    }
    try:
      saved = saving.result()
    except types.PhotoError as error:
      return self._new(job.source, "failed", str(error), **known)
    return self._new(
      job.source,
      "cloaked",
      None,
      output_sha256=saved.sha256,
      place=saved.place,
      faces=self._measure(job, saved),
      **known,
    )

  def _save(self, job: _Job) -> _Saved:
    """Saves a cloaked photo and reads it back from the disk."""
    options = self._options
    data = recognition.read(job.source)
    if hashlib.sha256(data).hexdigest() != job.sha256:
      raise types.PhotoError("changed while it was being cloaked")
    photo = codec.decode(data, max_pixels=options.max_pixels)
    data = self._encode_within_budget(job, photo)
    place = self._write(job.source, data)
    try:
      written = self._results.read(job.source.relative, place)
    except OSError as error:
      raise types.PhotoError(
        f"the result cannot be read: {files.reason(error)}"
      ) from error
    cloaked = codec.decode(written, max_pixels=options.max_pixels)
    return _Saved(
      photo=cloaked,
      sha256=hashlib.sha256(written).hexdigest(),
      place=place,
      linf=[
        _largest_change(photo.pixels, cloaked.pixels, face.box)
        for face in job.faces
      ],
    )

  def _encode_within_budget(self, job: _Job, photo: Photo) -> bytes:
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
      data = self._encode(job, photo, scales)
      cloaked = codec.decode(data, max_pixels=self._options.max_pixels)
      dssim = self._dssim(job, self._crops(job, cloaked))
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
    return self._encode(job, photo, np.zeros(len(job.faces)))

  def _encode(self, job: _Job, photo: Photo, scales: np.ndarray) -> bytes:
    linf = np.float32(self._options.solver.linf)
    patches = []
    for i, face in enumerate(job.faces):
      side = face.alignment.side
      change = np.float32(scales[i]) * job.solutions[i].change[:side, :side]
      left, top, change = geometry.paste(
        np.clip(change, -linf, linf),
        face.alignment,
        face.shape,
      )
      if change.size:
        patches.append(types.Patch(left=left, top=top, change=change))
    return codec.encode(
      photo,
      patches,
      largest_step=self._options.solver.jpeg_step,
      strip_location=self._options.strip_location,
    )

  def _crops(self, job: _Job, photo: Photo) -> np.ndarray:
    return self._cloaker.recognition.finder.crops(photo.pixels, job.faces)

  def _dssim(self, job: _Job, crops: np.ndarray) -> np.ndarray:
    return np.array(
      [
        float(ssim.measure(face.crop, crop, face.weights))
        for face, crop in zip(job.faces, crops, strict=True)
      ]
    )

  def _measure(self, job: _Job, saved: _Saved) -> tuple[dict, ...]:
    """A saved photo's faces for its row, measured on what was read back."""
    crops = self._crops(job, saved.photo)
    dssim = self._dssim(job, crops)
    raw = self._cloaker.recognition.embedder.embed(
      crops, recognition.sides(job.faces)
    )
    after = self._cloaker.normalised(raw)
    return tuple(
      {
        "box": list(face.box),
        "target": job.target_names[i],
        "steps": job.solutions[i].steps,
        "dssim": float(dssim[i]),
        "linf": saved.linf[i],
        "extractors": {
          name: {
            "shift": float(np.linalg.norm(raw[name][i] - job.raw[name][i])),
            "cosine": float(job.own[name][i] @ after[name][i]),
          }
          for name in raw
        },
      }
      for i, face in enumerate(job.faces)
    )


def _largest_change(
  before: np.ndarray, after: np.ndarray, box: tuple[int, int, int, int]
) -> int:
  left, top, right, bottom = box
  part = np.s_[top:bottom, left:right]
  difference = np.abs(after[part].astype(np.int16) - before[part])
  return int(difference.max(initial=0))


def _waves(
  sources: Iterator[SourceFile],
  load: Callable[[SourceFile], Item],
  options: config.CloakOptions,
  pool: concurrent.futures.Executor,
) -> Iterator[list[tuple[SourceFile, Item]]]:
  """Loads sources ahead in threads, and groups them in their order."""
  pending: collections.deque = collections.deque()
  wave: list[tuple[SourceFile, Item]] = []
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
