"""Runs fawkes-jax until it writes a certain file, and dies like a machine.

  python tests/dying.py before|after NUMBER BEGINNING cloak ...

It is killed before or after it writes the file of that number, from 1, among
those whose names in the output folder begin so. The shards of its index are
small, so that an archive of a few photos has several.
"""

import os
import signal
import sys
import threading

from fawkes_jax import cli
from fawkes_jax.archive import index, local_store, remote_store

PHOTOS = 4
"""Of a shard."""


def dies(write, when, number, beginning):
  """A store's method that ends the process when its time has come."""
  lock = threading.Lock()
  left = [int(number)]

  def act(self, name, *rest):
    with lock:
      left[0] -= name.startswith(beginning)
      now = name.startswith(beginning) and left[0] == 0
    if now and when == "before":
      os.kill(os.getpid(), signal.SIGKILL)
    write(self, name, *rest)
    if now:
      os.kill(os.getpid(), signal.SIGKILL)

  return act


def main() -> None:
  when, number, beginning, *words = sys.argv[1:]
  index._PHOTOS = PHOTOS
  for kind in (local_store.LocalStore, remote_store.RemoteStore):
    for name in ("write", "write_file"):
      method = dies(getattr(kind, name), when, number, beginning)
      setattr(kind, name, method)
  sys.argv = ["fawkes-jax", *words]
  cli.entry()


if __name__ == "__main__":
  main()
