"""Memory that threads share."""

import concurrent.futures
import threading

from fawkes_jax.runs.room import Room


def test_who_needs_more_than_is_free_waits():
  room = Room(10)
  inside, said = threading.Event(), []

  def second():
    inside.set()
    with room.taken(5):
      said.append("second")

  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    with room.taken(6):
      future = pool.submit(second)
      inside.wait(10)
      with room.taken(4):
        said.append("first")
    future.result(10)
  assert said == ["first", "second"]


def test_who_needs_more_than_there_is_is_alone():
  room = Room(10)
  with room.taken(1000):
    pass
  with room.taken(10):
    pass
