"""Cloaks an archive: the only place where files and devices meet.

An archive is gone through twice: it is looked at, and when it is known who is
on its photos, it is cloaked. Several processes can share it: each lists all of
it for itself, and its files are dealt out to them like cards.
"""

import collections
import concurrent.futures
import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fawkes_jax import types
from fawkes_jax.archive import (
  files,
  index,
  manifest,
  membership,
  results,
  scan,
  storage,
)
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.faces import cloaker as cloaker_lib
from fawkes_jax.faces import recognition
from fawkes_jax.options import CloakOptions, FaceOptions
from fawkes_jax.runs import (
  choosing,
  leaks,
  looking,
  outcomes,
  people,
  phases,
  stages,
  triage,
)
from fawkes_jax.runs.waves import waves
from fawkes_jax.weights import ensembles

# Names that are noted at once.
_MANY = 4096
_TOGETHER = 16
"""Files that follow each other and are of one process: a file and what it is
converted to, or members of one tar file."""


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
  options = choosing.resolved(options)
  # Enough to know whether there are fewer than a CPU solves at once.
  some = list(itertools.islice(sources, recognition.CPU_FACES))
  several = options.num_processes > 1
  watcher = watcher or outcomes.Watcher()
  counts: collections.Counter[str] = collections.Counter()
  with (
    _record(options) as record,
    concurrent.futures.ThreadPoolExecutor(options.threads) as pool,
    Listing(options, record, watcher) as listing,
  ):
    faces = open_index(options, record.store, watcher)
    cloaker = cloaker or cloaker_lib.Cloaker(options, photos=len(some))
    choice = choosing.of(options, cloaker)
    run = phases.Phases(
      options,
      cloaker,
      record.store,
      faces,
      record.rows.get,
      pool,
      recording(record, counts, watcher),
      watcher,
      record.is_foreign,
      choice=choice,
    )
    with membership.Team(
      record.store,
      process=options.process_id,
      processes=options.num_processes,
      config=options.fingerprint(),
      wait_seconds=60 * options.wait_minutes,
      counts=counts.copy,
      watch=watcher.others,
      warn=watcher.warned,
    ) as processes:
      processes.meet()
      _share(options, run, record, faces, cloaker, choice, processes)
      record.sync()
      processes.done()
      if options.process_id == 0:
        if several:
          listing.wait()
          processes.wait(
            lambda: _missing(record),
            lambda share: _all_of(options, run, faces, cloaker, record, share),
          )
        watcher.risks(_risks(options, record, cloaker))
        faces.tidy()
        finish(options, record, processes)
      elif options.distributed:
        # All processes of such a run must end together.
        processes.wait_for_first()
  return run.seconds


def _risks(
  options: CloakOptions,
  record: manifest.Manifest,
  cloaker: cloaker_lib.Cloaker,
) -> list[outcomes.Risk]:
  """For whom protection is at risk."""
  published = None
  if options.published is not None and people.are_known(record.store):
    known = everybody(options, cloaker, record.store)
    published = leaks.published(options.published, cloaker, known)
  return leaks.found(record.store, record.rows, published=published)


def _share(
  options: CloakOptions,
  run: phases.Phases,
  record: manifest.Manifest,
  faces: index.Index,
  cloaker: cloaker_lib.Cloaker,
  choice: choosing.Choice | None,
  processes: membership.Team,
) -> None:
  """Does this process's share of a run, and that of processes that are lost."""

  def own() -> Iterator[SourceFile]:
    return _of(options, processes.shares)

  def survey(share: int) -> None:
    if share != options.process_id:
      # What a process has recorded that is lost need not be done again.
      record.refresh()
    run.survey(_of(options, (share,)))
    record.sync()
    processes.left(len(run.left))

  def look_again(share: int) -> None:
    survey(share)
    run.look_again(_of(options, (share,)))

  def arrange() -> None:
    faces.refresh()
    record.refresh()
    people.arrange(
      faces,
      record.store,
      cloaker,
      record.rows,
      config=options.fingerprint(),
      choice=choice,
    )

  def lead(share: int) -> None:
    look_again(share)
    if share == 0:
      arrange()

  survey(options.process_id)
  if not processes.reach(1, survey):
    return
  run.look_again(own())
  processes.reach(2, look_again)
  if processes.leads():
    arrange()
  processes.reach(3, lead, leader=True)
  faces.refresh()
  run.cloak(own(), everybody(options, cloaker, record.store))


def _all_of(
  options: CloakOptions,
  run: phases.Phases,
  faces: index.Index,
  cloaker: cloaker_lib.Cloaker,
  record: manifest.Manifest,
  share: int,
) -> None:
  """Does the share of a process that is lost, once it is known who is who."""
  run.survey(_of(options, (share,)))
  if run.left:
    faces.refresh()
    run.cloak(_of(options, (share,)), everybody(options, cloaker, record.store))
  record.sync()


def _record(options: CloakOptions) -> manifest.Manifest:
  """The record that this process writes."""
  return manifest.Manifest(
    options.output,
    process=options.process_id,
    processes=options.num_processes,
  )


def index_archive(
  options: CloakOptions, watcher: outcomes.Watcher | None = None
) -> collections.Counter[str]:
  """Looks an archive through for people, without anything else.

  Args:
    options: of the run; the index stays.
    watcher: is told what happens.

  Returns:
    How many "photos" this process has looked at, how many of them it had seen
    before ("known"), the "faces" and "people" of the whole archive, and for
    each reason for which a photo could not be looked at, how many there are.

  Raises:
    FawkesError: the run cannot begin or go on. A single photo never raises.
  """
  options = ensembles.resolved(options)
  counts: collections.Counter[str] = collections.Counter()
  if begin(options) is None:
    return counts
  watcher = watcher or outcomes.Watcher()
  with (
    _record(options) as record,
    concurrent.futures.ThreadPoolExecutor(options.threads) as pool,
    Listing(options, record, watcher),
  ):
    faces = open_index(options, record.store, watcher)
    cloaker = cloaker_lib.Cloaker(options)
    looks = looking.Looking(
      options, cloaker.recognition, pool, stages.Stages(watcher)
    )

    read = functools.partial(
      triage.read, options=options, known=faces.__contains__
    )

    def look(share: int) -> None:
      for _, item, seen in looks.through(_of(options, (share,)), read):
        watcher.looked()
        if seen is not None:
          faces.add(seen)
        if isinstance(item, types.PhotoError):
          counts[str(item)] += 1
        else:
          counts["photos"] += 1
          counts["known"] += isinstance(item, triage.Known)
      faces.sync()

    def lead(share: int) -> None:
      look(share)
      if share == 0:
        arrange()

    def arrange() -> None:
      faces.refresh()
      people.arrange(faces, record.store, cloaker, record.rows)

    with membership.Team(
      record.store,
      process=options.process_id,
      processes=options.num_processes,
      config=f"index {options.faces_fingerprint()}",
      wait_seconds=60 * options.wait_minutes,
      counts=dict,
      warn=watcher.warned,
    ) as processes:
      processes.meet()
      look(options.process_id)
      processes.reach(1, look)
      if processes.leads():
        arrange()
      processes.reach(2, lead, leader=True)
      counts["people"] = len(everybody(options, cloaker, record.store))
      faces.refresh()
      counts["faces"] = faces.faces()
      processes.done()
      if options.process_id == 0:
        processes.wait(dict)
        faces.tidy()
        processes.dissolve()
  return counts


def everybody(
  options: CloakOptions, cloaker: cloaker_lib.Cloaker, store: storage.Store
) -> people.People:
  """The people of an archive, as they were arranged."""
  return people.read(cloaker, store, seed=options.solver.seed)


def open_index(
  options: FaceOptions, store: storage.Store, watcher: outcomes.Watcher
) -> index.Index:
  """The index of an output folder, as far as it is of use."""
  found = index.Index(store, config=options.faces_fingerprint())
  for note in found.notes:
    watcher.warned(note)
  return found


def begin(options: CloakOptions) -> Iterator[SourceFile] | None:
  """The files of a run; None where there are none, before anything is made.

  Raises:
    FawkesError: the input or another folder cannot be used, or the output lies
      in the input.
  """
  sources = scan.scan(options.input)
  scan.check_output(options.input, options.output)
  if options.published is not None:
    scan.scan(options.published, flag="published")
  some = list(itertools.islice(sources, 1))
  return itertools.chain(some, sources) if some else None


def finish(
  options: CloakOptions,
  record: manifest.Manifest,
  processes: membership.Team,
) -> None:
  """Leaves a merged manifest, and nothing else of the processes that made it.

  The index of faces stays where that is wished for.

  Raises:
    FawkesError: the output cannot be used.
  """
  record.finish()
  if options.output_format == "tar":
    results.tidy(record.store, record.rows)
  if not options.keep_index:
    index.forget(record.store)
  if not storage.is_remote(options.output):
    files.remove_unfinished(Path(options.output))
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


def _of(options: CloakOptions, shares: Iterable[int]) -> Iterator[SourceFile]:
  """The files of some processes' shares."""
  wanted = frozenset(shares)
  for number, source in enumerate(scan.scan(options.input)):
    if _owner(options, number) in wanted:
      yield source


def _missing(record: manifest.Manifest) -> dict[int, int]:
  """By process, how many files have no outcome."""
  record.refresh()
  return record.rows.missing()


def _owner(options: CloakOptions, number: int) -> int:
  """The process that a file belongs to, by its place in the archive."""
  return number // _TOGETHER % options.num_processes


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
        owners = [_owner(options, number) for number, _ in batch]
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

  read = functools.partial(triage.read, options=options)
  with concurrent.futures.ThreadPoolExecutor(options.threads) as pool:
    for wave in waves(
      scan.scan(options.input), read, threads=options.threads, pool=pool
    ):
      photos = [i.photo for _, i in wave if isinstance(i, triage.Loaded)]
      counts = iter([len(faces) for faces in find([p.pixels for p in photos])])
      for source, item in wave:
        has = isinstance(item, triage.Loaded)
        report(source, next(counts) if has else str(item))
