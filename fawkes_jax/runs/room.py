"""Memory that threads share."""

import collections
import contextlib
import threading
from collections.abc import Iterator


class Room:
  """So many bytes, of which each thread takes what it needs, or waits.

  Those that wait get theirs in the order in which they came, so that nobody
  may wait inside.
  """

  def __init__(self, size: int):
    """All of it is free.

    Args:
      size: in bytes. Whoever needs more gets it once all others are done.
    """
    self._size = size
    self._taken = 0
    self._changed = threading.Condition()
    self._waiting: collections.deque[object] = collections.deque()

  @contextlib.contextmanager
  def taken(self, amount: int) -> Iterator[None]:
    """Takes so many bytes, as soon as they are free, and gives them back."""
    turn = object()
    with self._changed:
      self._waiting.append(turn)
      try:
        self._changed.wait_for(
          lambda: (
            self._waiting[0] is turn
            and (not self._taken or self._taken + amount <= self._size)
          )
        )
      finally:
        self._waiting.remove(turn)
        self._changed.notify_all()
      self._taken += amount
    try:
      yield
    finally:
      with self._changed:
        self._taken -= amount
        self._changed.notify_all()
