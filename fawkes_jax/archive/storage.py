"""Folders that results go to and photos come from, here or in a bucket.

An address is a path of this machine or whatever fsspec knows: s3://bucket/key,
gs://bucket/key and others. All that differs between the two is in here: what
is written is there as a whole or not at all, in both.
"""

import contextlib
import hashlib
import os
import posixpath
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol, TypeVar

import fsspec
import tenacity

from fawkes_jax import types
from fawkes_jax.archive import files

# Stores of objects, which appear under their name when they are complete.
_OBJECTS = frozenset(
  ("s3", "gs", "az", "abfs", "abfss", "oss", "oci", "memory")
)
_ALIASES = {"s3a": "s3", "gcs": "gs"}
_EXTRAS = {"s3": "s3", "gs": "gcs"}

_SYNC_EVERY = 16
"""Lines of a local file that are forced to the disk together."""
_OBJECT_LINES = 1024
_OBJECT_SECONDS = 5.0
"""An object cannot grow: it is written again, at most this often and large."""

_PERMANENT = (
  FileExistsError,
  FileNotFoundError,
  IsADirectoryError,
  NotADirectoryError,
  PermissionError,
)

Result = TypeVar("Result")


class Appender(Protocol):
  """Lines that are added to a record, one at a time."""

  def append(self, line: bytes) -> None:
    """Adds a line, without the end of line. Raises OSError."""

  def sync(self) -> None:
    """Makes all lines last. Raises OSError."""

  def close(self) -> None:
    """Ends, without `sync`."""


class Store(Protocol):
  """A folder; every name is below it, with POSIX separators.

  All methods raise OSError where they fail, FileNotFoundError where there is
  nothing of that name.

  Attributes:
    address: as it was given.
  """

  address: str

  def read(self, name: str) -> bytes:
    """The content of a file."""

  def read_part(self, name: str, start: int, size: int) -> bytes:
    """So many bytes of a file from one on."""

  def open(self, name: str) -> IO[bytes]:
    """Opens a file to be read from."""

  def write(
    self, name: str, data: bytes, stamp: files.Stamp | None = None
  ) -> None:
    """Makes or replaces a file; there are never parts of it.

    It gets a time and a mode, where the store has such.
    """

  def write_file(
    self, name: str, path: Path, stamp: files.Stamp | None = None
  ) -> None:
    """Copies a file of this machine, which may be larger than the memory."""

  def digest(self, name: str) -> str:
    """The sha256 of a file."""

  def remove(self, name: str) -> None:
    """Removes a file, if it is there."""

  def names(self, folder: str) -> list[str]:
    """The files directly in a folder, sorted; none if there is no folder."""

  def appender(self, stem: str) -> Appender:
    """Lines that go to one or more files called `stem`*.jsonl."""


def is_remote(address: str | os.PathLike) -> bool:
  """Whether an address is a URL, and no path of this machine."""
  return "://" in os.fspath(address)


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


def place(address: str | os.PathLike) -> tuple[str, PurePosixPath]:
  """Where an address leads: a kind of store, and a path that is unique there.

  Symbolic links are resolved, also those in circles.
  """
  if not is_remote(address):
    return "file", PurePosixPath(os.path.realpath(address))
  scheme, _, path = os.fspath(address).partition("://")
  return _ALIASES.get(scheme, scheme), PurePosixPath(path.rstrip("/"))


def within(address: str | os.PathLike, folder: str | os.PathLike) -> bool:
  """Whether an address is a folder's, or lies in it."""
  kind, path = place(address)
  folder_kind, folder_path = place(folder)
  return kind == folder_kind and path.is_relative_to(folder_path)


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


class RemoteStore:
  """A folder of a file system that fsspec knows; see `Store`.

  What fails for a moment is tried again, with growing pauses.
  """

  def __init__(self, address: str):
    self.address = address.rstrip("/")
    scheme = address.partition("://")[0]
    scheme = _ALIASES.get(scheme, scheme)
    try:
      self._files, root = fsspec.url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
      extra = _EXTRAS.get(scheme)
      how = f"pip install 'fawkes-jax[{extra}]'" if extra else str(error)
      raise types.FawkesError(
        f"{address} needs a package that is not installed: {how}"
      ) from error
    except Exception as error:  # Each file system may raise what it likes.
      raise types.FawkesError(f"{address} cannot be used: {error}") from error
    self._root = root.rstrip("/")
    self._whole = scheme in _OBJECTS
    self._page = _PAGES.get(scheme)

  def read(self, name: str) -> bytes:
    """See `Store.read`."""
    return self._call(self._files.cat_file, self._path(name))

  def read_part(self, name: str, start: int, size: int) -> bytes:
    """See `Store.read_part`."""
    if not size:  # Stores refuse to give no bytes.
      return b""
    path = self._path(name)
    return self._call(self._files.cat_file, path, start=start, end=start + size)

  def open(self, name: str) -> IO[bytes]:
    """See `Store.open`."""
    return self._call(self._files.open, self._path(name), "rb")

  def write(
    self, name: str, data: bytes, stamp: files.Stamp | None = None
  ) -> None:
    """See `Store.write`; buckets have times of their own, and no modes."""
    path = self._path(name)
    if self._whole:
      self._call(self._files.pipe_file, path, data)
    else:
      self._appear(path, lambda at: self._files.pipe_file(at, data))

  def write_file(
    self, name: str, path: Path, stamp: files.Stamp | None = None
  ) -> None:
    """See `Store.write_file`."""
    at = self._path(name)
    if self._whole:
      self._call(self._files.put_file, str(path), at)
    else:
      self._appear(at, lambda at: self._files.put_file(str(path), at))

  def digest(self, name: str) -> str:
    """See `Store.digest`."""
    return hashlib.sha256(self.read(name)).hexdigest()

  def remove(self, name: str) -> None:
    """See `Store.remove`."""
    with contextlib.suppress(FileNotFoundError):
      self._call(self._files.rm_file, self._path(name))

  def names(self, folder: str) -> list[str]:
    """See `Store.names`."""
    try:
      found = self._call(self._files.ls, self._path(folder), detail=True)
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
      return self._call(self._files.info, self._root)["type"] == "file"
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
      found, after = self._call(self._page, self._files, bucket, prefix, after)
      for name, size in found:
        yield name[len(prefix) :], size
      if after is None:
        return

  def _folder(self, prefix: str) -> Iterator[tuple[str, int | None]]:
    """The files of a folder that is listed as a whole."""
    path = self._path(prefix) if prefix else self._root
    entries = []
    for entry in self._call(self._files.ls, path, detail=True):
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

    self._call(write)

  def _call(
    self, function: Callable[..., Result], *args: Any, **kwargs: Any
  ) -> Result:
    """Calls what may fail for a moment; raises nothing but OSError."""
    try:
      return _RETRYING(function, *args, **kwargs)
    except OSError:
      raise
    except Exception as error:  # Each file system may raise what it likes.
      raise OSError(f"{type(error).__name__}: {error}") from error


def _may_pass(error: BaseException) -> bool:
  """Whether an error may be gone the next time."""
  if isinstance(error, _PERMANENT) or not isinstance(error, Exception):
    return False
  if "Credential" in type(error).__name__:
    return False
  code = getattr(error, "code", None)
  refused = isinstance(code, int) and 400 <= code < 500
  return not refused or code in (408, 429)


_RETRYING = tenacity.Retrying(
  retry=tenacity.retry_if_exception(_may_pass),
  stop=tenacity.stop_after_attempt(6),
  wait=tenacity.wait_random_exponential(multiplier=0.5, max=10),
  reraise=True,
)

Page = tuple[list[tuple[str, int | None]], str | None]


def _s3_page(fs: Any, bucket: str, prefix: str, after: str | None) -> Page:
  """Up to a thousand keys of S3 after one, and the last if there are more."""
  more = {} if after is None else {"StartAfter": after}
  page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
  found: list[tuple[str, int | None]]
  found = [(e["Key"], e["Size"]) for e in page.get("Contents", ())]
  return found, found[-1][0] if page.get("IsTruncated") and found else None


def _gcs_page(fs: Any, bucket: str, prefix: str, after: str | None) -> Page:
  """Up to a thousand keys of Google Cloud Storage, and the next page."""
  page = fs.call(
    "GET", "b/{}/o", bucket, prefix=prefix, pageToken=after, json_out=True
  )
  found: list[tuple[str, int | None]]
  found = [(e["name"], int(e["size"])) for e in page.get("items", ())]
  return found, page.get("nextPageToken")


# fsspec's own listings hold all names at once.
_PAGES = {"s3": _s3_page, "gs": _gcs_page}


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
