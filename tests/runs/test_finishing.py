import concurrent.futures
import gc
import types as python_types
import weakref

import pytest

from fawkes_jax import types
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.runs import outcomes
from fawkes_jax.runs.finishing import Finishing
from fawkes_jax.runs.ledger import Ledger
from fawkes_jax.runs.room import Room
from fawkes_jax.runs.stages import Stages


class Pixels:
  """What takes much memory."""


class Solved:
  """A solver that is done with whatever it is given."""

  seconds = 0.0

  def __init__(self):
    self._given = []

  def offer(self, key, problem):
    self._given.append((key, problem))
    return True

  def solved(self, *, wait):
    given, self._given = self._given, []
    yield from given


class Failing:
  """A saver that fails when it has read a photo."""

  def __init__(self, error):
    self._error = error
    self._room = Room(1)
    self.read = None

  def save(self, job):
    with self._room.taken(1):
      pixels = Pixels()
      self.read = weakref.ref(pixels)
      raise self._error


@pytest.mark.parametrize(
  "error", [types.PhotoError("no room"), ZeroDivisionError("by the disk")]
)
def test_a_photo_that_cannot_be_saved_does_not_stay_in_memory(error):
  job = python_types.SimpleNamespace(
    source=SourceFile(relative="a.jpg"),
    sha256="0",
    smallest_face=24.0,
    started=0.0,
    decisions=(),
    faces=[None],
    solutions={},
  )
  settled, saver = [], Failing(error)
  gc.disable()
  try:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      finishing = Finishing(
        Solved(),
        saver,
        pool,
        Ledger("config"),
        Stages(outcomes.Watcher()),
        settled.append,
        threads=1,
      )
      finishing.give((job, 0), None)
      finishing.solve_all()
    # Nor until the photos before it are saved.
    assert saver.read() is None
    finishing.save_all()
    assert [outcome.row.status for outcome in settled] == ["failed"]
    assert saver.read() is None
  finally:
    gc.enable()
