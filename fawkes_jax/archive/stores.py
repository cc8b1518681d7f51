"""Opens the store of an address."""

import os
from pathlib import Path

from fawkes_jax.archive.local_store import LocalStore
from fawkes_jax.archive.remote_store import RemoteStore
from fawkes_jax.archive.storage import Store, is_remote


def open_store(address: str | os.PathLike) -> Store:
  """The store of an address; nothing is made there yet.

  Raises:
    types.FawkesError: the address is of a kind that is not known, or needs a
      package that is not installed.
  """
  if is_remote(address):
    return RemoteStore(os.fspath(address))
  return LocalStore(Path(address))


def version(store: Store, name: str) -> tuple[int, int] | None:
  """What changes with a file: its time and size; None where that is not known.

  Raises:
    OSError: there is no such file.
  """
  if not isinstance(store, LocalStore):
    return None
  known = (store.root / name).stat()
  return known.st_mtime_ns, known.st_size
