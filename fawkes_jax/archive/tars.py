"""Archives in tar files, such as WebDataset's shards, and in ZIP files."""

import atexit
import bz2
import errno
import fnmatch
import functools
import gzip
import lzma
import os
import posixpath
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from fawkes_jax import types
from fawkes_jax.archive import files, storage, stores, zips
from fawkes_jax.archive.source import SourceFile

SUFFIXES = (
  *(".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz"),
  *zips.SUFFIXES,
)

_OPENERS: dict[bytes, Callable[..., Any]] = {
  b"\x1f\x8b": gzip.open,
  b"BZh": bz2.open,
  b"\xfd7zXZ\0": lzma.open,
}
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)

# By address and name: the version, and what `_unpack` gave.
_unpacked: dict[tuple[str, str], tuple[Any, tuple[str, str | None]]] = {}
_lock = threading.Lock()


def scan(address: str) -> Iterator[SourceFile]:
  """The members of tar or ZIP files, in the order of the files and in theirs.

  A member is called as its file without the suffix and as itself, as in
  shard-0007/photo.jpg. It is read where it is. A compressed tar file can only
  be read from its beginning, so it is unpacked, as one file, into the folder
  for temporary files, once in a process.

  Args:
    address: of one such file, or of several with * in the file's name.

  Raises:
    OSError: there is none, or they cannot be listed.
  """
  folder, pattern = posixpath.split(address)
  store = stores.open_store(folder or ".")
  if "*" not in pattern:
    store.open(pattern).close()
    shards = [pattern]
  else:
    shards = [
      name
      for name in store.names("")
      if fnmatch.fnmatchcase(name, pattern) and not name.startswith(".")
    ]
    if not shards:
      raise FileNotFoundError(errno.ENOENT, "no such file")
  return (source for shard in shards for source in _members(store, shard))


def stem(name: str) -> str:
  """The name of a tar or ZIP file without its suffix."""
  lower = name.lower()
  suffixes = [s for s in SUFFIXES if lower.endswith(s)]
  return name[: -max(map(len, suffixes), default=0) or None]


def _members(store: storage.Store, shard: str) -> Iterator[SourceFile]:
  if shard.lower().endswith(zips.SUFFIXES):
    yield from zips.members(store, shard, stem(shard))
    return
  seen: set[str] = set()
  damage = None
  try:
    compressed = _kind(store, shard) is not None
    if compressed:
      path, damage = _unpack(store.address, shard, again=True)
      place = stores.open_store(os.path.dirname(path))
      inner = os.path.basename(path)
    else:
      place, inner = store, shard
    with (
      place.open(inner) as file,
      tarfile.open(fileobj=file, mode="r:") as tar,
    ):
      for member in tar:
        # It would keep all of them.
        tar.members.clear()  # type: ignore[attr-defined]
        if member.isdir():
          continue
        relative = f"{stem(shard)}/{member.name.removeprefix('./')}"
        if unusable := SourceFile.unusable(relative):
          yield unusable
          continue
        relative, status, reason = SourceFile.as_member(
          relative,
          seen,
          regular=member.isreg(),
          place=f"at {member.offset}",
        )
        where = member.offset_data, member.size
        if compressed:
          load = functools.partial(
            _fetch_unpacked, store.address, shard, *where
          )
        else:
          load = functools.partial(_fetch, store, shard, *where)
        yield SourceFile(
          relative=relative,
          status=status,
          reason=reason,
          load=None if status else load,
          stamp=files.Stamp(
            modified=int(member.mtime * 10**9), mode=member.mode & 0o777
          ),
        )
      # A damaged header looks like the end.
      file.seek(tar.offset)
      if damage or file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError("damaged")
  except (OSError, tarfile.TarError) as error:
    why = files.reason(error) if isinstance(error, OSError) else str(error)
    yield SourceFile(
      relative=shard,
      status="failed",
      reason=f"cannot be read as a tar file any further: {damage or why}",
    )


def _fetch(
  store: storage.Store, shard: str, start: int, size: int, max_bytes: int
) -> bytes:
  if size > max_bytes:
    raise types.PhotoError(f"more than {max_bytes} bytes")
  data = store.read_part(shard, start, size)
  if len(data) < size:
    raise types.PhotoError(f"{shard} ends in the middle of it")
  return data


def _fetch_unpacked(
  address: str, shard: str, start: int, size: int, max_bytes: int
) -> bytes:
  """Like `_fetch`; also in a process that has not listed the file."""
  path, _ = _unpack(address, shard, again=False)
  store = stores.open_store(os.path.dirname(path))
  return _fetch(store, os.path.basename(path), start, size, max_bytes)


def _kind(store: storage.Store, shard: str) -> Callable[..., Any] | None:
  """What opens a compressed file; None for one that is not compressed."""
  with store.open(shard) as file:
    head = file.read(6)
  found = (o for magic, o in _OPENERS.items() if head.startswith(magic))
  return next(found, None)


def _unpack(address: str, shard: str, *, again: bool) -> tuple[str, str | None]:
  """A temporary file of what a compressed file holds, as far as it can be read.

  Args:
    address: the address of the folder that it is in.
    shard: its name.
    again: whether it may have changed since it was unpacked.

  Returns:
    The file's path, and what is wrong with the compressed file, if anything.

  Raises:
    OSError: there is no space for it, or the file cannot be read.
  """
  store = stores.open_store(address)
  with _lock:
    version, known = _unpacked.get((address, shard), (None, None))
    if known and not (again and version != stores.version(store, shard)):
      return known
    version = stores.version(store, shard)
    opener = _kind(store, shard)
    assert opener is not None
    handle, path = tempfile.mkstemp(prefix=files.TEMPORARY_PREFIX)
    atexit.register(_remove, path)
    damage = None
    with (
      open(handle, "wb") as plain,
      store.open(shard) as file,
      opener(file, "rb") as content,
    ):
      try:
        # What comes before the damage, too.
        while data := content.read1(1 << 20):
          plain.write(data)
      except _DAMAGE as error:
        if getattr(error, "errno", None) is not None:
          raise  # Of the disk, not of what is read.
        damage = str(error)
    _unpacked[address, shard] = version, (path, damage)
    return path, damage


def _remove(path: str) -> None:
  if os.path.exists(path):
    os.unlink(path)
