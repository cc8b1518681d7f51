"""Albums on their way through the devices, to the outcomes of their files.

First all photos of an album are looked through, a few at a time, and of each
face its crop is kept: the photos of a person are cloaked against what they have
in common. Then the faces go to the solver, which has slots for some; a photo is
read again and saved as soon as its last face is solved. The solver has a thread
of its own: while it works, the next album is looked through. Memory is bounded
by the faces of an album and of the solver's slots. An album is cloaked the same
way whatever other albums there are, as long as the slots are as many.
"""

import concurrent.futures
from collections.abc import Callable, Iterable, Iterator, Sequence

from fawkes_jax import types
from fawkes_jax.archive import manifest, results, storage
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.engine import background
from fawkes_jax.faces import cloaker as cloaker_lib
from fawkes_jax.options import CloakOptions
from fawkes_jax.runs import outcomes, people, saving
from fawkes_jax.runs.copying import Copier
from fawkes_jax.runs.finishing import Finishing
from fawkes_jax.runs.ledger import Ledger
from fawkes_jax.runs.looking import Looking
from fawkes_jax.runs.stages import Stages
from fawkes_jax.runs.triage import Loaded, Triage


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
    self._options = options
    self._cloaker = cloaker
    self._pool = pool
    self._report = report
    self._watcher = watcher
    self._results = results.open_results(store, options.output_format)
    self._saver = saving.Saver(options, cloaker, self._results)
    self._stages = Stages(watcher)
    self._ledger = Ledger(options.fingerprint())
    self._copier = Copier(options, self._saver, self._ledger)
    self._triage = Triage(
      options, store, known, foreign, self._copier, self._ledger
    )
    self._looking = Looking(options, cloaker, pool, self._stages)

  @property
  def seconds(self) -> dict[str, float]:
    """How long each stage took, see `pipeline.cloak_archive`."""
    return self._stages.seconds

  def run(self, albums: Iterable[Sequence[SourceFile]]) -> None:
    """Brings every file to its outcome."""
    try:
      self._run(albums)
    finally:
      self._results.flush()

  def _run(self, albums: Iterable[Sequence[SourceFile]]) -> None:
    """Finds, solves and saves at the same time."""
    with background.Background(
      self._cloaker.executor, self._watcher.warned, self._watcher.prepares
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
      for album in albums:
        jobs, finished = self._survey(album, finishing)
        if jobs:
          for key, problem in self._problems(jobs, finished):
            finishing.give(key, problem)
      finishing.solve_all()
    finishing.save_all()

  def _settle(self, outcome: outcomes.Outcome) -> None:
    """Tells of an outcome, as soon as the result lasts."""
    self._results.after(outcome.row.place, lambda: self._report(outcome))

  def _survey(
    self, album: Sequence[SourceFile], finishing: Finishing
  ) -> tuple[list[saving.Job], list[SourceFile]]:
    """Looks an album through, and settles what needs no solver.

    Args:
      album: its files.
      finishing: goes on meanwhile.

    Returns:
      The photos with faces that are to be cloaked, and those that an earlier
      run has cloaked.
    """
    jobs, finished = [], []
    self._triage.begin(album)
    for source, item, job in self._looking.through(album, self._triage.read):
      self._watcher.looked()
      finishing.collect()
      if job is not None:
        jobs.append(job)
      elif isinstance(item, types.PhotoError):
        self._settle(self._ledger.failure(source, item))
      elif isinstance(item, Loaded):
        self._settle(
          self._copier.faceless(
            source,
            item.photo,
            sha256=item.sha256,
            smallest_face=self._looking.smallest_face(item.photo),
          )
        )
      else:
        if item.row.faces:
          finished.append(source)
        self._settle(item)
    return jobs, finished

  def _problems(
    self, jobs: list[saving.Job], finished: list[SourceFile]
  ) -> Iterator[people.Problem]:
    """What the solver is to do for the photos of an album.

    A person's mean is that of all photos, also after an interruption: those
    that are finished are looked at again.
    """
    again = [
      job
      for _, _, job in self._looking.through(finished, self._triage.read_again)
      if job
    ]
    everybody = sorted([*jobs, *again], key=lambda job: job.source.relative)
    known = people.tell_apart(everybody, self._cloaker)
    seed = self._options.solver.seed
    for job in sorted(jobs, key=lambda job: job.source.relative):
      try:
        problems = people.problems(job, known, self._cloaker, seed=seed)
      except types.PhotoError as error:
        digest = {"source_sha256": job.sha256}
        self._settle(self._ledger.failure(job.source, error, **digest))
      else:
        yield from problems
