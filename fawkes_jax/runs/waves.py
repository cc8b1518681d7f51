"""Photos that are read ahead by threads, and looked at a few at a time."""

import collections
import concurrent.futures
import itertools
from collections.abc import Callable, Iterator
from typing import TypeVar

from fawkes_jax.archive.source import SourceFile
from fawkes_jax.photos.photo import Photo

# A wave ends at this many photos or decoded bytes.
PHOTOS = 16
BYTES = 128 << 20

Item = TypeVar("Item")


def waves(
  sources: Iterator[SourceFile],
  load: Callable[[SourceFile], Item],
  *,
  threads: int,
  pool: concurrent.futures.Executor,
) -> Iterator[list[tuple[SourceFile, Item]]]:
  """Loads sources ahead in threads, and groups them in their order.

  Args:
    sources: the files.
    load: what the threads do with each; it gives a photo, something with a
      photo, or anything else.
    threads: how many files are loaded ahead.
    pool: of as many threads.

  Yields:
    Some sources with what `load` gave: a few photos at most.
  """
  pending: collections.deque = collections.deque()
  wave: list[tuple[SourceFile, Item]] = []
  size = 0
  while True:
    for source in itertools.islice(sources, threads - len(pending)):
      pending.append((source, pool.submit(load, source)))
    if not pending:
      break
    source, future = pending.popleft()
    item = future.result()
    wave.append((source, item))
    photo = getattr(item, "photo", item)
    size += photo.pixels.nbytes if isinstance(photo, Photo) else 0
    if len(wave) >= PHOTOS or size >= BYTES:
      yield wave
      wave, size = [], 0
  if wave:
    yield wave
