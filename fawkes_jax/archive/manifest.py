"""The record of a run: `manifest.jsonl`, one row for each input file.

While a run goes on, each of its processes adds rows to files of its own in the
folder `.manifest`. They are called by a generation, which is larger than any
that was there when the process began, and by the process; a row counts more
than those of earlier generations, and than those in `manifest.jsonl`. In the
end the first process merges all into `manifest.jsonl`. However a run ends,
nothing that was recorded is lost, and the next one begins with it.
"""

import collections
import concurrent.futures
import contextlib
import fcntl
import hashlib
import itertools
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fawkes_jax import types
from fawkes_jax.archive import files, local_store, storage, stores
from fawkes_jax.archive.rows import STATUSES, Row, Rows

__all__ = (
  "FOLDER",
  "LOCK_NAME",
  "NAME",
  "RESERVED",
  "STATUSES",
  "Manifest",
  "Row",
  "Rows",
  "output_problem",
  "peek",
  "reading",
  "why_unfinished",
)

NAME = "manifest.jsonl"
FOLDER = ".manifest"
LOCK_NAME = ".manifest.lock"
RESERVED = (NAME, FOLDER, LOCK_NAME)
"""Names that no result may have."""
_PART = re.compile(r"(\d{6})-\d{4}(-\d{6})?\.jsonl")
_READERS = 16
"""Files of a bucket that are read at the same time."""


class Manifest:
  """The rows of an output folder, as they are and as they become.

  Use it in a `with` statement, which ends with `close`.

  Attributes:
    store: the output folder.
    rows: the last row of each path.
    notes: what was noticed in the existing files, in words.
  """

  def __init__(
    self,
    output: str | os.PathLike,
    *,
    process: int = 0,
    processes: int = 1,
  ):
    """Opens the manifest of `output`; makes the folder where it is missing.

    Args:
      output: the address of the folder.
      process: the number of this process among those of the run, from 0.
      processes: how many there are.

    Raises:
      types.FawkesError: another process of that number holds it, or it cannot
        be read or written. Only the processes of this machine are known, and
        those of others that share a file system with it.
    """
    self.store = stores.open_store(output)
    self._process = process
    self._processes = processes
    with contextlib.ExitStack() as stack:
      if isinstance(self.store, local_store.LocalStore):
        try:
          _lock(self.store.root, stack, process, processes)
        except OSError as error:
          raise self._failure(error) from error
      self._ours = self._since()
      self.rows, self.notes, self._parts = _load(self.store)
      self._appender = self._new_appender()
      self._stack = stack.pop_all()

  def __enter__(self) -> "Manifest":
    return self

  def __exit__(self, *error: object) -> None:
    self.close()

  def is_foreign(self, name: str) -> bool:
    """Whether a file of the output has no row and was not left by a run.

    A run that was killed, or another process of this one, may have written a
    result of which there is no row yet. Of a bucket that is not asked.

    Args:
      name: the name of the file, as a store has it.
    """
    if not isinstance(self.store, local_store.LocalStore):
      return False
    try:
      changed = (self.store.root / name).lstat().st_ctime_ns
    except OSError:
      return False
    return self._ours is None or changed < self._ours

  def _since(self) -> int | None:
    """Since when results without a row may be there, in nanoseconds.

    None where no run was cut off, and none of other processes can be.
    """
    if not isinstance(self.store, local_store.LocalStore):
      return None
    with contextlib.suppress(OSError):
      names = self.store.names(FOLDER)
      if any(name.endswith((".json", ".jsonl")) for name in names):
        return (self.store.root / LOCK_NAME).stat().st_mtime_ns
      if self._processes > 1:
        own = _own_lock(self.store.root, self._process)
        own.touch()
        return own.stat().st_mtime_ns
    return None

  def append(self, row: Row) -> None:
    """Adds a row, or replaces the one of the same path.

    In a local folder it is handed to the operating system at once and forced
    to the disk with every 16th row and in `sync`; an object is written every
    few seconds and in `sync`.

    Raises:
      types.FawkesError: the manifest cannot be written.
    """
    line = row.to_json()
    try:
      self._appender.append(line.encode())
    except OSError as error:
      raise self._failure(error) from error
    self.rows.put_lines([(row.path, line)])

  def sync(self) -> None:
    """Makes all rows last.

    Raises:
      types.FawkesError: the manifest cannot be written.
    """
    try:
      self._appender.sync()
    except OSError as error:
      raise self._failure(error) from error

  def refresh(self) -> None:
    """Reads what other processes have recorded meanwhile.

    Raises:
      types.FawkesError: the manifest cannot be read.
    """
    self._parts.add_to(self.rows, self.notes)

  def finish(self) -> None:
    """Merges all rows: exactly one for each path, in the order of paths.

    Raises:
      types.FawkesError: the manifest cannot be read or written.
    """
    self.sync()
    self.refresh()
    try:
      with tempfile.NamedTemporaryFile("w", encoding="utf-8") as merged:
        merged.writelines(line + "\n" for line in self.rows.lines())
        merged.flush()
        self.store.write_file(NAME, Path(merged.name))
      self._appender.close()
      self._parts.remove()
    except OSError as error:
      raise self._failure(error) from error
    self._appender = self._new_appender()

  def close(self) -> None:
    """Makes the rows last and lets other processes in.

    Raises:
      types.FawkesError: the manifest cannot be written.
    """
    with self._stack:
      try:
        with contextlib.closing(self._appender):
          self._appender.sync()
      except OSError as error:
        raise self._failure(error) from error

  def _new_appender(self) -> storage.Appender:
    """For a generation after all that are there."""
    generation = self._parts.generation() + 1
    return self.store.appender(f"{FOLDER}/{generation:06}-{self._process:04}")

  def _failure(self, error: OSError) -> types.FawkesError:
    return _failure(self.store, error)


def why_unfinished(
  row: Row | None, output: storage.Store, *, source_sha256: str, config: str
) -> str | None:
  """What is left to do for an input file.

  The output is read and compared by its sha256: a size and a time could miss an
  edit, and reading costs little beside cloaking.

  Args:
    row: the row of the file, if it has one.
    output: the output folder.
    source_sha256: the source sha256 of the file.
    config: the fingerprint of the configuration.

  Returns:
    None if the file is finished. Otherwise the reason that it is not: "new",
    "failed before", "changed source", "changed configuration", or what
    `output_problem` says.
  """
  if row is None:
    return "new"
  if row.source_sha256 != source_sha256:
    return "changed source"
  if row.config != config:
    return "changed configuration"
  if row.status == "failed":
    return "failed before"
  return output_problem(row, output)


def output_problem(row: Row, output: storage.Store) -> str | None:
  """Reads an output again: "output missing", "output altered" or None."""
  if row.output_sha256 is None:
    return None
  try:
    if row.place is not None:
      place = row.place
      data = output.read_part(place.tar, place.offset, place.size)
      digest = hashlib.sha256(data).hexdigest()
    else:
      digest = output.digest(files.from_printable(row.output or row.path))
  except OSError:
    return "output missing"
  if digest != row.output_sha256:
    return "output altered"
  return None


def peek(output: str | os.PathLike) -> tuple[Rows, list[str], bool]:
  """The rows of an output folder as they are, also while a process writes.

  Args:
    output: its address.

  Returns:
    The last row of each path; what was noticed, in words; and whether a
    process of this machine is writing.

  Raises:
    types.FawkesError: there is no manifest that can be read.
  """
  store = stores.open_store(output)
  try:
    with reading(output) as (rows, notes):
      return rows, notes, False
  except _Busy:
    # The last line may not be whole yet.
    rows, _, _ = _load(store)
    return rows, [], True


@contextlib.contextmanager
def reading(
  output: str | os.PathLike,
) -> Iterator[tuple[Rows, list[str]]]:
  """The rows of an output folder that nobody writes to meanwhile.

  Nothing is written, so that the folder may be read-only.

  Args:
    output: its address.

  Yields:
    The last row of each path, and what was noticed, in words.

  Raises:
    types.FawkesError: a process of this machine writes to the folder, or there
      is no manifest that can be read.
  """
  store = stores.open_store(output)
  with contextlib.ExitStack() as stack:
    if isinstance(store, local_store.LocalStore):
      try:
        _lock_readers(store.root, stack)
      except OSError as error:
        raise _failure(store, error) from error
    rows, notes, parts = _load(store)
    if not parts.names and not len(rows) and not _exists(store):
      raise types.FawkesError(
        f"--output must hold a {NAME}, got {store.address}"
      )
    yield rows, notes


class _Busy(types.FawkesError):
  """A process is writing."""


def _exists(store: storage.Store) -> bool:
  try:
    store.open(NAME).close()
  except FileNotFoundError:
    return False
  except OSError as error:
    raise _failure(store, error) from error
  return True


class _Parts:
  """The files of a run that was not merged, and how far they were read.

  Attributes:
    names: the names of the files, by generation, process and number.
  """

  def __init__(self, store: storage.Store):
    self._store = store
    self.names: list[str] = []
    # A file that has a successor does not grow any more.
    self._complete: set[str] = set()
    self._lines: collections.Counter[str] = collections.Counter()

  def generation(self) -> int:
    """The largest one."""
    return max((int(name[:6]) for name in self.names), default=0)

  def add_to(self, rows: Rows, notes: list[str]) -> None:
    """Adds the rows that have come since the last time."""
    try:
      self.names = list(filter(_PART.fullmatch, self._store.names(FOLDER)))
      growing = [name for name in self.names if name not in self._complete]
      with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        contents = pool.map(
          self._store.read, (f"{FOLDER}/{n}" for n in growing)
        )
        for name, data in zip(growing, contents, strict=True):
          lines = data.splitlines(keepends=True)
          rows.put(_parse(lines[self._lines[name] :], name, notes))
          whole = lines[-1].endswith(b"\n") if lines else True
          self._lines[name] = len(lines) - (not whole)
    except OSError as error:
      raise _failure(self._store, error) from error
    for name, after in itertools.pairwise(self.names):
      if name[:11] == after[:11]:
        self._complete.add(name)

  def remove(self) -> None:
    """Removes the files. Raises OSError."""
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
      for _ in pool.map(
        self._store.remove, (f"{FOLDER}/{n}" for n in self.names)
      ):
        pass
    self.names = []


def _load(store: storage.Store) -> tuple[Rows, list[str], _Parts]:
  """All rows, notes, and the files that are to be merged."""
  rows, notes, parts = Rows(), list[str](), _Parts(store)
  try:
    with store.open(NAME) as file:
      rows.put(_parse(file, NAME, notes))
  except FileNotFoundError:
    pass
  except OSError as error:
    raise _failure(store, error) from error
  parts.add_to(rows, notes)
  return rows, notes, parts


def _parse(
  lines: IO[bytes] | list[bytes], name: str, notes: list[str]
) -> Iterator[Row]:
  """The rows of a file; what is none is noted."""
  for number, line in enumerate(lines, start=1):
    if not line.endswith(b"\n"):
      notes.append(f"{name}: dropped a last line that is not whole")
    elif line.strip():
      try:
        row = Row.from_json(line)
      except ValueError:
        notes.append(f"{name}: ignored line {number}, not a row")
      else:
        yield row


def _lock(
  output: Path, stack: contextlib.ExitStack, process: int, processes: int
) -> None:
  """Holds the folder's locks; they end with the process at the latest."""
  output.mkdir(parents=True, exist_ok=True)
  lock = stack.enter_context((output / LOCK_NAME).open("ab"))
  if processes == 1:
    _hold(lock, fcntl.LOCK_EX, output)
    return
  _hold(lock, fcntl.LOCK_SH, output)
  (output / FOLDER).mkdir(exist_ok=True)
  own = _own_lock(output, process)
  lock = stack.enter_context(own.open("ab"))
  _hold(lock, fcntl.LOCK_EX, output, f"number {process}")


def _own_lock(output: Path, process: int) -> Path:
  """What one of several processes holds."""
  return output / FOLDER / f"process-{process:04}.lock"


def _lock_readers(output: Path, stack: contextlib.ExitStack) -> None:
  """Keeps writers out while the folder is read."""
  there = output / LOCK_NAME
  for path in itertools.chain([there], (output / FOLDER).glob("*.lock")):
    with contextlib.suppress(FileNotFoundError):
      lock = stack.enter_context(path.open("rb"))
      _hold(lock, fcntl.LOCK_SH, output)


def _hold(
  lock: IO[bytes], kind: int, output: Path, which: str = "at a time"
) -> None:
  """Takes a lock at once, or says who has it."""
  try:
    fcntl.flock(lock, kind | fcntl.LOCK_NB)
  except BlockingIOError:
    raise _Busy(
      f"--output={files.printable(output)} is being written by another"
      f" process; one {which} is allowed"
    ) from None


def _failure(store: storage.Store, error: OSError) -> types.FawkesError:
  return types.FawkesError(
    f"{store.address}/{NAME} cannot be used: {files.reason(error)}"
  )
