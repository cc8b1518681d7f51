"""Cloaks an archive: the only place where files and devices meet.

An archive is taken up album by album, so many files in the order of their
names, and memory does not grow with it. Several processes can share an archive:
the albums are dealt out to them like cards, and each lists the whole archive
for itself.
"""

import collections
import concurrent.futures
import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from fawkes_jax import types
from fawkes_jax.archive import manifest, membership, results, scan, stores
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.faces import cloaker as cloaker_lib
from fawkes_jax.faces import recognition
from fawkes_jax.options import CloakOptions
from fawkes_jax.photos import codec
from fawkes_jax.photos.photo import Photo
from fawkes_jax.runs import album as album_lib
from fawkes_jax.runs import outcomes
from fawkes_jax.runs.waves import Ready, waves
from fawkes_jax.weights import ensembles

# Names that are noted at once.
_MANY = 4096


def cloak_archive(
  options: CloakOptions,
  watcher: outcomes.Watcher | None = None,
  *,
  cloaker: cloaker_lib.Cloaker | None = None,
) -> dict[str, float]:
  """Cloaks all faces of an archive.

  Args:
    options: of the run.
    watcher: is told what happens.
    cloaker: a `Cloaker` of the same options, but for the folders, which need
      not be loaded and compiled again; perhaps with a loss or a budget of its
      own. Rows then say as `dssim` what the budget measures.

  Returns:
    How many seconds the run spent on each stage: "solving" is how long there
    were faces to solve. The others are done beside that: "loading" is waiting
    for photos, "finding", "embedding", and "measuring" includes waiting for
    what is saved. Empty where the archive is.

  Raises:
    FawkesError: the run cannot begin or go on: the folders, the weights, the
      manifest, or another process. A single photo never raises.
  """
  options = ensembles.resolved(options)
  sources = begin(options)
  if sources is None:
    return {}
  # Enough to know whether there are fewer than a CPU solves at once.
  some = list(itertools.islice(sources, recognition.CPU_FACES))
  sources = itertools.chain(some, sources)
  first, several = options.process_id == 0, options.num_processes > 1
  watcher = watcher or outcomes.Watcher()
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
    run = album_lib.Run(
      options,
      cloaker or cloaker_lib.Cloaker(options, photos=len(some)),
      record.store,
      record.rows.get,
      pool,
      recording(record, counts, watcher),
      watcher,
      record.is_foreign,
    )
    with membership.Team(
      record.store,
      process=options.process_id,
      processes=options.num_processes,
      config=options.fingerprint(),
      wait_seconds=60 * options.wait_minutes,
      counts=counts.copy,
      watch=watcher.others,
    ) as processes:
      processes.meet()
      run.run(_own(sources, options))
      record.sync()
      processes.done()
      if first:
        if several:
          listing.wait()
          processes.wait(lambda: _missing(record))
        finish(options, record, processes)
      elif options.distributed:
        # All processes of such a run must end together.
        processes.wait_for_first()
  return run.seconds


def begin(options: CloakOptions) -> Iterator[SourceFile] | None:
  """The files of a run; None where there are none, before anything is made.

  Raises:
    FawkesError: the input cannot be used, or lies where the output does.
  """
  sources = scan.scan(options.input)
  scan.check_output(options.input, options.output)
  some = list(itertools.islice(sources, 1))
  return itertools.chain(some, sources) if some else None


def finish(
  options: CloakOptions,
  record: manifest.Manifest,
  processes: membership.Team,
) -> None:
  """Leaves a merged manifest, and nothing of the run that made it.

  Raises:
    FawkesError: the output cannot be used.
  """
  record.finish()
  if options.output_format == "tar":
    results.tidy(record.store, record.rows)
  processes.dissolve()


def recording(
  record: manifest.Manifest,
  counts: collections.Counter[str],
  watcher: outcomes.Watcher,
) -> Callable[[outcomes.Outcome], None]:
  """What to do with an outcome: record, count and tell it."""

  def settle(outcome: outcomes.Outcome) -> None:
    if outcome.fresh:
      record.append(outcome.row)
    outcome.count(counts)
    watcher.settled(outcome)

  return settle


def cloak_albums(
  options: CloakOptions,
  cloaker: cloaker_lib.Cloaker,
  albums: Iterable[Sequence[SourceFile]],
  known: Mapping[str, manifest.Row],
  report: Callable[[outcomes.Outcome], None],
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
  store = stores.open_store(options.output)
  with concurrent.futures.ThreadPoolExecutor(options.threads) as pool:
    run = album_lib.Run(
      options, cloaker, store, known.get, pool, report, outcomes.Watcher()
    )
    run.run(albums)


def albums_of(
  sources: Iterator[SourceFile], options: CloakOptions
) -> Iterator[list[SourceFile]]:
  """So many files each, in the order of the archive."""
  while album := list(itertools.islice(sources, options.album)):
    yield album


def _own(
  sources: Iterator[SourceFile], options: CloakOptions
) -> Iterator[list[SourceFile]]:
  """The albums of this process."""
  for number, album in enumerate(albums_of(sources, options)):
    if _share(options, number * options.album) == options.process_id:
      yield album


def _missing(record: manifest.Manifest) -> dict[int, int]:
  """By process, how many files have no outcome."""
  record.refresh()
  return record.rows.missing()


def _share(options: CloakOptions, index: int) -> int:
  """The process that a file belongs to, by its place in the archive."""
  return index // options.album % options.num_processes


class Listing(threading.Thread):
  """Lists an archive once more, ahead of the run, to know how large it is.

  Process 0 of several also notes what must have an outcome in the end.
  """

  def __init__(
    self,
    options: CloakOptions,
    record: manifest.Manifest,
    watcher: outcomes.Watcher,
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
  options: CloakOptions,
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

  def read(source: SourceFile) -> Ready[Photo | str] | Photo | str:
    try:
      data = recognition.read(source)
    except types.PhotoError as error:
      return str(error)
    return Ready(
      pixels=codec.count_pixels(data),
      decode=functools.partial(decode, data),
    )

  def decode(data: bytes) -> Photo | str:
    try:
      return recognition.decode(data, options)
    except types.PhotoError as error:
      return str(error)

  with concurrent.futures.ThreadPoolExecutor(options.threads) as pool:
    gone: Iterator[list[tuple[SourceFile, Photo | str]]] = waves(
      scan.scan(options.input), read, threads=options.threads, pool=pool
    )
    for wave in gone:
      photos = [item for _, item in wave if isinstance(item, Photo)]
      counts = iter([len(faces) for faces in find([p.pixels for p in photos])])
      for source, item in wave:
        report(source, next(counts) if isinstance(item, Photo) else item)
