"""What a process does of a run, phase by phase, to the outcomes of its files.

First it surveys its files: those that need no cloak come to their outcome, and
what is seen of the faces of the others goes to the index. When all processes
have done so, it is known who is on the photos of the whole archive
(`runs/people.py`). Then the photos are cloaked: the faces go to the solver,
which has slots for some, and a photo is read again and saved as soon as its
last face is solved. The solver has a thread of its own. Memory is bounded by
the people of the archive and the solver's slots.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator

from fawkes_jax import types
from fawkes_jax.archive import index as index_lib
from fawkes_jax.archive import manifest, results, storage
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.engine import background
from fawkes_jax.faces import cloaker as cloaker_lib
from fawkes_jax.options import CloakOptions
from fawkes_jax.photos.photo import Photo
from fawkes_jax.runs import (
  choosing,
  looking,
  outcomes,
  people,
  saving,
  triage,
)
from fawkes_jax.runs.copying import Copier
from fawkes_jax.runs.failures import one_photo
from fawkes_jax.runs.finishing import Finishing
from fawkes_jax.runs.ledger import Ledger
from fawkes_jax.runs.stages import Stages
from fawkes_jax.runs.triage import Known, Loaded, Triage
from fawkes_jax.runs.waves import Ready
from fawkes_jax.xla import memory

_SOME = 128
"""Files whose names are compared, where conversion gives new ones."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Prepared:
  """A photo that is to be cloaked, with its faces.

  Attributes:
    job: what is known of it.
    photo: itself, for one on which nobody may be to be cloaked; None where
      everybody is.
  """

  job: saving.Job
  photo: Photo | None

  @property
  def nbytes(self) -> int:
    """How many bytes its pixels have, as far as they are here."""
    faces = sum(face.pixels.nbytes for face in self.job.faces)
    return faces + (0 if self.photo is None else self.photo.nbytes)


class Phases:
  """Files on their way to their outcomes.

  Attributes:
    left: the names of photos that were surveyed and are to be cloaked.
    unknown: of those that are finished, and of which the index knows nothing.
  """

  def __init__(
    self,
    options: CloakOptions,
    cloaker: cloaker_lib.Cloaker,
    store: storage.Store,
    index: index_lib.Index,
    known: Callable[[str], manifest.Row | None],
    pool: concurrent.futures.Executor,
    report: Callable[[outcomes.Outcome], None],
    watcher: outcomes.Watcher,
    foreign: Callable[[str], bool] = lambda name: False,
    *,
    choice: choosing.Choice | None = None,
  ):
    """Begins a run.

    Args:
      options: of the run.
      cloaker: of the same options.
      store: the output folder.
      index: of its faces.
      known: gives the row that a file had, by its name.
      pool: of threads.
      report: called with each outcome.
      watcher: is told what happens.
      foreign: whether a file of the output is not of a run, by its name.
      choice: of those who are cloaked; None for everybody.
    """
    self._options = options
    self._cloaker = cloaker
    self._index = index
    self._known = known
    self._pool = pool
    self._report = report
    self._watcher = watcher
    self._results = results.open_results(store, options.output_format)
    self._saver = saving.Saver(options, cloaker, self._results)
    self._stages = Stages(watcher)
    self._ledger = Ledger(options.fingerprint())
    copier = Copier(options, self._saver, self._ledger)
    self._copier = copier
    self._triage = Triage(
      options,
      store,
      known,
      foreign,
      copier,
      self._ledger,
      index.has_faces,
    )
    self._looking = looking.Looking(
      options, cloaker.recognition, pool, self._stages
    )
    self._choice = choice
    self.left: set[str] = set()
    self.unknown: set[str] = set()

  @property
  def seconds(self) -> dict[str, float]:
    """How long each stage took, see `pipeline.cloak_archive`."""
    return self._stages.seconds

  def survey(self, sources: Iterable[SourceFile]) -> None:
    """Settles what needs no cloak, and looks at the faces of the rest."""
    for some in _some(sources):
      self._triage.begin(some)
      for source, item, seen in self._looking.through(some, self._triage.read):
        self._watcher.looked()
        self._surveyed(source, item, seen)
    self._results.flush()
    self._index.sync()
    memory.give_back_freed()  # Decoded photos, large ones perhaps.

  def look_again(self, sources: Iterable[SourceFile]) -> None:
    """Looks at finished photos, if nobody knows any more who is on them.

    A person's mean is that of all photos, also after an interruption.

    Args:
      sources: any; those that are `unknown` count.
    """
    read = functools.partial(triage.read, options=self._options)
    for some in _some(s for s in sources if s.name in self.unknown):
      for _, _, seen in self._looking.through(some, read):
        if seen is not None:
          self._index.add(seen)
    self._index.sync()

  def cloak(
    self, sources: Iterable[SourceFile], everybody: people.People
  ) -> None:
    """Cloaks the photos that the survey has left.

    Args:
      sources: any; those that are `left` count.
      everybody: whom they show.
    """
    choice = self._choice
    if choice is not None and self.left:
      choice = choice.among(everybody)
      for message in choice.absent(everybody):
        self._watcher.warned(message)
    try:
      with background.Background(
        self._cloaker.executor,
        self._watcher.warned,
        self._watcher.prepares,
        self._saver.step,
      ) as solving:
        finishing = Finishing(
          solving,
          self._saver,
          self._pool,
          self._ledger,
          self._stages,
          self._settle,
          threads=self._options.threads,
        )
        for some in _some(s for s in sources if s.name in self.left):
          self._triage.begin(some)
          for key, problem in self._problems(
            some, everybody, choice, finishing
          ):
            finishing.give(key, problem)
        finishing.solve_all()
      finishing.save_all()
    finally:
      self._results.flush()
    self.left.clear()

  def _surveyed(
    self, source: SourceFile, item: object, seen: index_lib.Seen | None
  ) -> None:
    """Settles a file, or notes that it is to be cloaked."""
    if seen is not None:
      self._index.add(seen)
    if isinstance(item, Known) or seen:
      self.left.add(source.name)
    elif isinstance(item, types.PhotoError):
      self._settle(self._ledger.failure(source, item))
    elif isinstance(item, Loaded):
      assert seen is not None
      self._settle(
        self._copier.faceless(
          source,
          item.photo,
          sha256=item.sha256,
          smallest_face=seen.smallest_face,
          likely=seen.likely,
        )
      )
    elif isinstance(item, outcomes.Outcome):
      sha256 = item.row.source_sha256
      shown = item.row.faces or item.row.decisions
      if shown and sha256 and sha256 not in self._index:
        self.unknown.add(source.name)
      self._settle(item)

  def _settle(self, outcome: outcomes.Outcome) -> None:
    """Tells of an outcome, as soon as the result lasts."""
    self._results.after(outcome.row.place, lambda: self._report(outcome))

  def _problems(
    self,
    some: list[SourceFile],
    everybody: people.People,
    choice: choosing.Choice | None,
    finishing: Finishing,
  ) -> Iterator[people.Problem]:
    """What the solver is to do for photos."""
    for source, item in self._looking.loaded(some, self._read_to_cloak):
      finishing.collect()
      problems = self._stated(source, item, everybody, choice)
      del item  # The solver may take long to have room for its faces.
      yield from problems

  def _read_to_cloak(
    self, source: SourceFile
  ) -> Ready[_Prepared | outcomes.Outcome] | outcomes.Outcome:
    """Reads a photo whose faces are known, and cuts them out; for threads."""
    ready = self._triage.read_to_cloak(source)
    if not isinstance(ready, Ready):
      return ready
    return Ready(
      pixels=ready.pixels,
      decode=lambda: self._prepared(source, ready.decode()),
    )

  def _prepared(
    self, source: SourceFile, item: Loaded | outcomes.Outcome
  ) -> _Prepared | outcomes.Outcome:
    """A photo with its faces."""
    if isinstance(item, outcomes.Outcome):
      return item
    try:
      return _Prepared(
        job=self._job(source, item),
        photo=None if self._choice is None else item.photo,
      )
    except types.PhotoError as error:
      return self._ledger.failure(source, error, source_sha256=item.sha256)

  def _stated(
    self,
    source: SourceFile,
    item: _Prepared | outcomes.Outcome,
    everybody: people.People,
    choice: choosing.Choice | None,
  ) -> list[people.Problem]:
    """The problems of a photo; settles one that has none."""
    if isinstance(item, outcomes.Outcome):
      self._settle(item)
      return []
    job = item.job
    job.started = time.monotonic()
    try:
      everybody.state(job)
      if choice is not None:
        job = choice.apply(job)
      if job.faces:
        return everybody.problems(job)
      assert item.photo is not None
      self._settle(self._spared(job, item.photo))
    except types.PhotoError as error:
      digest = {"source_sha256": job.sha256}
      self._settle(self._ledger.failure(source, error, **digest))
    return []

  def _spared(self, job: saving.Job, photo: Photo) -> outcomes.Outcome:
    """The outcome of a photo on which nobody is to be cloaked."""
    return self._copier.spared(
      job.source,
      photo,
      sha256=job.sha256,
      smallest_face=job.smallest_face,
      decisions=job.decisions,
    )

  def _job(self, source: SourceFile, item: Loaded) -> saving.Job:
    """A photo for the solver; raises PhotoError."""
    seen = self._index.get(item.sha256)
    if not seen:
      raise types.PhotoError("changed while it was being cloaked")
    with one_photo("preparing its faces"):
      raw = {
        name: seen.embeddings[name].astype("float32")
        for name in self._cloaker.candidates
      }
      return saving.Job(
        source=source,
        sha256=item.sha256,
        grey=item.photo.grey,
        jpeg_tables=item.photo.jpeg_tables,
        smallest_face=seen.smallest_face,
        numbers=list(range(len(seen))),
        faces=looking.faces_of(
          item.photo,
          seen,
          self._cloaker.recognition,
          max_pixels=self._options.max_pixels,
        ),
        raw=raw,
        own=self._cloaker.normalised(raw),
      )


def _some(sources: Iterable[SourceFile]) -> Iterator[list[SourceFile]]:
  """The sources, so many at a time."""
  sources = iter(sources)
  while some := list(itertools.islice(sources, _SOME)):
    yield some
