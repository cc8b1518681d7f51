import errno

import pytest

from fawkes_jax import types
from fawkes_jax.runs import failures


def test_a_photo_that_fails_does_not_take_others_with_it():
  calls = []

  def halve(numbers):
    calls.append(list(numbers))
    if any(number % 2 for number in numbers):
      raise ValueError("odd")
    return [number // 2 for number in numbers]

  earlier = types.PhotoError("was damaged before")
  results = failures.each(halve, [2, 3, earlier, 8], "halving it")
  assert (results[0], results[2], results[3]) == (1, earlier, 4)
  assert str(results[1]) == "unexpected ValueError while halving it: odd"
  assert calls == [[2, 3, 8], [2], [3], [8]]


def test_what_goes_well_is_done_in_one_go():
  calls = []

  def act(items):
    calls.append(items)
    return items

  assert failures.each(act, [1, 2, 3], "looking") == [1, 2, 3]
  assert len(calls) == 1


@pytest.mark.parametrize(
  "error",
  [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    MemoryError(),
    RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"),
    types.FawkesError("--output must be a folder"),
  ],
)
def test_what_the_next_photo_would_meet_as_well_ends_the_run(error):
  with (
    pytest.raises(type(error)) as raised,
    failures.one_photo("saving it"),
  ):
    raise error
  assert raised.value is error


def test_an_error_of_a_disk_that_is_not_full_costs_one_photo():
  with (
    pytest.raises(types.UnexpectedError, match="OSError while saving it"),
    failures.one_photo("saving it"),
  ):
    raise OSError(errno.EIO, "Input/output error")
