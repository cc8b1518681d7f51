import concurrent.futures
import functools
import threading

import numpy as np
import pytest

from fawkes_jax.archive.source import SourceFile
from fawkes_jax.photos.orientation import Orientation
from fawkes_jax.photos.photo import Photo
from fawkes_jax.runs import waves as waves_module
from fawkes_jax.runs.waves import BYTES, PHOTOS, Ready, waves


@pytest.fixture
def pool():
  with concurrent.futures.ThreadPoolExecutor(3) as threads:
    yield threads


def sources(count):
  return (SourceFile(relative=f"{i}.jpg") for i in range(count))


def large_photo(source):
  """A photo of more than a third of a wave's bytes, which takes no memory."""
  shape = (1000, BYTES // 3 // 3000 + 1, 3)
  return Photo(
    shape=shape[:2],
    load=lambda: (np.broadcast_to(np.uint8(0), shape), None),
    grey=False,
    jpeg_tables=None,
    subsampling=None,
    format="PNG",
    how=Orientation(),
    lossless=True,
    palette=False,
    info={},
    source=b"",
  )


def test_files_come_in_their_order_a_wave_at_a_time(pool):
  gone = list(
    waves(sources(PHOTOS + 5), lambda s: s.relative, threads=3, pool=pool)
  )
  assert [len(wave) for wave in gone] == [PHOTOS, 5]
  for number, (source, item) in enumerate(gone[0] + gone[1]):
    assert source.relative == item == f"{number}.jpg"


def test_a_wave_of_large_photos_is_short(pool):
  gone = list(waves(sources(7), large_photo, threads=3, pool=pool))
  assert [len(wave) for wave in gone] == [3, 3, 1]


def test_so_many_files_are_read_ahead_as_there_are_threads(pool):
  taken, go_on = [], threading.Event()

  def listed():
    for source in sources(10):
      taken.append(source)
      yield source

  def load(source):
    go_on.wait(10)

  gone = waves(listed(), load, threads=3, pool=pool)
  with concurrent.futures.ThreadPoolExecutor(1) as caller:
    first = caller.submit(next, gone)
    with pytest.raises(concurrent.futures.TimeoutError):
      first.result(0.3)
    assert len(taken) == 3
    go_on.set()
    assert len(first.result(10)) == 10


def test_no_files_make_no_wave(pool):
  assert list(waves(sources(0), print, threads=3, pool=pool)) == []


def test_photos_are_decoded_ahead_as_there_is_room(pool):
  """Photos of a third of the room: three at the same time, of eight threads."""
  pixels = 8 * waves_module.AHEAD // waves_module.BYTES_A_PIXEL // 3
  inside, most, lock = 0, 0, threading.Lock()
  three = threading.Barrier(3, timeout=10)

  def decode(source):
    nonlocal inside, most
    with lock:
      inside += 1
      most = max(most, inside)
    if source.relative in ("0.jpg", "1.jpg", "2.jpg"):
      three.wait()
    with lock:
      inside -= 1
    return source.relative

  def read(source):
    return Ready(pixels=pixels, decode=functools.partial(decode, source))

  with concurrent.futures.ThreadPoolExecutor(8) as many:
    [wave] = waves(sources(7), read, threads=8, pool=many)
  assert [item for _, item in wave] == [f"{i}.jpg" for i in range(7)]
  assert most == 3


def test_a_photo_that_is_larger_than_the_room_is_decoded_alone(pool):
  inside, lock = [], threading.Lock()

  def decode(source):
    with lock:
      inside.append(source.relative)
      assert inside == [source.relative]
      inside.clear()
    return source.relative

  def read(source):
    return Ready(pixels=1 << 40, decode=functools.partial(decode, source))

  [wave] = waves(sources(4), read, threads=3, pool=pool)
  assert [item for _, item in wave] == [f"{i}.jpg" for i in range(4)]
