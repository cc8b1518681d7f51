"""Archives in ZIP files, such as those that phones and clouds export."""

import atexit
import contextlib
import datetime
import functools
import stat
import threading
import zipfile
from collections.abc import Iterator
from typing import Any

from fawkes_jax import types
from fawkes_jax.archive import files, storage, stores
from fawkes_jax.archive.source import SourceFile

SUFFIXES = (".zip",)

# By address and name: the version, and what was opened.
_open: dict[tuple[str, str], tuple[Any, contextlib.ExitStack, zipfile.ZipFile]]
_open = {}
_lock = threading.Lock()


def members(store: storage.Store, name: str, stem: str) -> Iterator[SourceFile]:
  """The files in a ZIP file, in its order; see `tars.members`."""
  try:
    archive = _opened(store.address, name, again=True)
  except MemoryError:
    raise
  except Exception as error:  # Damage may raise what it likes.
    why = files.reason(error) if isinstance(error, OSError) else str(error)
    yield SourceFile(
      relative=name,
      status="failed",
      reason=f"cannot be read as a ZIP file: {why}",
    )
    return
  seen: set[str] = set()
  for index, member in enumerate(archive.infolist()):
    if member.is_dir():
      continue
    relative = f"{stem}/{member.filename.removeprefix('./')}"
    if unusable := SourceFile.unusable(relative):
      yield unusable
      continue
    mode = member.external_attr >> 16
    relative, status, reason = SourceFile.as_member(
      relative,
      seen,
      regular=stat.S_IFMT(mode) in (0, stat.S_IFREG),
      place=f"member {index + 1}",
    )
    load = functools.partial(_fetch, store.address, name, index)
    yield SourceFile(
      relative=relative,
      status=status,
      reason=reason,
      load=None if status else load,
      stamp=files.Stamp(
        modified=_modified(member), mode=stat.S_IMODE(mode) or None
      ),
    )


def _modified(member: zipfile.ZipInfo) -> int | None:
  """A member's time in nanoseconds; ZIP files hold that of the clock's zone."""
  try:
    return int(datetime.datetime(*member.date_time).timestamp()) * 10**9
  except (ValueError, OverflowError, OSError):
    return None


def _opened(address: str, name: str, *, again: bool) -> zipfile.ZipFile:
  """A ZIP file whose directory was read, once in a process for all members."""
  store = stores.open_store(address)
  with _lock:
    key = address, name
    if key in _open:
      version, stack, archive = _open[key]
      if not again or version == stores.version(store, name):
        return archive
      stack.close()
    with contextlib.ExitStack() as stack:
      file = stack.enter_context(store.open(name))
      archive = stack.enter_context(zipfile.ZipFile(file))
      version = stores.version(store, name)
      _open[key] = version, stack.pop_all(), archive
      atexit.register(_open[key][1].close)
    return archive


def _fetch(address: str, name: str, index: int, max_bytes: int) -> bytes:
  archive = _opened(address, name, again=False)
  member = archive.infolist()[index]
  if member.file_size > max_bytes:
    raise types.PhotoError(f"more than {max_bytes} bytes")
  if member.flag_bits & 1:
    raise types.PhotoError(f"{name} is encrypted; unpack it first")
  try:
    with archive.open(member) as file:
      return file.read(max_bytes + 1)
  except (MemoryError, OSError):
    raise
  except Exception as error:  # Each method of compression has its own.
    raise types.PhotoError(f"damaged in {name}: {error}") from error
