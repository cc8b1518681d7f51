"""A folder in a bucket, or anywhere else that fsspec can open, as a store."""

import contextlib
import hashlib
import os
import posixpath
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import fsspec

from fawkes_jax import types
from fawkes_jax.archive import files, pages, retrying, storage
from fawkes_jax.archive.storage import Appender

# Stores of objects, which appear under their name when they are complete.
_OBJECTS = frozenset(
  ("s3", "gs", "az", "abfs", "abfss", "oss", "oci", "memory")
)
_EXTRAS = {"s3": "s3", "gs": "gcs"}

_OBJECT_LINES = 1024
_OBJECT_SECONDS = 5.0
"""An object cannot grow: it is written again, at most this often and large."""


class RemoteStore:
  """A folder of a file system that fsspec knows; see `Store`.

  What fails for a moment is tried again, with growing pauses.
  """

  def __init__(self, address: str):
    self.address = address.rstrip("/")
    kind = storage.kind(address)
    try:
      self._files, root = fsspec.url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
      extra = _EXTRAS.get(kind)
      how = f"pip install 'fawkes-jax[{extra}]'" if extra else str(error)
      raise types.FawkesError(
        f"{address} needs a package that is not installed: {how}"
      ) from error
    except Exception as error:  # Each file system may raise what it likes.
      raise types.FawkesError(f"{address} cannot be used: {error}") from error
    self._root = root.rstrip("/")
    self._whole = kind in _OBJECTS
    self._page = pages.PAGES.get(kind)

  def read(self, name: str) -> bytes:
    """See `Store.read`."""
    return retrying.call(self._files.cat_file, self._path(name))

  def read_part(self, name: str, start: int, size: int) -> bytes:
    """See `Store.read_part`."""
    if not size:  # Stores refuse to give no bytes.
      return b""
    path = self._path(name)
    return retrying.call(
      self._files.cat_file, path, start=start, end=start + size
    )

  def open(self, name: str) -> IO[bytes]:
    """See `Store.open`."""
    return retrying.call(self._files.open, self._path(name), "rb")

  def write(
    self, name: str, data: bytes, stamp: files.Stamp | None = None
  ) -> None:
    """See `Store.write`; buckets have times of their own, and no modes."""
    path = self._path(name)
    if self._whole:
      retrying.call(self._files.pipe_file, path, data)
    else:
      self._appear(path, lambda at: self._files.pipe_file(at, data))

  def write_file(
    self, name: str, path: Path, stamp: files.Stamp | None = None
  ) -> None:
    """See `Store.write_file`."""
    at = self._path(name)
    if self._whole:
      retrying.call(self._files.put_file, str(path), at)
    else:
      self._appear(at, lambda at: self._files.put_file(str(path), at))

  def digest(self, name: str) -> str:
    """See `Store.digest`."""
    return hashlib.sha256(self.read(name)).hexdigest()

  def remove(self, name: str) -> None:
    """See `Store.remove`."""
    with contextlib.suppress(FileNotFoundError):
      retrying.call(self._files.rm_file, self._path(name))

  def names(self, folder: str) -> list[str]:
    """See `Store.names`."""
    try:
      found = retrying.call(self._files.ls, self._path(folder), detail=True)
    except FileNotFoundError:
      return []
    return sorted(
      posixpath.basename(entry["name"])
      for entry in found
      if entry["type"] == "file" and not entry["name"].endswith("/")
    )

  def appender(self, stem: str) -> Appender:
    """See `Store.appender`: objects, each of so many lines."""
    return _ObjectAppender(self, stem)

  def is_file(self) -> bool:
    """Whether the address is that of a file. Raises OSError."""
    try:
      return retrying.call(self._files.info, self._root)["type"] == "file"
    except FileNotFoundError:
      return False

  def walk(self) -> Iterator[tuple[str, int | None]]:
    """All files below, lazily, in the order of their names' bytes.

    Yields:
      Name and size in bytes; None where the store does not say.

    Raises:
      OSError: it cannot be listed (any more).
    """
    if self._page is None:
      yield from self._folder("")
      return
    bucket, _, key = self._root.partition("/")
    prefix = f"{key}/" if key else ""
    after = None
    while True:
      found, after = retrying.call(
        self._page, self._files, bucket, prefix, after
      )
      for name, size in found:
        yield name[len(prefix) :], size
      if after is None:
        return

  def _folder(self, prefix: str) -> Iterator[tuple[str, int | None]]:
    """The files of a folder that is listed as a whole."""
    path = self._path(prefix) if prefix else self._root
    entries = []
    for entry in retrying.call(self._files.ls, path, detail=True):
      inner = "/" if entry["type"] == "directory" else ""
      name = posixpath.basename(entry["name"].rstrip("/"))
      entries.append((prefix + name + inner, entry.get("size")))
    for name, size in sorted(entries, key=lambda e: files.order(e[0])):
      if name.endswith("/"):
        yield from self._folder(name)
      else:
        yield name, size

  def _path(self, name: str) -> str:
    return f"{self._root}/{files.utf8(name)}"

  def _appear(self, path: str, make: Callable[[str], None]) -> None:
    """Makes a file under another name first."""
    folder, name = posixpath.split(path)
    temporary = f"{folder}/{files.TEMPORARY_PREFIX}{os.getpid()}-{name}"

    def write() -> None:
      self._files.makedirs(folder, exist_ok=True)
      make(temporary)
      self._files.mv(temporary, path)

    retrying.call(write)


class _ObjectAppender:
  """Lines of objects, each written again as long as it grows."""

  def __init__(self, store: RemoteStore, stem: str):
    self._store = store
    self._stem = stem
    self._number = 0
    self._lines: list[bytes] = []
    self._unsynced = 0
    self._synced = time.monotonic()

  def append(self, line: bytes) -> None:
    self._lines.append(line + b"\n")
    self._unsynced += 1
    full = len(self._lines) >= _OBJECT_LINES
    if full or time.monotonic() - self._synced >= _OBJECT_SECONDS:
      self.sync()
    if full:
      self._lines = []
      self._number += 1

  def sync(self) -> None:
    if self._unsynced:
      name = f"{self._stem}-{self._number:06}.jsonl"
      self._store.write(name, b"".join(self._lines))
      self._unsynced = 0
    self._synced = time.monotonic()

  def close(self) -> None:
    pass
