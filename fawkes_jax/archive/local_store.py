"""A folder of this machine as a store."""

import contextlib
import hashlib
import os
from pathlib import Path
from typing import IO

from fawkes_jax.archive import files
from fawkes_jax.archive.storage import Appender

_SYNC_EVERY = 16
"""Lines of a local file that are forced to the disk together."""


class LocalStore:
  """A folder of this machine; see `Store`."""

  def __init__(self, root: Path):
    self.root = root
    self.address = files.printable(root)

  def read(self, name: str) -> bytes:
    """See `Store.read`."""
    return (self.root / name).read_bytes()

  def read_part(self, name: str, start: int, size: int) -> bytes:
    """See `Store.read_part`."""
    with self.open(name) as file:
      file.seek(start)
      return file.read(size)

  def open(self, name: str) -> IO[bytes]:
    """See `Store.open`."""
    return (self.root / name).open("rb")

  def write(
    self, name: str, data: bytes, stamp: files.Stamp | None = None
  ) -> None:
    """See `Store.write`."""
    files.write(self.root / name, data, stamp)

  def write_file(
    self, name: str, path: Path, stamp: files.Stamp | None = None
  ) -> None:
    """See `Store.write_file`."""
    files.copy(path, self.root / name, stamp)

  def digest(self, name: str) -> str:
    """See `Store.digest`."""
    with (self.root / name).open("rb") as file:
      return hashlib.file_digest(file, "sha256").hexdigest()

  def remove(self, name: str) -> None:
    """See `Store.remove`; as in a bucket, empty folders do not remain."""
    path = self.root / name
    path.unlink(missing_ok=True)
    if path.parent != self.root:
      with contextlib.suppress(OSError):
        path.parent.rmdir()

  def names(self, folder: str) -> list[str]:
    """See `Store.names`."""
    try:
      return sorted(e.name for e in os.scandir(self.root / folder))
    except FileNotFoundError:
      return []

  def appender(self, stem: str) -> Appender:
    """See `Store.appender`: one file, which grows."""
    return _FileAppender(self.root / f"{stem}.jsonl")


class _FileAppender:
  """Lines of a local file, handed to the operating system at once."""

  def __init__(self, path: Path):
    self._path = path
    self._file: IO[bytes] | None = None
    self._unsynced = 0

  def append(self, line: bytes) -> None:
    if self._file is None:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      self._file = self._path.open("ab")
    self._file.write(line + b"\n")
    self._file.flush()
    self._unsynced += 1
    if self._unsynced >= _SYNC_EVERY:
      self.sync()

  def sync(self) -> None:
    if self._file is not None:
      os.fsync(self._file.fileno())
      self._unsynced = 0

  def close(self) -> None:
    if self._file is not None:
      self._file.close()
