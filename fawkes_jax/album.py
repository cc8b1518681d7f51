"""Albums on their way through the devices, to the outcomes of their files.

First all photos of an album are looked through, a few at a time, and of each
face its crop is kept: the photos of a person are cloaked against what they have
in common. Then the faces go to the solver, which has slots for some; a photo is
read again and saved as soon as its last face is solved. The solver has a thread
of its own: while it works, the next album is looked through. Memory is bounded
by the faces of an album and of the solver's slots. An album is cloaked the same
way whatever other albums there are, as long as the slots are as many.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import datetime
import hashlib
import io
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fawkes_jax import cloaker as cloaker_lib
from fawkes_jax import config, outcomes, recognition, saving, types
from fawkes_jax.archive import codec, manifest, others, results, storage
from fawkes_jax.archive.photo import Photo
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.cloaking import solver, targets
from fawkes_jax.engine import background

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

_FOREIGN = (
  "another file of its name is in the output, and stays: move it away, or"
  " choose another output"
)

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Loaded:
  """A decoded photo and its file's digest."""

  photo: Photo
  sha256: str


def is_photo_name(name: str | os.PathLike) -> bool:
  """Whether a file of the name is a photo, or a damaged one."""
  return os.path.splitext(name)[1].lower() in _PHOTO_SUFFIXES


class Run:
  """Albums on their way to the outcomes of their files."""

  def __init__(
    self,
    options: config.CloakOptions,
    cloaker: cloaker_lib.Cloaker,
    store: storage.Store,
    known: Callable[[str], manifest.Row | None],
    pool: concurrent.futures.Executor,
    report: Callable[[outcomes.Outcome], None],
    watcher: outcomes.Watcher,
    foreign: Callable[[str], bool] = lambda name: False,
  ):
    """Begins a run.

    Args:
      options: of the run.
      cloaker: of the same options.
      store: the output folder.
      known: gives the row that a file had, by its name.
      pool: of threads.
      report: called with each outcome.
      watcher: is told what happens.
      foreign: whether a file of the output is not of a run, by its name.
    """
    self.seconds = dict.fromkeys(
      ("loading", "finding", "embedding", "solving", "measuring"), 0.0
    )
    self._options = options
    self._cloaker = cloaker
    self._store = store
    self._known = known
    self._foreign = foreign
    self._pool = pool
    self._results = results.open_results(store, options.output_format)
    self._saver = saving.Saver(options, cloaker, self._results)
    self._report = report
    self._config = options.fingerprint()
    self._watcher = watcher
    self._redone: dict[str, str] = {}
    self._saving: collections.deque[
      tuple[saving.Job, concurrent.futures.Future[saving.Saved]]
    ] = collections.deque()

  @contextlib.contextmanager
  def _stage(self, name: str) -> Iterator[None]:
    """Adds up the time that is spent in a stage."""
    started = time.monotonic()
    try:
      yield
    finally:
      self._spent(name, time.monotonic() - started)

  def _spent(self, name: str, seconds: float) -> None:
    self.seconds[name] += seconds
    self._watcher.spent(name, seconds)

  def run(self, albums: Iterable[Sequence[SourceFile]]) -> None:
    """Brings every file to its outcome."""
    try:
      self._run(albums)
    finally:
      self._results.flush()

  def _finish(self, outcome: outcomes.Outcome) -> None:
    """Tells of an outcome, as soon as the result lasts."""
    self._results.after(outcome.row.place, lambda: self._report(outcome))

  def _run(self, albums: Iterable[Sequence[SourceFile]]) -> None:
    """Finds, solves and saves at the same time."""
    with background.Background(
      self._cloaker.executor, self._watcher.warned, self._watcher.prepares
    ) as self._solver:
      for album in albums:
        jobs, finished = self._survey(album)
        if jobs:
          for key, problem in self._problems(jobs, finished):
            while not self._solver.offer(key, problem):
              self._collect(wait=True)
      while self._collect(wait=True):
        pass
    while self._saving:
      self._finish_job(*self._saving.popleft())

  def _collect(self, *, wait: bool = False) -> bool:
    """Saves what has been solved, and tells what has been saved.

    Args:
      wait: for a face that is solved, if any is on its way.

    Returns:
      Whether a face was solved.
    """
    any_solved = False
    for (job, index), solution in self._solver.solved(wait=wait):
      any_solved = True
      job.solutions[index] = solution
      if len(job.solutions) == len(job.faces):
        self._saving.append((job, self._pool.submit(self._saver.save, job)))
    # While the thread waits, it learns only afterwards that it was idle.
    more = self._solver.seconds - self.seconds["solving"]
    self._spent("solving", max(0.0, more))
    while self._saving and (
      self._saving[0][1].done() or len(self._saving) > self._options.threads
    ):
      self._finish_job(*self._saving.popleft())
    return any_solved

  def _survey(
    self, album: Sequence[SourceFile]
  ) -> tuple[list[saving.Job], list[SourceFile]]:
    """Looks an album through, and settles what needs no solver.

    Returns:
      The photos with faces that are to be cloaked, and those that an earlier
      run has cloaked.
    """
    jobs, finished = [], []
    for source, item, job in self._seen(album, self._load):
      self._watcher.looked()
      self._collect()
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
  ) -> Iterator[tuple[SourceFile, Any, saving.Job | None]]:
    """Finds and embeds the faces of photos.

    Args:
      sources: their files.
      load: gives a `_Loaded`, or something else where there is nothing to see.

    Yields:
      Each source, what `load` gave, and a job where there are faces.
    """
    known = self._cloaker.recognition
    ahead = waves(iter(sources), load, self._options, self._pool)
    while True:
      with self._stage("loading"):
        wave = next(ahead, None)
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
      jobs: dict[int, saving.Job] = {}
      first = 0
      for i, faces in zip(seen, found, strict=True):
        rows = slice(first, first + len(faces))
        first = rows.stop
        if faces:
          source, item = wave[i]
          jobs[i] = saving.Job(
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

  def _problems(
    self, jobs: list[saving.Job], finished: list[SourceFile]
  ) -> Iterator[tuple[tuple[saving.Job, int], solver.Problem]]:
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

  def _load(self, source: SourceFile) -> _Loaded | outcomes.Outcome:
    """Reads a photo, unless there is nothing left to do for it."""
    if source.status is not None:
      return self._new(source, source.status, source.reason)
    if source.relative.partition("/")[0] in manifest.RESERVED:
      reason = "its name is that of the manifest"
      return self._new(source, "skipped", reason)
    if source.address and storage.within(source.address, self._options.output):
      return self._new(source, "failed", "it lies in the output")
    sha256 = None
    try:
      if (large := self._large(source)) is not None:
        return large
      data = recognition.read(source)
      sha256 = hashlib.sha256(data).hexdigest()
      if (settled := self._settled(source, sha256)) is not None:
        return settled
      return _Loaded(
        photo=codec.decode(data, max_pixels=self._options.max_pixels),
        sha256=sha256,
      )
    except types.PhotoError as error:
      reason = str(error)
      known = source.suffix in _PHOTO_SUFFIXES
      if known or sha256 is None:
        return self._new(source, "failed", reason, source_sha256=sha256)
      return self._other(source, reason, sha256, io.BytesIO(data))

  def _large(self, source: SourceFile) -> outcomes.Outcome | None:
    """The outcome of a large file that is no photo, such as a video."""
    path = source.path
    if path is None or source.suffix in _PHOTO_SUFFIXES:
      return None
    try:
      if not path.is_file() or path.stat().st_size < others.LARGE:
        return None
      with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
      return None  # Reading it says why.
    if others.image_kind(path) is not None:
      return None
    settled = self._settled(source, sha256)
    return settled or self._other(source, "not an image", sha256, path)

  def _other(
    self,
    source: SourceFile,
    reason: str,
    sha256: str,
    content: io.BytesIO | Path,
  ) -> outcomes.Outcome:
    """Copies a file that is no photo, or leaves it out."""
    known = {"source_sha256": sha256}
    kind = others.image_kind(content)
    if kind is not None:
      reason = f"a picture of a kind that cannot be cloaked ({kind})"
      return self._new(source, "failed", reason, **known)
    if not self._options.copies_others:
      return self._new(source, "skipped", reason, **known)
    try:
      if isinstance(content, Path):
        place = self._saver.copy(source, content)
      else:
        place = self._saver.write(source, content.getvalue())
    except types.PhotoError as error:
      return self._new(source, "failed", str(error), **known)
    return self._new(
      source, "copied", reason, place=place, output_sha256=sha256, **known
    )

  def _settled(
    self, source: SourceFile, sha256: str
  ) -> outcomes.Outcome | None:
    """The outcome of a file for which nothing is left to do, or can be."""
    row = self._known(source.name)
    why = manifest.why_unfinished(
      row, self._store, source_sha256=sha256, config=self._config
    )
    if why == "failed before" and not self._options.retry_failed:
      why = None
    if row is not None and row.status == "skipped" and why is None:
      why = "left out before" if self._options.copies_others else None
    in_the_way = row is not None and row.reason == _FOREIGN
    if in_the_way or why == "new":
      if self._options.output_format == "tree" and self._foreign(
        source.relative
      ):
        return self._new(source, "failed", _FOREIGN, source_sha256=sha256)
      why = "failed before" if in_the_way else why
    if why is None:
      assert row is not None
      return outcomes.Outcome(row=row, fresh=False)
    if why != "new":
      self._redone[source.name] = why
    return None

  def _new(
    self,
    source: SourceFile,
    status: str,
    reason: str | None,
    **fields: Any,
  ) -> outcomes.Outcome:
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
    return outcomes.Outcome(
      row=row, fresh=True, redone=self._redone.get(source.name)
    )

  def _pass_through(
    self, source: SourceFile, item: _Loaded
  ) -> outcomes.Outcome:
    """Copies a photo without a face, or leaves it out."""
    options, known = self._options, {"source_sha256": item.sha256}
    if options.on_no_face == "skip":
      reason = "left out, --on_no_face=skip"
      return self._new(source, "no_face", reason, **known)
    try:
      data = codec.encode(item.photo, (), strip_location=options.strip_location)
      place = self._saver.write(source, data)
    except types.PhotoError as error:
      return self._new(source, "failed", str(error), **known)
    known["output_sha256"] = hashlib.sha256(data).hexdigest()
    return self._new(source, "no_face", None, place=place, **known)

  def _finish_job(
    self, job: saving.Job, future: "concurrent.futures.Future[saving.Saved]"
  ) -> None:
    """Measures a saved photo's faces and records its outcome."""
    with self._stage("measuring"):
      self._finish(self._outcome(job, future))

  def _outcome(
    self, job: saving.Job, future: "concurrent.futures.Future[saving.Saved]"
  ) -> outcomes.Outcome:
    """The outcome of a photo that was, or could not be, saved."""
    known: dict[str, Any] = {
      "source_sha256": job.sha256,
      "seconds": time.monotonic() - job.started,
    }
    try:
      saved = future.result()
    except types.PhotoError as error:
      return self._new(job.source, "failed", str(error), **known)
    return self._new(
      job.source,
      "cloaked",
      None,
      output_sha256=saved.sha256,
      place=saved.place,
      faces=self._saver.measure(job, saved),
      **known,
    )


def waves(
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
