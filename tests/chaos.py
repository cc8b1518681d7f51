"""Kills the processes of a run again and again, and looks what comes of it.

  python tests/chaos.py --photos=600 --kills=20

An archive in an S3 server is cloaked by one to three processes at a time. At
random moments one of them or all are killed, with SIGKILL or SIGTERM, and
started again, in the same or another number; some of the requests to the server
fail. In the end every photo must have exactly one outcome and every object the
same bytes as in a run that nobody disturbed. It says what it did, and the exit
code is 0 if all is well.

  python tests/chaos.py --photos=400 --processes=1,2,4

kills nobody, but compares what so many processes make of an archive, in folders
and on the server.

  python tests/chaos.py --photos=16 --phases

kills a run once in each phase, at the moments of `MOMENTS`, in a folder and on
the server. `archive/test_membership.py` runs short versions of all.
"""

import argparse
import collections
import hashlib
import io
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import servers
import skimage.data
from PIL import Image

FLAGS = (
  *("--surrogates=dlib_resnet", "--steps=4"),
  *("--crop_size=160", "--batch_size=2", "--threads=2"),
)


INDEX = ".manifest/index/"
MOMENTS = (
  # Nothing is indexed; some is; all is, and the people are not known.
  ("before", 1, f"{INDEX}faces-"),
  ("after", 2, f"{INDEX}faces-"),
  ("before", 1, f"{INDEX}people"),
  # Who is who is written in part; it is written.
  ("after", 1, f"{INDEX}people"),
  ("after", 2, f"{INDEX}people"),
  # Some photos are cloaked, then all are.
  ("before", 2, "trip "),
  ("after", 1, "trip "),
  ("before", 1, "manifest.jsonl"),
  # All is recorded, and the index is still there.
  ("after", 1, "manifest.jsonl"),
)
"""When a process is killed: see `dying.py`."""


def make_photos(folder: pathlib.Path, count: int) -> None:
  """One photo in four has a face; no two files are the same."""
  astronaut = skimage.data.astronaut()[:256, 100:356].astype(np.int16)
  random_ = np.random.default_rng(0)
  for index in range(count):
    if index % 4 == 0:
      pixels = astronaut + random_.integers(-40, 40, 3) + index % 8
    else:
      pixels = random_.integers(0, 256, (24, 32, 3))
    path = folder / f"trip {index % 5}" / f"{index:05}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    image.save(path, quality=85)


def as_for_users() -> dict[str, str]:
  """The environment, in which XLA optimises what it compiles.

  That pays where one process compiles and many load it.
  """
  return {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}


def start(source, output, number, count, environment, log, *flags, moment=None):
  """A process; it dies at a moment of `MOMENTS`, if one is given."""
  program = ("-m", "fawkes_jax")
  if moment is not None:
    program = (pathlib.Path(__file__).parent / "dying.py", *moment)
  command = [
    *(sys.executable, *map(str, program), "cloak", *FLAGS),
    *(f"--input={source}", f"--output={output}", "--wait_minutes=2"),
    *(f"--num_processes={count}", f"--process_id={number}", *flags),
  ]
  return subprocess.Popen(
    command,
    env=as_for_users() | environment,
    stdout=log,
    stderr=subprocess.STDOUT,
  )


def run_all(source, output, count, environment, log, *flags) -> list[int]:
  """Exit codes of processes that nobody disturbs."""
  processes = [
    start(source, output, number, count, environment, log, *flags)
    for number in range(count)
  ]
  return [process.wait() for process in processes]


def disturb(source, output, kills, longest, environment, log, chance) -> None:
  """Starts processes and kills them, so many times."""
  done: collections.Counter[str] = collections.Counter()
  while sum(done.values()) < kills:
    count = chance.randint(1, 3)
    processes = [
      start(source, output, number, count, environment, log)
      for number in range(count)
    ]
    for _ in range(chance.randint(1, 4)):
      time.sleep(chance.uniform(0, longest))
      if all(process.poll() is not None for process in processes):
        break
      number = chance.randrange(count)
      how = chance.choice((signal.SIGKILL, signal.SIGTERM))
      if processes[number].poll() is None:
        done[how.name] += 1
        processes[number].send_signal(how)
        processes[number].wait(timeout=180)
      # Its machine comes back, and it goes on with the others.
      processes[number] = start(source, output, number, count, environment, log)
    for process in processes:
      process.send_signal(signal.SIGKILL)
      done["SIGKILL of all"] += process.poll() is None
      process.wait()
  print(dict(done), flush=True)


def contents(folder) -> dict[str, str]:
  """The digest of every object below an address."""
  from fawkes_jax.archive import local_store, stores

  store = stores.open_store(folder)
  if isinstance(store, local_store.LocalStore):
    names = [
      str(path.relative_to(store.root))
      for path in store.root.rglob("*")
      if path.is_file()
    ]
  else:
    names = [name for name, _ in store.walk()]
  return {
    name: hashlib.sha256(store.read(name)).hexdigest()
    for name in names
    if name != "manifest.jsonl" and not name.endswith(".lock")
  }


def rows_of(folder) -> dict[str, dict]:
  """The rows of a manifest, without what differs from run to run."""
  from fawkes_jax.archive import stores

  lines = io.BytesIO(stores.open_store(folder).read("manifest.jsonl"))
  rows = [json.loads(line) for line in lines]
  assert [row["path"] for row in rows] == sorted({row["path"] for row in rows})
  for row in rows:
    del row["seconds"], row["finished"]
  return {row["path"]: row for row in rows}


def share(folder: pathlib.Path, *, photos: int, counts: list[int]) -> None:
  """Does it in other numbers of processes; AssertionError likewise."""
  source, expected = folder / "in", folder / "expected"
  make_photos(source, photos)
  with (folder / "log").open("w") as log, servers.s3():
    assert run_all(source, expected, 1, {}, log) == [0]
    there = upload(source)
    for count in counts:
      for begin, end in (
        (source, folder / f"out {count}"),
        (there, f"s3://photos/out {count}"),
      ):
        began = time.monotonic()
        assert run_all(begin, end, count, {}, log) == [0] * count
        spent = time.monotonic() - began
        wanted = contents(expected)
        assert len(wanted) == photos
        assert contents(end) == wanted
        assert rows_of(end) == rows_of(expected)
        print(f"{count} processes, {end}: {spent:.0f} s, the same", flush=True)


def phases(source, output, expected, log, *, moments=MOMENTS) -> None:
  """Kills a run at each moment, and lets it go on; AssertionError likewise."""
  for moment in moments:
    process = start(source, output, 0, 1, {}, log, moment=moment)
    ended = process.wait()
    assert ended == -signal.SIGKILL, f"never came to {moment}: {ended}"
  assert run_all(source, output, 1, {}, log) == [0]
  assert contents(output) == contents(expected)
  assert rows_of(output) == rows_of(expected)
  print(f"killed at {len(moments)} moments: the same bytes", flush=True)


def upload(source: pathlib.Path, kind: str = "s3") -> str:
  """Copies a folder to the server; returns its address there."""
  import fsspec

  there = f"{kind}://photos/the archive"
  files = fsspec.filesystem(kind, skip_instance_cache=True)
  files.put(f"{source}/", f"{there}/", recursive=True)
  return there


def chaos(
  folder: pathlib.Path,
  *,
  photos: int,
  kills: int,
  longest: float = 30.0,
  seed: int = 0,
) -> None:
  """Does it all in a folder; AssertionError where something is not well."""
  chance = random.Random(seed)
  source, expected = folder / "in", folder / "expected"
  make_photos(source, photos)
  with (folder / "log").open("w") as log, servers.s3() as environment:
    began = time.monotonic()
    assert run_all(source, expected, 1, {}, log) == [0]
    print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)
    there, result = upload(source), "s3://photos/the results"
    began = time.monotonic()
    with servers.unreliable(
      environment["AWS_ENDPOINT_URL"], failures=0.05
    ) as url:
      flaky = {"AWS_ENDPOINT_URL": url}
      disturb(there, result, kills, longest, flaky, log, chance)
    print(f"disturbed: {time.monotonic() - began:.0f} s", flush=True)
    assert run_all(there, result, 2, {}, log) == [0, 0]
    wanted, got = contents(expected), contents(result)
    assert len(wanted) == photos
    assert got == wanted
    assert rows_of(result) == rows_of(expected)
  print(f"{photos} photos: the same bytes, one outcome each", flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--photos", type=int, default=600)
  parser.add_argument("--kills", type=int, default=20)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--processes")
  parser.add_argument("--phases", action="store_true")
  arguments = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder)
    try:
      if arguments.processes:
        counts = [int(count) for count in arguments.processes.split(",")]
        share(path, photos=arguments.photos, counts=counts)
        return
      if arguments.phases:
        make_photos(path / "in", arguments.photos)
        with (path / "log").open("w") as log, servers.s3():
          assert run_all(path / "in", path / "one", 1, {}, log) == [0]
          phases(path / "in", path / "out", path / "one", log)
          there = upload(path / "in")
          phases(there, "s3://photos/out", path / "one", log)
        return
      chaos(
        path,
        photos=arguments.photos,
        kills=arguments.kills,
        seed=arguments.seed,
      )
    except AssertionError:
      print((path / "log").read_text()[-5000:])
      raise


if __name__ == "__main__":
  main()
