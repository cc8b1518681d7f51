"""Memory that threads share."""

import concurrent.futures
import threading

from fawkes_jax.runs.room import Room


def test_who_comes_first_is_served_first():
  """Also before those for whom there would be enough."""
  room = Room(10)
  said, waiting = [], []

  def take(name, amount):
    with room.taken(amount):
      said.append(name)

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    with room.taken(6):
      for name, amount in (("first", 5), ("second", 4)):
        waiting.append(pool.submit(take, name, amount))
        done, _ = concurrent.futures.wait(waiting, timeout=0.2)
        assert not done
      said.append("inside")
    for future in waiting:
      future.result(10)
  assert said == ["inside", "first", "second"]


def test_what_fits_beside_others_does_not_wait():
  room = Room(10)
  meeting = threading.Barrier(2, timeout=10)

  def take(amount):
    with room.taken(amount):
      meeting.wait()

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    list(pool.map(take, (6, 4)))


def test_who_needs_more_than_there_is_is_alone():
  room = Room(10)
  with room.taken(1000):
    pass
  with room.taken(10):
    pass
