import threading

import numpy as np
import pytest

from fawkes_jax.engine import background


@pytest.fixture(scope="module")
def solutions(cloaker, problems):
  return dict(cloaker.executor.solve(list(enumerate(problems))))


def running():
  return [t for t in threading.enumerate() if t.name == "solver"]


def test_solves_what_it_is_given(cloaker, problems, solutions):
  """Bitwise what the executor itself finds; its owner waits when it wants."""
  found = {}
  with background.Background(cloaker.executor) as solver:
    assert not list(solver.solved(wait=True))
    for index, problem in enumerate(problems):
      while not solver.offer(index, problem):
        found.update(solver.solved(wait=True))
    # Nothing has been solved a moment after it was given.
    found.update(solver.solved(wait=False))
    assert len(found) < len(problems)
    while some := dict(solver.solved(wait=True)):
      found.update(some)
    assert solver.seconds > 0
  assert not running()
  assert sorted(found) == sorted(solutions)
  for index, solution in solutions.items():
    np.testing.assert_array_equal(found[index].change, solution.change)
    assert found[index].dssim == solution.dssim


def test_takes_no_more_than_it_can_use_soon(cloaker, problems):
  """As many wait as there are slots, whatever the owner has."""
  with background.Background(cloaker.executor) as solver:
    given = 0
    while solver.offer(given, problems[0]):
      given += 1
    assert given <= 2 * cloaker.executor.slots


def test_left_early(cloaker, problems):
  """The thread ends with its owner's work."""
  with (
    pytest.raises(OSError, match="gone"),
    background.Background(cloaker.executor) as solver,
  ):
    assert solver.offer(0, problems[0])
    assert running()
    raise OSError("gone")
  assert not running()


def test_errors_reach_the_owner(cloaker, problems):
  bad = problems[0]._replace(original=object())
  with (
    pytest.raises(TypeError, match=r"problems\.original"),
    background.Background(cloaker.executor) as solver,
  ):
    assert solver.offer(0, bad)
    list(solver.solved(wait=True))
  assert not running()
