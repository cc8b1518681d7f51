"""Photos that are read ahead by threads, and looked at a few at a time.

Threads read files, and then decode them, but no more at a time than there is
room for: a file says how large its photo is before it is decoded.
"""

import collections
import concurrent.futures
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from fawkes_jax.archive.source import SourceFile

# A wave ends at this many photos or decoded bytes.
PHOTOS = 16
BYTES = 128 << 20

# While a thread decodes, a pixel takes three bytes, and four of Pillow's.
BYTES_A_PIXEL = 7
# What is decoded ahead of a wave may take as much, for each thread.
AHEAD = 128 << 20

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Ready(Generic[Item]):
  """A file that has been read, and whose photo is not yet decoded.

  Attributes:
    pixels: that its photo has.
    decode: gives the photo, or what has become of it.
  """

  pixels: int
  decode: Callable[[], Item]


class _Ahead(Generic[Item]):
  """Files that are read and decoded ahead, in their order."""

  def __init__(
    self,
    read: Callable[[SourceFile], Ready[Item] | Item],
    pool: concurrent.futures.Executor,
    *,
    room: int,
  ):
    """Begins with none.

    Args:
      read: see `waves`.
      pool: of threads.
      room: bytes that photos may take; a larger one is decoded alone.
    """
    self._read = read
    self._pool = pool
    self._room = room
    self._taken = 0
    self._reading: collections.deque[
      tuple[SourceFile, concurrent.futures.Future[Ready[Item] | Item]]
    ] = collections.deque()
    self._decoding: collections.deque[
      tuple[SourceFile, concurrent.futures.Future[Item], int]
    ] = collections.deque()

  def __len__(self) -> int:
    return len(self._reading) + len(self._decoding)

  def add(self, source: SourceFile) -> None:
    """Has a file read."""
    self._reading.append((source, self._pool.submit(self._read, source)))
    self._go_on(wait=False)

  def pop(self) -> tuple[SourceFile, Item]:
    """Waits for the first file, of those that are there."""
    self._go_on(wait=True)
    source, future, size = self._decoding.popleft()
    item = future.result()
    self._taken -= size
    self._go_on(wait=False)
    return source, item

  def _go_on(self, *, wait: bool) -> None:
    """Has decoded what has been read, as far as there is room.

    Args:
      wait: for a file to be read, where none is being decoded.
    """
    while self._reading:
      source, future = self._reading[0]
      if not future.done() and (self._decoding or not wait):
        return
      item = future.result()
      if not isinstance(item, Ready):
        done: concurrent.futures.Future[Item] = concurrent.futures.Future()
        done.set_result(item)
        self._decoding.append((source, done, 0))
      else:
        size = BYTES_A_PIXEL * item.pixels
        if self._decoding and self._taken + size > self._room:
          return
        self._taken += size
        self._decoding.append((source, self._pool.submit(item.decode), size))
      self._reading.popleft()


def waves(
  sources: Iterator[SourceFile],
  read: Callable[[SourceFile], Ready[Item] | Item],
  *,
  threads: int,
  pool: concurrent.futures.Executor,
) -> Iterator[list[tuple[SourceFile, Item]]]:
  """Loads sources ahead in threads, and groups them in their order.

  Args:
    sources: the files.
    read: what the threads do with each; it gives a file whose photo is to be
      decoded, by a thread as well, or anything else.
    threads: how many files are loaded ahead.
    pool: of as many threads.

  Yields:
    Some sources with their photos, or what else became of them: a few photos
    at most, by their number and by how many bytes (`nbytes`) they have.
  """
  ahead = _Ahead(read, pool, room=threads * AHEAD)
  wave: list[tuple[SourceFile, Item]] = []
  size = 0
  while True:
    for source in itertools.islice(sources, threads - len(ahead)):
      ahead.add(source)
    if not len(ahead):
      break
    source, item = ahead.pop()
    wave.append((source, item))
    size += getattr(item, "nbytes", 0)
    if len(wave) >= PHOTOS or size >= BYTES:
      yield wave
      wave, size = [], 0
  if wave:
    yield wave
