"""Measures the time of each stage of a run."""

import contextlib
import time
from collections.abc import Iterator

from fawkes_jax.runs import outcomes

STAGES = ("loading", "finding", "embedding", "solving", "measuring")


class Stages:
  """Adds up the time of each stage, and tells of it.

  Attributes:
    seconds: by stage, see `pipeline.cloak_archive`.
  """

  def __init__(self, watcher: outcomes.Watcher):
    self.seconds = dict.fromkeys(STAGES, 0.0)
    self._watcher = watcher

  @contextlib.contextmanager
  def stage(self, name: str) -> Iterator[None]:
    """Adds up the time that is spent inside."""
    started = time.monotonic()
    try:
      yield
    finally:
      self.spent(name, time.monotonic() - started)

  def spent(self, name: str, seconds: float) -> None:
    """Adds time to a stage."""
    self.seconds[name] += seconds
    self._watcher.spent(name, seconds)
