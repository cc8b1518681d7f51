"""Reads sources whole, and makes outputs appear atomically."""

import contextlib
import dataclasses
import errno
import os
import re
import shutil
import tempfile
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import IO

from fawkes_jax import types


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stamp:
  """What a copy of a file keeps, beside its bytes.

  Attributes:
    modified: when it was changed last, in nanoseconds since 1970; None where
      that is not known.
    mode: its permissions; None where they are not known.
  """

  modified: int | None = None
  mode: int | None = None


TEMPORARY_PREFIX = ".fawkes-jax-"
_TEMPORARY_SUFFIX = ".tmp"


def read_source(path: Path, max_bytes: int) -> bytes:
  """Reads a whole file, or a byte more than `max_bytes` of it.

  Raises:
    OSError: it cannot be read.
    types.PhotoError: there is none, or it is not a regular file.
  """
  if not path.is_file():
    if path.is_dir():
      raise types.PhotoError("a folder, not a file")
    if not os.path.lexists(path):
      raise types.PhotoError("does not exist")
    raise types.PhotoError("not a regular file")
  with path.open("rb") as file:
    # No more than needed: memory for all that is asked for is set aside.
    return file.read(min(max_bytes, os.fstat(file.fileno()).st_size) + 1)


def stamp(path: Path) -> Stamp:
  """Time and mode of a file; unknown where there is none."""
  try:
    known = path.stat()
  except (OSError, ValueError):  # No path at all, with a null character.
    return Stamp()
  return Stamp(modified=known.st_mtime_ns, mode=known.st_mode & 0o777)


def write_atomically(path: Path, data: bytes) -> None:
  """Writes a file so that it is there as a whole or not at all.

  The bytes go to a temporary file beside it, are flushed to the disk, and
  get the name afterwards. Missing folders are made. The file has the usual
  permissions (the umask's).

  Raises:
    types.FawkesError: it cannot be written; nothing is left behind. The
      message names the file and the rule.
  """
  try:
    write(path, data)
  except OSError as error:
    raise types.FawkesError(
      f"{printable(path)} cannot be written: {reason(error)}"
    ) from error


def write(path: Path, data: bytes, stamp: Stamp | None = None) -> None:
  """Like `write_atomically`, but raises OSError.

  Args:
    path: the path of the file.
    data: its bytes.
    stamp: its time and mode; None for now and the umask's.
  """
  _write_beside(path, lambda file: file.write(data), stamp)


def copy(source: Path, path: Path, stamp: Stamp | None = None) -> None:
  """Copies a file so that the copy is there as a whole or not at all.

  Args:
    source: the file.
    path: the path of the copy.
    stamp: the copy's time and mode; None for now and the umask's.

  Raises:
    OSError: it cannot be read or written; nothing is left behind.
  """
  with source.open("rb") as content:
    _write_beside(path, lambda file: shutil.copyfileobj(content, file), stamp)


def utf8(path: str) -> str:
  r"""A name for a store that takes UTF-8 only: other bytes become \xNN."""
  return path.encode("utf-8", "surrogateescape").decode(
    "utf-8", "backslashreplace"
  )


def from_url(address: str) -> str:
  """A path of this machine that is given as a file:// URL; else the address.

  Escapes such as %20 are resolved, unless there is a file of the name as it is.
  """
  if not address.startswith("file://"):
    return address
  path = "/" + address.removeprefix("file://").partition("/")[2]
  if os.path.lexists(path):
    return path
  return os.fsdecode(urllib.parse.unquote_to_bytes(os.fsencode(path)))


def order(name: str) -> bytes:
  """What names are sorted by, everywhere: their bytes."""
  return name.encode("utf-8", "surrogateescape")


def reason(error: OSError) -> str:
  """Why something failed, for messages."""
  if isinstance(error, FileNotFoundError) and not error.strerror:
    return os.strerror(errno.ENOENT)
  return error.strerror or str(error)


def printable(path: str | os.PathLike) -> str:
  r"""A path as text for messages and manifests.

  Bytes of a name that are not UTF-8 appear as \xNN, and a backslash in a
  name as \\ so that two names never look the same.
  """
  return utf8(os.fspath(path).replace("\\", "\\\\"))


def from_printable(text: str) -> str:
  """The path that `printable` shows as a text."""

  def byte(match: re.Match) -> bytes:
    return bytes.fromhex(match[1].decode()) if match[1] else b"\\"

  data = re.sub(rb"\\(?:\\|x([0-9a-f]{2}))", byte, text.encode())
  return os.fsdecode(data)


def remove_unfinished(folder: Path) -> None:
  """Removes what processes that were killed while they wrote have left.

  Args:
    folder: with all folders below it; nobody else writes into them.
  """
  for place, _, names in os.walk(folder):
    for name in names:
      if name.startswith(TEMPORARY_PREFIX) and name.endswith(_TEMPORARY_SUFFIX):
        with contextlib.suppress(OSError):
          os.unlink(os.path.join(place, name))


def _write_beside(
  path: Path,
  fill: Callable[[IO[bytes]], object],
  stamp: Stamp | None = None,
) -> None:
  stamp = stamp or Stamp()
  # Whoever made it can read it, so that it can be verified.
  mode = 0o666 & ~_UMASK if stamp.mode is None else stamp.mode | 0o400
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, temporary = tempfile.mkstemp(
    prefix=TEMPORARY_PREFIX, suffix=_TEMPORARY_SUFFIX, dir=path.parent
  )
  try:
    with open(handle, "wb") as file:
      fill(file)
      file.flush()
      os.fchmod(file.fileno(), mode)
      if stamp.modified is not None:
        # Some file systems do not hold all times that archives do.
        with contextlib.suppress(OSError, OverflowError):
          os.utime(file.fileno(), ns=(stamp.modified, stamp.modified))
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException:
    with contextlib.suppress(OSError):
      os.unlink(temporary)
    raise
  _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
  """Makes a rename last; file systems that cannot are left alone."""
  handle = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(handle)
  except OSError as error:
    if error.errno not in (errno.EINVAL, errno.ENOTSUP):
      raise
  finally:
    os.close(handle)


def _read_umask() -> int:
  mask = os.umask(0o077)
  os.umask(mask)
  return mask


# Asking for the umask means setting it, which is unsafe while threads run.
_UMASK = _read_umask()
