r"""Measures what it costs to know the people of a large archive.

    python tests/benchmarks/million.py --output=FOLDER [--faces=1000000] \
      [--people=200000] [--numbers=128] [--noise=.7] [--ray_address=auto]

The faces are made up: embeddings of so many numbers, drawn around a centre for
each person, from which they are as far as --noise, in lengths of the centre;
one face a photo. Prints for each phase, which is a process of its own, its wall
and CPU seconds and its peak memory; then the bytes on the disk, and of all
pairs of faces in a group how many are of one person (precision), and of all
pairs of one person how many are in a group (recall). On a Ray cluster the
figures are those of the process that groups; the search for neighbours, which
it leaves to others, is said beside them.
"""

import argparse
import concurrent.futures
import contextlib
import multiprocessing
import pathlib
import resource
import time
import types

import numpy as np

SOME = 4096


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--output", type=pathlib.Path, required=True)
  parser.add_argument("--faces", type=int, default=1_000_000)
  parser.add_argument("--people", type=int, default=200_000)
  parser.add_argument("--numbers", type=int, default=128)
  parser.add_argument("--noise", type=float, default=0.7)
  parser.add_argument("--ray_address")
  given = parser.parse_args()
  print(
    f"{given.faces} faces of {given.people} people, {given.numbers} numbers"
  )
  for phase in (write, arrange, read):
    with concurrent.futures.ProcessPoolExecutor(
      1, multiprocessing.get_context("spawn")
    ) as process:
      process.submit(phase, given).result()
    files = [f for f in given.output.rglob("*") if f.is_file()]
    size = sum(f.stat().st_size for f in files) / 1e9
    print(f"  on the disk: {size:.2f} GB in {len(files)} files", flush=True)


@contextlib.contextmanager
def measured(what):
  """Says what it took, and the most memory of the process until then."""
  began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
  yield
  after = resource.getrusage(resource.RUSAGE_SELF)
  cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
  print(
    f"{what}: {time.monotonic() - began:.0f} s, {cpu:.0f} CPU s,"
    f" peak {after.ru_maxrss / 1e6:.2f} GB",
    flush=True,
  )


def drawn(given):
  """The centres, and the person of each face."""
  random = np.random.default_rng(0)
  centres = random.standard_normal((given.people, given.numbers), np.float32)
  centres /= np.linalg.norm(centres, axis=1, keepdims=True)
  return centres, random.integers(given.people, size=given.faces)


def digest(number):
  """What stands for the sha256 of a photo; in another order than numbers."""
  return f"{number * 0x9E3779B97F4A7C15 % 2**64:064x}"


def write(given):
  from fawkes_jax.archive import index, stores

  centres, people = drawn(given)
  random = np.random.default_rng(1)
  noise = np.float32(given.noise / given.numbers**0.5)
  with measured("index written"):
    one = index.Index(stores.open_store(given.output), config="c")
    for start in range(0, given.faces, SOME):
      whom = people[start : start + SOME]
      shape = (len(whom), given.numbers)
      own = centres[whom] + noise * random.standard_normal(shape, np.float32)
      for i, embedding in enumerate(own.astype(np.float16), start):
        one.add(
          index.Seen(
            path=f"{i:07}.jpg",
            sha256=digest(i),
            smallest_face=24.0,
            boxes=np.zeros((1, 4), np.int32),
            scores=np.ones(1, np.float32),
            alignments=np.ones((1, 5)),
            embeddings={"x": embedding[None]},
          )
        )
    one.sync()


def cloaker(given):
  """What the phases ask of a `Cloaker`, with targets that are made up."""
  targets = np.random.default_rng(2).normal(size=(256, given.numbers))
  targets /= np.linalg.norm(targets, axis=1, keepdims=True)
  return types.SimpleNamespace(
    candidates={"x": targets.astype(np.float32)},
    centres={"x": np.zeros(given.numbers, np.float32)},
    target_names=[f"made up/{i}" for i in range(256)],
    exchanges=True,
  )


def arrange(given):
  from fawkes_jax.archive import index, manifest, stores
  from fawkes_jax.faces import grouping
  from fawkes_jax.runs import people

  store = stores.open_store(given.output)
  with measured("index opened"):
    one = index.Index(store, config="c")
  groups = grouping.groups

  def timed(*faces, **details):
    with measured("  of that, grouping"):
      return groups(*faces, **details)

  grouping.groups = timed
  searched = []
  with (
    spread(given.ray_address, searched) as mapping,
    measured("people, means and targets"),
  ):
    people.arrange(one, store, cloaker(given), manifest.Rows(), mapping=mapping)
  if searched:
    print(f"  searches on other machines: {sum(searched):.0f} CPU s")


@contextlib.contextmanager
def spread(address, searched):
  """What does searches; CPU seconds of those that others do are noted."""
  if address is None:
    yield map
    return
  import ray

  from fawkes_jax.runs import ray_cluster

  def mapping(function, blocks):
    def timed(block):
      began = time.process_time()
      start, found = function(block)
      return start, (found, time.process_time() - began)

    for start, (found, seconds) in ray_cluster.everywhere(timed, blocks):
      searched.append(seconds)
      yield start, found

  ray.init(address=address, log_to_driver=False)
  try:
    yield mapping
  finally:
    ray.shutdown()


def read(given):
  from fawkes_jax.archive import stores
  from fawkes_jax.runs import people

  with measured("people read"):
    known = people.read(cloaker(given), stores.open_store(given.output), seed=0)
  found = [known.of(digest(i))[0] for i in range(given.faces)]
  _, truth = drawn(given)
  both = _pairs(np.array(found) * given.people + truth)
  print(
    f"{len(known)} people, precision {both / _pairs(found):.4f},"
    f" recall {both / _pairs(truth):.4f}"
  )


def _pairs(labels):
  """How many pairs have the same label."""
  counts = np.unique(labels, return_counts=True)[1].astype(float)
  return (counts * (counts - 1) / 2).sum()


if __name__ == "__main__":
  main()
