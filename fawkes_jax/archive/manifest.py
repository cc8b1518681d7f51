"""The record of a run: `manifest.jsonl`, one row for each input file."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fawkes_jax import types
from fawkes_jax.archive import files

NAME = "manifest.jsonl"
LOCK_NAME = ".manifest.lock"
STATUSES = ("cloaked", "no_face", "skipped", "failed")
_DIGITS = 6
_SYNC_EVERY = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """What became of one input file.

  Attributes:
    path: the file below the input folder, POSIX, printable (see
      `files.printable`).
    status: one of STATUSES.
    reason: why, in words; None where there is nothing to explain.
    source_sha256: of the input file; None if it could not be read.
    output_sha256: of the output file; None if there is none.
    config: the fingerprint of the configuration.
    seconds: how long it took.
    finished: when the outcome was known, UTC, in ISO 8601; None in rows of
      earlier versions.
    faces: for each face `box`, `target`, `steps`, `dssim`, `linf` and
      `extractors`, a dict from name to `shift` and `cosine`.
  """

  path: str
  status: str
  reason: str | None = None
  source_sha256: str | None = None
  output_sha256: str | None = None
  config: str
  seconds: float = 0.0
  finished: str | None = None
  faces: tuple[dict, ...] = ()

  def __post_init__(self):
    if self.status not in STATUSES:
      raise ValueError(f"status must be one of {STATUSES}, got {self.status}")

  def to_json(self) -> str:
    """One line of JSON: floats of 6 significant digits, no NaN."""
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    return json.dumps(_plain(fields), allow_nan=False, ensure_ascii=False)

  @classmethod
  def from_json(cls, line: str | bytes) -> "Row":
    """Reads one line; names that a later version adds are ignored.

    Raises:
      ValueError: it is not a row.
    """
    record = json.loads(line)
    if not isinstance(record, dict) or "path" not in record:
      raise ValueError("not a row of a manifest")
    names = {field.name for field in dataclasses.fields(cls)}
    fields = {name: record[name] for name in names & record.keys()}
    fields["faces"] = tuple(fields.get("faces", ()))
    try:
      return cls(**fields)
    except TypeError as error:
      raise ValueError("not a row of a manifest") from error

  def output_problem(self, output: Path) -> str | None:
    """Reads the output again: "output missing", "output altered" or None."""
    if self.output_sha256 is None:
      return None
    try:
      data = (output / files.from_printable(self.path)).read_bytes()
    except OSError:
      return "output missing"
    if hashlib.sha256(data).hexdigest() != self.output_sha256:
      return "output altered"
    return None


class Manifest:
  """The rows of an output folder, as they are and as they become.

  One process writes to an output folder at a time. Use it in a `with`
  statement, which ends with `close`.

  Attributes:
    rows: the last row of each path.
    notes: what was noticed in the existing file, in words.
  """

  def __init__(self, output: Path):
    """Opens the manifest of `output`, and makes both where missing.

    Raises:
      types.FawkesError: another process holds it, or it cannot be read or
        written.
    """
    self._output = output
    self._path = output / NAME
    self.rows: dict[str, Row] = {}
    self.notes: list[str] = []
    self._unsynced = 0
    try:
      output.mkdir(parents=True, exist_ok=True)
      self._lock = _take_lock(output)
    except OSError as error:
      raise _failure(self._path, error) from error
    try:
      self._read()
      self._file: IO[bytes] = self._path.open("ab")
    except OSError as error:
      self._lock.close()
      raise _failure(self._path, error) from error

  def __enter__(self) -> "Manifest":
    return self

  def __exit__(self, *error: object) -> None:
    self.close()

  def append(self, row: Row) -> None:
    """Adds a row, or replaces the one of the same path.

    It is handed to the operating system at once and forced to the disk with
    every 16th row and in `close`.

    Raises:
      types.FawkesError: the manifest cannot be written.
    """
    try:
      self._file.write(row.to_json().encode() + b"\n")
      self._file.flush()
      self._unsynced += 1
      if self._unsynced >= _SYNC_EVERY:
        self._sync()
    except OSError as error:
      raise _failure(self._path, error) from error
    self.rows[row.path] = row

  def why_unfinished(
    self, path: str, *, source_sha256: str, config: str
  ) -> str | None:
    """What is left to do for an input file.

    The output is read and compared by its sha256: a size and a time could
    miss an edit, and reading costs little beside cloaking.

    Returns:
      None if the file is finished. Otherwise the reason that it is not:
      "new", "failed before", "changed source", "changed configuration", or
      what `Row.output_problem` says.
    """
    row = self.rows.get(path)
    if row is None:
      return "new"
    if row.source_sha256 != source_sha256:
      return "changed source"
    if row.config != config:
      return "changed configuration"
    if row.status == "failed":
      return "failed before"
    return row.output_problem(self._output)

  def finish(self) -> None:
    """Leaves exactly one row for each path, in the order of paths.

    Raises:
      types.FawkesError: the manifest cannot be written.
    """
    lines = [self.rows[path].to_json() + "\n" for path in sorted(self.rows)]
    self._file.close()
    files.write_atomically(self._path, "".join(lines).encode())
    try:
      self._file = self._path.open("ab")
    except OSError as error:
      raise _failure(self._path, error) from error

  def close(self) -> None:
    """Forces the rows to the disk and lets other processes in."""
    try:
      if not self._file.closed:
        self._sync()
    except OSError as error:
      raise _failure(self._path, error) from error
    finally:
      self._file.close()
      self._lock.close()

  def _sync(self) -> None:
    os.fsync(self._file.fileno())
    self._unsynced = 0

  def _read(self) -> None:
    if not self._path.exists():
      return
    data = self._path.read_bytes()
    self.rows, self.notes, torn = _parse(data, self._path)
    if torn:
      os.truncate(self._path, len(data) - torn)


def peek(output: Path) -> tuple[dict[str, Row], list[str], bool]:
  """The rows of an output folder as they are, also while a process writes.

  Args:
    output: the folder.

  Returns:
    The last row of each path; what was noticed, in words; and whether a
    process is writing.

  Raises:
    types.FawkesError: there is no manifest that can be read.
  """
  try:
    with reading(output) as (rows, notes):
      return rows, notes, False
  except types.FawkesError:
    path = output / NAME
    if not path.is_file():
      raise
  try:
    # Its last line may not be whole yet.
    rows, _, _ = _parse(path.read_bytes(), path)
  except OSError as error:
    raise _failure(path, error) from error
  return rows, [], True


@contextlib.contextmanager
def reading(output: Path) -> Iterator[tuple[dict[str, Row], list[str]]]:
  """The rows of an output folder that nobody writes to meanwhile.

  Nothing is written, so that the folder may be read-only.

  Args:
    output: the folder.

  Yields:
    The last row of each path, and what was noticed, in words.

  Raises:
    types.FawkesError: a process writes to the folder, or there is no manifest
      that can be read.
  """
  path = output / NAME
  with contextlib.ExitStack() as stack:
    try:
      if (output / LOCK_NAME).exists():
        lock = stack.enter_context((output / LOCK_NAME).open("rb"))
        _hold(lock, fcntl.LOCK_SH, output)
      data = path.read_bytes()
    except FileNotFoundError:
      raise types.FawkesError(
        f"--output must hold a {NAME}, got {files.printable(output)}"
      ) from None
    except OSError as error:
      raise _failure(path, error) from error
    rows, notes, _ = _parse(data, path)
    yield rows, notes


def _parse(data: bytes, path: Path) -> tuple[dict[str, Row], list[str], int]:
  """The last row of each path, notes, and the bytes of a torn last line."""
  rows: dict[str, Row] = {}
  notes = []
  whole, _, torn = data.rpartition(b"\n")
  if torn:
    notes.append(f"{path}: dropped a last line that is not whole")
  for number, line in enumerate(whole.split(b"\n"), start=1):
    if line.strip():
      try:
        row = Row.from_json(line)
      except ValueError:
        notes.append(f"{path}: ignored line {number}, not a row")
      else:
        rows[row.path] = row
  return rows, notes, len(torn)


def _take_lock(output: Path) -> IO[bytes]:
  """Holds the folder's lock; it ends with the process at the latest."""
  lock = (output / LOCK_NAME).open("ab")
  try:
    _hold(lock, fcntl.LOCK_EX, output)
  except types.FawkesError:
    lock.close()
    raise
  return lock


def _hold(lock: IO[bytes], kind: int, output: Path) -> None:
  """Takes a lock at once, or says who has it."""
  try:
    fcntl.flock(lock, kind | fcntl.LOCK_NB)
  except BlockingIOError:
    raise types.FawkesError(
      f"--output={output} is being written by another process;"
      " one at a time is allowed"
    ) from None


def _failure(path: Path, error: OSError) -> types.FawkesError:
  return types.FawkesError(
    f"{files.printable(path)} cannot be used: {error.strerror or error}"
  )


def _plain(value):
  """Plain JSON values: NumPy's numbers converted, NaN and infinity null."""
  if isinstance(value, dict):
    return {str(key): _plain(item) for key, item in value.items()}
  if hasattr(value, "tolist"):
    return _plain(value.tolist())
  if isinstance(value, list | tuple):
    return [_plain(item) for item in value]
  if isinstance(value, float):
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
  return value
