"""Writes results: each to a file of its own, or many to tar files.

The tar files (WebDataset's shards) are for buckets and training pipelines that
dislike millions of small objects. A tar file appears as a whole; what it holds
counts when it is there. `manifest.jsonl` says where in which of them a result
is. A photo that is done again gets a new place, and the former member, which
cannot be taken out, is named by no row any more.
"""

import contextlib
import io
import tarfile
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

from fawkes_jax import types
from fawkes_jax.archive import files, storage
from fawkes_jax.archive.rows import Place, Rows

_TAR_BYTES = 256 << 20
_TAR_SECONDS = 600.0
"""A tar file ends at this size or age: what a lost machine loses at most."""
_PREFIX = "photos-"


class Results(Protocol):
  """Takes results from several threads, and says when they last."""

  def write(
    self, name: str, data: bytes, stamp: files.Stamp | None = None
  ) -> Place | None:
    """Adds a result; returns its place in a tar file. Raises OSError."""

  def write_file(
    self, name: str, path: Path, stamp: files.Stamp | None = None
  ) -> Place | None:
    """The same with a file of this machine, which may be large."""

  def read(self, name: str, place: Place | None) -> bytes:
    """Reads a result that was just written. Raises OSError."""

  def after(self, place: Place | None, act: Callable[[], None]) -> None:
    """Does something when a result lasts. Raises FawkesError.

    Only one thread may call this, and `flush`.
    """

  def flush(self) -> None:
    """Makes all results last. Raises FawkesError."""


def open_results(store: storage.Store, kind: str) -> Results:
  """Results of a kind, "tree" or "tar", below an output folder."""
  return TarResults(store) if kind == "tar" else TreeResults(store)


class TreeResults:
  """A file for each result; see `Results`."""

  def __init__(self, store: storage.Store):
    self._store = store

  def write(
    self, name: str, data: bytes, stamp: files.Stamp | None = None
  ) -> Place | None:
    """See `Results.write`."""
    self._store.write(name, data, stamp)
    return None

  def write_file(
    self, name: str, path: Path, stamp: files.Stamp | None = None
  ) -> Place | None:
    """See `Results.write_file`."""
    self._store.write_file(name, path, stamp)
    return None

  def read(self, name: str, place: Place | None) -> bytes:
    """See `Results.read`."""
    return self._store.read(name)

  def after(self, place: Place | None, act: Callable[[], None]) -> None:
    """See `Results.after`."""
    act()

  def flush(self) -> None:
    """See `Results.flush`."""


class TarResults:
  """Tar files of a size that stores like; see `Results`."""

  def __init__(self, store: storage.Store):
    self._store = store
    self._lock = threading.Lock()
    # Never the name of a tar file that is there: nobody else has this one.
    self._stem = f"{_PREFIX}{uuid.uuid4().hex[:12]}"
    self._number = 0
    self._growing: _Growing | None = None
    self._waiting: list[Callable[[], None]] = []

  def write(
    self, name: str, data: bytes, stamp: files.Stamp | None = None
  ) -> Place | None:
    """See `Results.write`."""
    return self._add(name, io.BytesIO(data), len(data), stamp)

  def write_file(
    self, name: str, path: Path, stamp: files.Stamp | None = None
  ) -> Place | None:
    """See `Results.write_file`."""
    with path.open("rb") as file:
      return self._add(name, file, path.stat().st_size, stamp)

  def _add(
    self, name: str, file: IO[bytes], size: int, stamp: files.Stamp | None
  ) -> Place:
    with self._lock:
      if self._growing is None:
        self._growing = _Growing(f"{self._stem}-{self._number:05}.tar")
        self._number += 1
      return self._growing.add(name, file, size, stamp or files.Stamp())

  def read(self, name: str, place: Place | None) -> bytes:
    """See `Results.read`."""
    assert place is not None
    with self._lock:
      if self._growing is not None and self._growing.name == place.tar:
        return self._growing.read(place)
    return self._store.read_part(place.tar, place.offset, place.size)

  def after(self, place: Place | None, act: Callable[[], None]) -> None:
    """See `Results.after`."""
    growing = self._growing
    if place is None or growing is None or growing.name != place.tar:
      act()
    else:
      self._waiting.append(act)
    if growing is not None and growing.is_enough():
      self.flush()

  def flush(self) -> None:
    """See `Results.flush`."""
    with self._lock:
      growing, self._growing = self._growing, None
      waiting, self._waiting = self._waiting, []
      if growing is None:
        return
      with growing as path:
        try:
          self._store.write_file(growing.name, path)
        except OSError as error:
          raise types.FawkesError(
            f"{self._store.address}/{growing.name} cannot be written:"
            f" {files.reason(error)}"
          ) from error
    for act in waiting:
      act()


class _Growing:
  """A tar file on this machine's disk that is not complete yet."""

  def __init__(self, name: str):
    self.name = name
    self._stack = contextlib.ExitStack()
    self._file = self._stack.enter_context(
      tempfile.NamedTemporaryFile(  # noqa: SIM115
        prefix=files.TEMPORARY_PREFIX
      )
    )
    self._tar = self._stack.enter_context(
      tarfile.open(fileobj=self._file, mode="w")  # noqa: SIM115
    )
    self._began = time.monotonic()

  def __enter__(self) -> Path:
    """Completes it; it is gone at the end of the block."""
    self._tar.close()
    self._file.flush()
    return Path(self._file.name)

  def __exit__(self, *error: object) -> None:
    self._stack.close()

  def add(
    self, name: str, file: IO[bytes], size: int, stamp: files.Stamp
  ) -> Place:
    """Adds a member."""
    member = tarfile.TarInfo(name)
    member.size = size
    member.mtime = (stamp.modified or 0) // 10**9
    member.mode = 0o644 if stamp.mode is None else stamp.mode
    self._tar.addfile(member, file)
    blocks = -(-size // tarfile.BLOCKSIZE)
    start = self._file.tell() - blocks * tarfile.BLOCKSIZE
    return Place(tar=self.name, offset=start, size=size)

  def read(self, place: Place) -> bytes:
    """Reads a member."""
    end = self._file.tell()
    self._file.seek(place.offset)
    data = self._file.read(place.size)
    self._file.seek(end)
    return data

  def is_enough(self) -> bool:
    """Whether it is large or old."""
    age = time.monotonic() - self._began
    return self._file.tell() >= _TAR_BYTES or age >= _TAR_SECONDS


def tidy(store: storage.Store, rows: Rows) -> None:
  """Removes tar files that no row names, which a killed process has left.

  Raises:
    types.FawkesError: that cannot be done.
  """
  named = rows.tars()
  try:
    for name in store.names(""):
      tar = name.startswith(_PREFIX) and name.endswith(".tar")
      if tar and name not in named:
        store.remove(name)
  except OSError as error:
    raise types.FawkesError(
      f"{store.address} cannot be used: {files.reason(error)}"
    ) from error
