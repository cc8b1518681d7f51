"""Memory that threads share."""

import contextlib
import threading
from collections.abc import Iterator


class Room:
  """So many bytes, of which each thread takes what it needs, or waits."""

  def __init__(self, size: int):
    """All of it is free.

    Args:
      size: in bytes. Whoever needs more gets it once all others are done.
    """
    self._size = size
    self._taken = 0
    self._changed = threading.Condition()

  @contextlib.contextmanager
  def taken(self, amount: int) -> Iterator[None]:
    """Takes so many bytes, as soon as they are free, and gives them back."""
    with self._changed:
      self._changed.wait_for(
        lambda: not self._taken or self._taken + amount <= self._size
      )
      self._taken += amount
    try:
      yield
    finally:
      with self._changed:
        self._taken -= amount
        self._changed.notify_all()
