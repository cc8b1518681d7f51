"""From solved faces to saved photos and their outcomes."""

import collections
import concurrent.futures
import time
import traceback
from collections.abc import Callable
from typing import Any

from fawkes_jax import types
from fawkes_jax.cloaking import solver
from fawkes_jax.engine import background
from fawkes_jax.runs import outcomes, saving
from fawkes_jax.runs.failures import one_photo
from fawkes_jax.runs.ledger import Ledger, renamed
from fawkes_jax.runs.stages import Stages


class Finishing:
  """Saves each photo as soon as its last face is solved."""

  def __init__(
    self,
    solving: background.Background[tuple[saving.Job, int]],
    saver: saving.Saver,
    pool: concurrent.futures.Executor,
    ledger: Ledger,
    stages: Stages,
    settle: Callable[[outcomes.Outcome], None],
    *,
    threads: int,
  ):
    """Begins with nothing on its way.

    Args:
      solving: the solver, started.
      saver: of photos.
      pool: of threads that save.
      ledger: where outcomes come from.
      stages: are told how long it takes.
      settle: called with the outcome of each photo.
      threads: of the pool; so many photos are saved at once.
    """
    self._solving = solving
    self._saver = saver
    self._pool = pool
    self._ledger = ledger
    self._stages = stages
    self._settle = settle
    self._threads = threads
    self._saving: collections.deque[
      tuple[saving.Job, concurrent.futures.Future[saving.Saved]]
    ] = collections.deque()

  def give(self, key: tuple[saving.Job, int], problem: solver.Problem) -> None:
    """Gives the solver a face, once it has room.

    Args:
      key: the photo, and the number of the face.
      problem: of the face.
    """
    while not self._solving.offer(key, problem):
      self.collect(wait=True)

  def collect(self, *, wait: bool = False) -> bool:
    """Saves what has been solved, and tells what has been saved.

    Args:
      wait: for a face that is solved, if any is on its way.

    Returns:
      Whether a face was solved.
    """
    any_solved = False
    for (job, index), solution in self._solving.solved(wait=wait):
      any_solved = True
      job.solutions[index] = solution
      if len(job.solutions) == len(job.faces):
        self._saving.append((job, self._pool.submit(self._save, job)))
    # While the thread waits, it learns only afterwards that it was idle.
    more = self._solving.seconds - self._stages.seconds["solving"]
    self._stages.spent("solving", max(0.0, more))
    while self._saving and (
      self._saving[0][1].done() or len(self._saving) > self._threads
    ):
      self._finish(*self._saving.popleft())
    return any_solved

  def solve_all(self) -> None:
    """Waits until every face is solved."""
    while self.collect(wait=True):
      pass

  def save_all(self) -> None:
    """Waits until every photo is saved that is on its way."""
    while self._saving:
      self._finish(*self._saving.popleft())

  def _save(self, job: saving.Job) -> saving.Saved:
    """Saves a photo, in a thread of the pool."""
    try:
      return self._saver.save(job)
    except Exception as error:
      # At once: the photo before it may take long.
      _forget_frames(error)
      raise

  def _finish(
    self, job: saving.Job, future: "concurrent.futures.Future[saving.Saved]"
  ) -> None:
    """Records the outcome of a saved photo."""
    with self._stages.stage("measuring"):
      self._settle(self._outcome(job, future))

  def _outcome(
    self, job: saving.Job, future: "concurrent.futures.Future[saving.Saved]"
  ) -> outcomes.Outcome:
    """The outcome of a photo that was, or could not be, saved."""
    known: dict[str, Any] = {
      "source_sha256": job.sha256,
      "smallest_face": job.smallest_face,
      "seconds": time.monotonic() - job.started,
      "decisions": job.decisions,
    }
    try:
      with one_photo("saving it"):
        saved = future.result()
    except types.PhotoError as error:
      if isinstance(error, saving.UnprotectedError):
        known["faces"] = error.faces
      return self._ledger.failure(job.source, error, **known)
    return self._ledger.entry(
      job.source,
      "cloaked",
      saved.reason,
      output_sha256=saved.sha256,
      output=renamed(job.source, saved.suffix),
      place=saved.place,
      faces=saved.faces,
      lost=saved.lost,
      names=saved.names,
      **known,
    )


def _forget_frames(error: BaseException) -> None:
  """Forgets what functions had at hand when they failed.

  An error has its traceback, which has their frames, which have the error:
  until such rings are looked for, a large photo would stay in memory.
  """
  traceback.clear_frames(error.__traceback__)
  if error.__cause__ is not None:
    _forget_frames(error.__cause__)
