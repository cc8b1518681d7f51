"""Keeps results between runs, so that nothing is computed twice."""

import contextlib
import hashlib
import io
import json
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from fawkes_jax.archive import files

# An interrupted run loses at most this many seconds of work.
_SAVE_EVERY = 20.0


def digest(*parts: Any) -> str:
  """Twelve hexadecimal digits that stand for plain data."""
  text = json.dumps(parts, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


class Table:
  """Vectors by key, in one .npz file; None for what has no vector.

  A damaged file is begun anew.
  """

  def __init__(self, path: Path):
    """Reads what is there."""
    self._path = path
    self._rows: dict[str, np.ndarray | None] = {}
    self._saved = time.monotonic()
    self._fresh = False
    with contextlib.suppress(
      OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile
    ):
      stored = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
      self._rows = {
        str(key): row if found else None
        for key, found, row in zip(
          stored["keys"], stored["found"], stored["rows"], strict=True
        )
      }

  def __contains__(self, key: str) -> bool:
    return key in self._rows

  @property
  def width(self) -> int:
    """The length of the vectors; 0 where there is none."""
    rows = (row for row in self._rows.values() if row is not None)
    return max((len(row) for row in rows), default=0)

  def get(
    self, key: str, compute: Callable[[], Float[np.ndarray, " d"] | None]
  ) -> Float[np.ndarray, " d"] | None:
    """The vector of a key, computed where it is not known.

    Args:
      key: of any characters.
      compute: makes the vector, of one length for all keys, or None.
    """
    if key not in self._rows:
      value = compute()
      row = None if value is None else np.asarray(value, np.float64)
      self._rows[key] = row
      self._fresh = True
      if time.monotonic() - self._saved > _SAVE_EVERY:
        self.save()
    return self._rows[key]

  def save(self) -> None:
    """Writes what is new.

    Raises:
      FawkesError: the file cannot be written.
    """
    if not self._fresh:
      return
    rows = list(self._rows.values())
    buffer = io.BytesIO()
    np.savez(
      buffer,
      keys=np.array(list(self._rows)),
      found=np.array([row is not None for row in rows]),
      rows=np.array(
        [np.zeros(self.width) if row is None else row for row in rows]
      ),
    )
    files.write_atomically(self._path, buffer.getvalue())
    self._saved, self._fresh = time.monotonic(), False


class Tables:
  """Tables of a folder, each read once."""

  def __init__(self, folder: Path):
    """Reads none yet."""
    self._folder = folder
    self._open: dict[str, Table] = {}

  def get(self, name: str, key: str) -> Table:
    """A table.

    Args:
      name: what its vectors are, and whose.
      key: what tells them from others of the name.
    """
    file = f"{name}-{key}"
    if file not in self._open:
      self._open[file] = Table(self._folder / f"{file}.npz")
    return self._open[file]


class Memory:
  """Results by what they were computed from, a JSON file for each."""

  def __init__(self, folder: Path):
    """Keeps them in a folder."""
    self._folder = folder

  def get(self, name: str, parts: Any, compute: Callable[[], Any]) -> Any:
    """A result, computed where it is not known.

    Args:
      name: the name of what is computed, for the file.
      parts: plain data: all that the result depends on.
      compute: makes the result, of plain data.
    """
    word = re.sub(r"[^A-Za-z0-9]+", "_", name)
    path = self._folder / f"{word}-{digest(name, parts)}.json"
    with contextlib.suppress(OSError, ValueError):
      return json.loads(path.read_text(encoding="utf-8"))
    result = json.dumps(compute(), indent=1)
    files.write_atomically(path, result.encode())
    return json.loads(result)
