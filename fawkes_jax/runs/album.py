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
import errno
import hashlib
import io
import itertools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fawkes_jax import types
from fawkes_jax.archive import manifest, others, results, storage
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.cloaking import solver, targets
from fawkes_jax.engine import background
from fawkes_jax.faces import cloaker as cloaker_lib
from fawkes_jax.faces import finder, recognition
from fawkes_jax.options import CloakOptions
from fawkes_jax.photos import codec
from fawkes_jax.photos.photo import Photo
from fawkes_jax.runs import outcomes, saving

# A wave ends at this many photos or decoded bytes.
WAVE_PHOTOS = 16
WAVE_BYTES = 128 << 20

# Files of other kinds lie in photo folders without harm; a file with one of
# these names that is not an image is damaged.
_PHOTO_SUFFIXES = frozenset(
  f".{kind}"
  for kind in (
    *("3fr", "arw", "avif", "avifs", "bmp", "cr2", "cr3", "crw", "dcr", "dib"),
    *("dng", "erf", "gif", "heic", "heif", "hif", "ico", "iiq", "j2k", "jfif"),
    *("jp2", "jpe", "jpeg", "jpf", "jpg", "jpx", "jxl", "kdc", "mef", "mos"),
    *("mpo", "mrw", "nef", "nrw", "orf", "pbm", "pef", "pgm", "png", "pnm"),
    *("ppm", "psb", "psd", "raf", "raw", "rw2", "rwl", "sr2", "srf", "srw"),
    *("tga", "tif", "tiff", "webp", "x3f"),
  )
)

# What a run cannot go on without: a photo that meets it is not to blame.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT)
_NO_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory")

_log = logging.getLogger(__name__)

# The least cosine between a face and its person, of centred embeddings and as
# the mean over the extractors; docs/cloaking.md has the measurement.
_SAME_PERSON = 0.45

_FOREIGN = (
  "another file of its name is in the output, and stays: move it away, or"
  " choose another output"
)

Item = TypeVar("Item")
Result = TypeVar("Result")
_Looked = tuple[
  list[finder.AlignedFace], dict[str, np.ndarray], dict[str, np.ndarray]
]


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
    options: CloakOptions,
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
    # The files of the album that is looked through, and the new names of all
    # that were converted.
    self._names: frozenset[str] = frozenset()
    self._converted: set[str] = set()
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
    self._names = frozenset(source.relative for source in album)
    for source, item, job in self._seen(album, self._load):
      self._watcher.looked()
      self._collect()
      if job is not None:
        jobs.append(job)
      elif isinstance(item, types.PhotoError):
        self._finish(self._failed(source, item))
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
      Each source, what `load` gave, and a job where there are faces; instead
      of a photo that could not be looked at, a PhotoError.
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
        found = _each(
          lambda photos: known.finder.find([p.pixels for p in photos]),
          [wave[i][1].photo for i in seen],
          "looking for faces",
        )
      with self._stage("embedding"):
        embedded = _each(self._embedded, found, "looking at its faces")
      looked = dict(zip(seen, embedded, strict=True))
      for i, (source, item) in enumerate(wave):
        result = looked.get(i)
        if isinstance(result, types.PhotoError):
          yield source, result, None
        elif not result:
          yield source, item, None
        else:
          faces, raw, own = result
          job = saving.Job(
            source=source,
            sha256=item.sha256,
            grey=item.photo.grey,
            jpeg_tables=item.photo.jpeg_tables,
            smallest_face=self._smallest_face(item),
            faces=faces,
            raw=raw,
            own=own,
          )
          yield source, item, job

  def _smallest_face(self, item: _Loaded) -> float:
    return self._cloaker.recognition.finder.smallest(item.photo.pixels)

  def _embedded(
    self, found: Sequence[list[finder.AlignedFace]]
  ) -> list[_Looked | None]:
    """Embeds the faces of photos, those of all in one go."""
    everything = [face for faces in found for face in faces]
    if not everything:
      return [None] * len(found)
    raw = self._cloaker.recognition.embed(everything)
    own = self._cloaker.normalised(raw)
    looked: list[_Looked | None] = []
    first = 0
    for faces in found:
      rows = slice(first, first + len(faces))
      first = rows.stop
      parts = [{name: e[rows] for name, e in x.items()} for x in (raw, own)]
      looked.append((faces, parts[0], parts[1]) if faces else None)
    return looked

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
      problems = []
      try:
        with _one_photo("preparing its faces"):
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
            problems.append(((job, index), problem))
      except types.PhotoError as error:
        known = {"source_sha256": job.sha256}
        self._finish(self._failed(job.source, error, **known))
      else:
        yield from problems

  def _load_again(self, source: SourceFile) -> _Loaded | None:
    """Reads a photo that is finished, for the sake of others."""
    with contextlib.suppress(types.PhotoError), _one_photo("reading it"):
      photo = recognition.load_photo(source, self._options)
      return _Loaded(photo=photo, sha256="")
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
      with _one_photo("reading it"):
        data = recognition.read(source)
      sha256 = hashlib.sha256(data).hexdigest()
      if (settled := self._settled(source, sha256)) is not None:
        return settled
      with _one_photo("decoding it"):
        photo = recognition.decode(data, self._options)
      self._check_name(source, photo)
      return _Loaded(photo=photo, sha256=sha256)
    except types.OtherFileError as error:
      if source.suffix in _PHOTO_SUFFIXES or sha256 is None:
        return self._failed(source, error, source_sha256=sha256)
      return self._other(source, str(error), sha256, io.BytesIO(data))
    except types.PhotoError as error:
      return self._failed(source, error, source_sha256=sha256)

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
      if self._is_in_the_way(source.relative):
        return self._new(source, "failed", _FOREIGN, source_sha256=sha256)
      why = "failed before" if in_the_way else why
    if why is None:
      assert row is not None
      return outcomes.Outcome(row=row, fresh=False)
    if why != "new":
      self._redone[source.name] = why
    return None

  def _is_in_the_way(self, name: str) -> bool:
    """Whether a file that is no result would be replaced by one."""
    return self._options.output_format == "tree" and self._foreign(name)

  def _check_name(self, source: SourceFile, photo: Photo) -> None:
    """Makes sure that no two files of the input become one.

    A converted one comes first, as its name is the beginning of the other's.

    Raises:
      PhotoError: they would.
    """
    if photo.suffix:
      if source.relative + photo.suffix in self._names:
        raise types.PhotoError(
          f"converted, its name would be that of {source.name}{photo.suffix}"
        )
      if self._is_in_the_way(source.relative + photo.suffix):
        raise types.PhotoError(_FOREIGN)
      self._converted.add(source.name + photo.suffix)
    else:
      other = source.name[: len(source.name) - len(source.suffix)]
      row = self._known(other)
      before = row is not None and row.output == source.name
      if before or source.name in self._converted:
        raise types.PhotoError(f"its name is that of {other}, converted")

  def _failed(
    self, source: SourceFile, error: types.PhotoError, **fields: Any
  ) -> outcomes.Outcome:
    """The outcome of a photo that could not be cloaked."""
    if isinstance(error, types.UnexpectedError):
      _log.error("%s: %s", source.name, error, exc_info=error.__cause__)
    return self._new(source, "failed", str(error), **fields)

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
    options = self._options
    known: dict[str, Any] = {"source_sha256": item.sha256}
    known["smallest_face"] = self._smallest_face(item)
    if options.on_no_face == "skip":
      reason = "left out, --on_no_face=skip"
      return self._new(source, "no_face", reason, **known)
    lost: set[str] = set()
    try:
      with _one_photo("writing it"):
        data = codec.encode(
          item.photo,
          (),
          strip_location=options.strip_location,
          strip_names=options.strip_names,
          lost=lost,
        )
      place = self._saver.write(source, data, item.photo.suffix)
    except types.PhotoError as error:
      return self._failed(source, error, **known)
    return self._new(
      source,
      "no_face",
      item.photo.note,
      place=place,
      output_sha256=hashlib.sha256(data).hexdigest(),
      output=_renamed(source, item.photo.suffix),
      lost=tuple(sorted(lost)),
      names=not options.strip_names and codec.names_people(item.photo),
      **known,
    )

  def _finish_job(
    self, job: saving.Job, future: "concurrent.futures.Future[saving.Saved]"
  ) -> None:
    """Records the outcome of a saved photo."""
    with self._stage("measuring"):
      self._finish(self._outcome(job, future))

  def _outcome(
    self, job: saving.Job, future: "concurrent.futures.Future[saving.Saved]"
  ) -> outcomes.Outcome:
    """The outcome of a photo that was, or could not be, saved."""
    known: dict[str, Any] = {
      "source_sha256": job.sha256,
      "smallest_face": job.smallest_face,
      "seconds": time.monotonic() - job.started,
    }
    try:
      with _one_photo("saving it"):
        saved = future.result()
    except saving.UnprotectedError as error:
      return self._failed(job.source, error, faces=error.faces, **known)
    except types.PhotoError as error:
      return self._failed(job.source, error, **known)
    return self._new(
      job.source,
      "cloaked",
      saved.reason,
      output_sha256=saved.sha256,
      output=_renamed(job.source, saved.suffix),
      place=saved.place,
      faces=saved.faces,
      lost=saved.lost,
      names=saved.names,
      **known,
    )


def _renamed(source: SourceFile, suffix: str) -> str | None:
  """The name of a result for its row, where it is not the source's."""
  return source.name + suffix if suffix else None


@contextlib.contextmanager
def _one_photo(what: str) -> Iterator[None]:
  """What goes wrong inside costs one photo and not the run.

  Args:
    what: is done with it, in words.

  Raises:
    UnexpectedError: instead of any exception but ours, and but those of a
      full disk or memory, which the next photo would meet as well.
  """
  try:
    yield
  except (types.FawkesError, MemoryError):
    raise
  except Exception as error:
    is_full = isinstance(error, OSError) and error.errno in _DISK_ERRORS
    if is_full or any(sign in str(error) for sign in _NO_MEMORY):
      raise
    raise types.UnexpectedError(
      f"unexpected {type(error).__name__} while {what}: {error}"
    ) from error


def _each(
  act: Callable[[Sequence[Item]], Sequence[Result]],
  items: Sequence[Item | types.PhotoError],
  what: str,
) -> list[Result | types.PhotoError]:
  """Does something with photos together, or one by one where that fails.

  Args:
    act: gives a result for each item, whatever the others are.
    items: of photos; a PhotoError is its own result.
    what: is done with them, in words.

  Returns:
    The result of each, or why there is none.
  """
  good = [item for item in items if not isinstance(item, types.PhotoError)]
  try:
    with _one_photo(what):
      results: list[Result | types.PhotoError] = [*act(good)]
  except types.PhotoError as error:
    results = [error]
    if len(good) > 1:
      results = [_each(act, [item], what)[0] for item in good]
  rest = iter(results)
  return [i if isinstance(i, types.PhotoError) else next(rest) for i in items]


def waves(
  sources: Iterator[SourceFile],
  load: Callable[[SourceFile], Item],
  options: CloakOptions,
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
