"""The executor in a thread of its own, beside what finds and saves faces."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from fawkes_jax.cloaking import solver
from fawkes_jax.engine import executor

Key = TypeVar("Key")

# How often a thread without work looks whether it should end, in seconds.
_LOOK = 0.2


class Background(Generic[Key]):
  """Solves in a thread what it is given; a context manager.

  Its owner's thread finds and saves faces meanwhile: `offer` and `solved` only
  wait where they are told to. Leaving the context gives up what is not solved.
  """

  def __init__(
    self,
    engine: executor.Executor[Key],
    warn: Callable[[str], None] = lambda message: None,
    prepares: Callable[[bool], None] = lambda begins: None,
    step: Callable[
      [], contextlib.AbstractContextManager[None]
    ] = contextlib.nullcontext,
  ):
    """Starts nothing yet.

    Args:
      engine: nobody else may use it meanwhile.
      warn: called from the thread with what the user should know.
      prepares: called from the thread, see `Executor.solve`.
      step: entered by the thread, see there.
    """
    self._engine = engine
    self._warn = warn
    self._prepares = prepares
    self._step = step
    # As many as can take the places of those that are being solved.
    self._given: queue.Queue[tuple[Key, solver.Problem]] = queue.Queue(
      engine.slots
    )
    self._solved: queue.SimpleQueue[
      tuple[Key, executor.Solution] | BaseException
    ] = queue.SimpleQueue()
    # Given, and not taken by `solved`; taken by the thread, and not solved.
    self._open = self._inside = 0
    self._began = time.monotonic()
    self._idle = 0.0
    self._stopped = threading.Event()
    self._thread = threading.Thread(
      target=self._run, name="solver", daemon=True
    )

  def __enter__(self) -> "Background[Key]":
    self._thread.start()
    return self

  def __exit__(self, *error: object) -> None:
    self._stopped.set()
    self._thread.join()

  def offer(self, key: Key, problem: solver.Problem) -> bool:
    """Gives a problem, unless as many as there are slots wait already."""
    try:
      self._given.put_nowait((key, problem))
    except queue.Full:
      return False
    self._open += 1
    return True

  def solved(self, *, wait: bool) -> Iterator[tuple[Key, executor.Solution]]:
    """Yields what has been solved since the last call.

    Args:
      wait: for one at least, if any was given.

    Raises:
      FawkesError: see `Executor.solve`.
    """
    while self._open:
      try:
        item = self._solved.get(block=wait)
      except queue.Empty:
        return
      if isinstance(item, BaseException):
        raise item
      wait = False
      self._open -= 1
      yield item

  @property
  def seconds(self) -> float:
    """How long the thread has had faces to solve."""
    return time.monotonic() - self._began - self._idle

  def _problems(self) -> Iterator[tuple[Key, solver.Problem] | None]:
    """What was given, for the executor."""
    while not self._stopped.is_set():
      started, idle = time.monotonic(), not self._inside
      try:
        item = self._given.get(block=idle, timeout=_LOOK)
      except queue.Empty:
        item = None
      self._idle += (time.monotonic() - started) * idle
      if item is not None:
        self._inside += 1
        yield item
      elif not idle:
        yield None

  def _run(self) -> None:
    """What the thread does."""
    try:
      for item in self._engine.solve(
        self._problems(),
        warn=self._warn,
        prepares=self._prepares,
        step=self._step,
        stopped=self._stopped.is_set,
      ):
        self._inside -= 1
        self._solved.put(item)
    except BaseException as error:  # Raised where it is waited for.
      self._solved.put(error)
