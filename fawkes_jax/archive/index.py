"""What a run has seen of an archive's faces: `.manifest/index/*.parquet`.

A shard holds some photos: of each face its box, how it is aligned, how sure the
detector is, and its embeddings as half floats. It appears as a whole and never
changes; processes write as many as they like. Photos are known by the sha256 of
their files, so that it does not matter what they are called, who has looked at
them, or how often. Embeddings of people are biometric data: nothing of it stays
when a run has ended, unless that is wished for.
"""

import collections
import dataclasses
import io
import itertools
import json
import sqlite3
import threading
import time
import uuid
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float16, Float32, Float64, Int32
from pyarrow import parquet

from fawkes_jax import types
from fawkes_jax.archive import files, manifest, storage

FOLDER = f"{manifest.FOLDER}/index"
FORMAT = 2
"""Another number for each way to write a shard."""
_PREFIX = "faces-"
_PHOTOS = 512
_SECONDS = 30.0
"""A shard ends with so many photos or seconds: what a lost machine loses."""
_SHARDS_AT_HAND = 16
_META = b"fawkes_jax"
_E = "embedding "


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
  """The faces of a photo, none or more.

  Attributes:
    path: what the photo was called when it was looked at.
    sha256: of its file.
    smallest_face: the side of the smallest face that was looked for, in pixels.
    likely: where a face is likely although none was found (left, top, right
      and bottom), and how sure the detector is of it; None where it is not.
    boxes: left, top, right, bottom in pixels of the photo.
    scores: the detector's confidence.
    alignments: origin and axis (x and y each) and side, see
      `geometry.Alignment`.
    embeddings: raw, by extractor.
  """

  path: str
  sha256: str
  smallest_face: float
  boxes: Int32[np.ndarray, "n 4"]
  scores: Float32[np.ndarray, " n"]
  alignments: Float64[np.ndarray, "n 5"]
  embeddings: Mapping[str, Float16[np.ndarray, "n d"]]
  likely: tuple[int, int, int, int, float] | None = None

  def __len__(self) -> int:
    return len(self.boxes)


class Index:
  """The shards of an output folder, as they are and as they become.

  One thread adds; others may look photos up meanwhile.

  Attributes:
    notes: what was noticed in the shards, in words.
  """

  def __init__(self, store: storage.Store, *, config: str | None):
    """Reads what is there.

    Args:
      store: the output folder.
      config: the fingerprint of what embeddings depend on; shards with another
        one are not used. None takes all.

    Raises:
      types.FawkesError: the folder cannot be read.
    """
    self.notes: list[str] = []
    self._store = store
    self._config = config
    self._lock = threading.RLock()
    self._shards: list[str] = []
    self._known: set[str] = set()
    self._useless: set[str] = set()
    self._stem = f"{_PREFIX}{uuid.uuid4().hex[:12]}"
    self._number = 0
    self._fresh: dict[str, Seen] = {}
    self._began = time.monotonic()
    self._at_hand: collections.OrderedDict[int, pa.Table] = (
      collections.OrderedDict()
    )
    self._data = sqlite3.connect("", check_same_thread=False)
    weakref.finalize(self, self._data.close)
    self._data.executescript(
      "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
      "CREATE TABLE photos (sha256 TEXT PRIMARY KEY, shard INT, row INT,"
      " faces INT) WITHOUT ROWID;"
    )
    self.refresh()

  def __len__(self) -> int:
    """How many photos were looked at, as far as that lasts."""
    return self._all("SELECT count(*) FROM photos")[0][0]

  def faces(self) -> int:
    """How many faces these have."""
    return int(self._all("SELECT total(faces) FROM photos")[0][0])

  def __contains__(self, sha256: str) -> bool:
    with self._lock:
      if sha256 in self._fresh:
        return True
    return bool(self._all("SELECT 1 FROM photos WHERE sha256 = ?", sha256))

  def has_faces(self, sha256: str) -> bool:
    """Whether a photo was looked at, and has faces."""
    with self._lock:
      if sha256 in self._fresh:
        return len(self._fresh[sha256]) > 0
    query = "SELECT 1 FROM photos WHERE sha256 = ? AND faces > 0"
    return bool(self._all(query, sha256))

  def get(self, sha256: str) -> Seen | None:
    """What was seen of a photo; None where it was not looked at.

    Raises:
      types.FawkesError: its shard cannot be read any more.
    """
    with self._lock:
      if sha256 in self._fresh:
        return self._fresh[sha256]
      found = self._all(
        "SELECT shard, row FROM photos WHERE sha256 = ?", sha256
      )
      if not found:
        return None
      number, row = found[0]
      if number not in self._at_hand:
        self._at_hand[number] = self._table(self._shards[number])
        if len(self._at_hand) > _SHARDS_AT_HAND:
          self._at_hand.popitem(last=False)
      self._at_hand.move_to_end(number)
      return _photo(self._at_hand[number].slice(row, 1))

  def add(self, seen: Seen) -> None:
    """Adds a photo; it lasts after `sync` at the latest.

    Raises:
      types.FawkesError: the index cannot be written.
    """
    if seen.sha256 in self:
      return
    with self._lock:
      if not self._fresh:
        self._began = time.monotonic()
      self._fresh[seen.sha256] = seen
    age = time.monotonic() - self._began
    if len(self._fresh) >= _PHOTOS or age >= _SECONDS:
      self.sync()

  def sync(self) -> None:
    """Makes all photos last.

    Raises:
      types.FawkesError: the index cannot be written.
    """
    if not self._fresh:
      return
    name = f"{self._stem}-{self._number:06}.parquet"
    seen = list(self._fresh.values())
    # Extractors that have seen no face of these are columns all the same.
    names = sorted({name for photo in seen for name in photo.embeddings})
    table = pa.table(
      {
        "path": [photo.path for photo in seen],
        "sha256": [photo.sha256 for photo in seen],
        "smallest_face": pa.array([p.smallest_face for p in seen], "float64"),
        "likely": pa.array([p.likely for p in seen], pa.list_(pa.float64())),
        "boxes": _lists([photo.boxes for photo in seen]),
        "scores": _lists([photo.scores for photo in seen]),
        "alignments": _lists([photo.alignments for photo in seen]),
        **{
          f"{_E}{name}": _lists([p.embeddings.get(name) for p in seen])
          for name in names
        },
      }
    )
    try:
      write(self._store, f"{FOLDER}/{name}", table, {"config": self._config})
    except OSError as error:
      raise self._failure(error) from error
    with self._lock:
      self._number += 1
      self._note(name, [(p.sha256, len(p)) for p in seen])
      self._fresh = {}

  def refresh(self) -> None:
    """Reads what other processes have written meanwhile.

    Raises:
      types.FawkesError: the folder cannot be read.
    """
    for name in self._names():
      if name in self._known or name in self._useless:
        continue
      try:
        table = self._read(name, ["sha256", "scores"])
      except FileNotFoundError:
        continue
      except OSError as error:
        raise self._failure(error) from error
      except _UselessError as error:
        self._useless.add(name)
        self.notes.append(
          f"{FOLDER}/{name} is {error}: its photos are looked at again"
        )
        continue
      counts = table["scores"].combine_chunks().value_lengths().to_pylist()
      pairs = zip(table["sha256"].to_pylist(), counts, strict=True)
      with self._lock:
        self._note(name, list(pairs))

  def shards(
    self, extractors: list[str]
  ) -> Iterator[tuple[np.ndarray, dict[str, Float16[np.ndarray, "n d"]]]]:
    """The faces of all photos, a shard at a time.

    All faces have places, in the order of their photos' sha256; a photo that
    was looked at more than once has them once.

    Args:
      extractors: whose embeddings are wanted.

    Yields:
      Places, and the raw embeddings by extractor.

    Raises:
      types.FawkesError: a shard cannot be read any more.
    """
    columns = [f"{_E}{name}" for name in extractors]
    for places, table in self._faces(columns):
      yield (
        places,
        {name: _rows(table[f"{_E}{name}"]) for name in extractors},
      )

  def boxes(self) -> Int32[np.ndarray, "n 4"]:
    """The boxes of all faces, in the order of their places.

    Raises:
      types.FawkesError: a shard cannot be read any more.
    """
    boxes = np.zeros((self.faces(), 4), np.int32)
    for places, table in self._faces(["boxes"]):
      boxes[places] = _rows(table["boxes"])
    return boxes

  def _faces(self, columns: list[str]) -> Iterator[tuple[np.ndarray, pa.Table]]:
    """Some columns of the photos with faces, a shard at a time, with places."""
    found = self._all("SELECT shard, row, faces FROM photos ORDER BY sha256")
    if not found:
      return
    number, row, count = np.array(found, np.int64).T
    place = np.cumsum(count) - count
    order = np.lexsort((row, number))
    for shard, members in itertools.groupby(order, key=lambda i: number[i]):
      own = np.fromiter(members, np.int64)
      own = own[count[own] > 0]
      if not len(own):
        continue
      table = self._table(self._shards[shard], columns).take(row[own])
      places = np.concatenate(
        [
          np.arange(p, p + c)
          for p, c in zip(place[own], count[own], strict=True)
        ]
      )
      yield places, table

  def photos(self) -> Iterator[tuple[str, int]]:
    """The sha256 and number of faces of all photos, in order."""
    after = ""
    while found := self._all(
      "SELECT sha256, faces FROM photos WHERE sha256 > ? ORDER BY sha256"
      " LIMIT 4096",
      after,
    ):
      yield from found
      after = found[-1][0]

  def tidy(self) -> None:
    """Removes shards that cannot be used."""
    self._remove(self._useless)
    self._useless = set()

  def _note(self, name: str, pairs: list[tuple[str, int]]) -> None:
    number = len(self._shards)
    self._shards.append(name)
    self._known.add(name)
    with self._data:
      self._data.executemany(
        "INSERT OR IGNORE INTO photos VALUES (?, ?, ?, ?)",
        [(sha, number, row, n) for row, (sha, n) in enumerate(pairs)],
      )

  def _names(self) -> list[str]:
    try:
      names = self._store.names(FOLDER)
    except OSError as error:
      raise self._failure(error) from error
    return [n for n in names if n.startswith(_PREFIX)]

  def _table(self, name: str, columns: list[str] | None = None) -> pa.Table:
    try:
      return self._read(name, columns)
    except (OSError, _UselessError) as error:
      raise types.FawkesError(
        f"{self._store.address}/{FOLDER}/{name} was readable before:"
        f" {error}; the same command looks at its photos again"
      ) from error

  def _read(self, name: str, columns: list[str] | None = None) -> pa.Table:
    table, said = read(self._store, f"{FOLDER}/{name}", columns)
    if self._config is not None and said.get("config") != self._config:
      raise _UselessError("of another configuration")
    return table

  def _remove(self, names: set[str]) -> None:
    try:
      for name in names:
        self._store.remove(f"{FOLDER}/{name}")
    except OSError as error:
      raise self._failure(error) from error

  def _failure(self, error: OSError) -> types.FawkesError:
    return types.FawkesError(
      f"{self._store.address}/{FOLDER} cannot be used: {files.reason(error)}"
    )

  def _all(self, query: str, *values: object) -> list[tuple]:
    with self._lock:
      return self._data.execute(query, values).fetchall()


class _UselessError(types.FawkesError):
  """A file of the index is damaged, or not of this run."""


def forget(store: storage.Store) -> int:
  """Removes all that is kept of faces, and says how many files that were.

  Raises:
    types.FawkesError: that cannot be done.
  """
  try:
    names = store.names(FOLDER)
    for name in names:
      store.remove(f"{FOLDER}/{name}")
  except OSError as error:
    raise types.FawkesError(
      f"{store.address}/{FOLDER} cannot be removed: {files.reason(error)}"
    ) from error
  return len(names)


def write(
  store: storage.Store, name: str, table: pa.Table, about: dict[str, Any]
) -> None:
  """Writes a table of the index, and what it depends on. Raises OSError."""
  text = json.dumps({"format": FORMAT} | about).encode()
  file = io.BytesIO()
  parquet.write_table(
    table.replace_schema_metadata({_META: text}),
    file,
    compression="zstd",
    # Embeddings repeat nothing.
    use_dictionary=False,
  )
  store.write(name, file.getvalue())


def read(
  store: storage.Store, name: str, columns: list[str] | None = None
) -> tuple[pa.Table, dict[str, Any]]:
  """Reads a table that `write` wrote, and what it depends on.

  Raises:
    OSError: it cannot be read.
    types.FawkesError: it is damaged, or of another version.
  """
  data = store.read(name)
  try:
    file = parquet.ParquetFile(io.BytesIO(data))
    said = json.loads((file.schema_arrow.metadata or {})[_META])
    if said["format"] != FORMAT:
      raise _UselessError("of another version of this program")
    return file.read(columns), said
  except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
    raise _UselessError("damaged") from error


def _lists(arrays: list[np.ndarray | None]) -> pa.Array:
  """Lists of numbers, or of rows of numbers, one a photo."""
  there = [a for a in arrays if a is not None and len(a)]
  offsets = np.cumsum([0, *(0 if a is None else len(a) for a in arrays)])
  if not there:
    first = next((a for a in arrays if a is not None), np.zeros(0, np.float16))
    there = [first[:0]]
  flat = np.concatenate(there)
  values = pa.array(flat.reshape(-1))
  if flat.ndim == 2:
    values = pa.FixedSizeListArray.from_arrays(values, flat.shape[1])
  return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def numbers(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
  """A column of numbers, or of as many numbers in each row."""
  if isinstance(column, pa.ChunkedArray):
    column = column.combine_chunks()
  if pa.types.is_fixed_size_list(column.type):
    size = column.type.list_size
    return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
  return column.to_numpy(zero_copy_only=False)


def _rows(column: pa.ChunkedArray) -> np.ndarray:
  """The rows of all lists of a column, one after the other."""
  return numbers(column.combine_chunks().flatten())


def _photo(table: pa.Table) -> Seen:
  """The photo of a table of one row."""
  embeddings = {
    name.removeprefix(_E): _rows(table[name])
    for name in table.column_names
    if name.startswith(_E)
  }
  likely = None
  if (found := table["likely"][0].as_py()) is not None:
    left, top, right, bottom = map(int, found[:4])
    likely = left, top, right, bottom, found[4]
  return Seen(
    path=table["path"][0].as_py(),
    sha256=table["sha256"][0].as_py(),
    smallest_face=table["smallest_face"][0].as_py(),
    boxes=_rows(table["boxes"]),
    scores=_rows(table["scores"]),
    alignments=_rows(table["alignments"]),
    embeddings=embeddings,
    likely=likely,
  )
