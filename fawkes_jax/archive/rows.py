"""What became of each input file, on the disk however many there are."""

import dataclasses
import json
import math
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator

STATUSES = ("cloaked", "spared", "no_face", "copied", "skipped", "failed")
_DIGITS = 6
_MANY = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
  """Where in a tar file of the output a result is.

  Attributes:
    tar: the name of the file.
    offset: of the result's first byte.
    size: in bytes.
  """

  tar: str
  offset: int
  size: int


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
    output: the output file, like `path`, where a conversion gave it another
      name; None where that is `path`.
    place: of the output in a tar file; None where it is a file itself.
    config: the fingerprint of the configuration.
    seconds: how long it took.
    finished: when the outcome was known, UTC, in ISO 8601; None in rows of
      earlier versions.
    smallest_face: the side of the smallest face that was looked for, in
      pixels of the photo; None where none was.
    faces: for each face `box`, `target` (what it approaches: `archive/`, the
      first 16 digits of the SHA-256 of a photo of the archive, and the number
      of the face in it; or the name of a stranger), `steps`, `dssim`, `linf`
      and `extractors`, a dict from name to `shift` and `cosine`; `photos`, how
      many there were of its person when it was cloaked; and `unprotected`,
      why, where its cloak came out as nearly nothing.
    lost: in words, what the input has and the output has not, such as
      "preview" or "gain map"; not what was to be stripped.
    names: whether the output's metadata say who is on it.
    decisions: where only some people are cloaked, for each face `box`,
      `cloak` (whether it is), `nearest` (of those who are meant, or whoever
      has the name that was given to the person), `likeness` to them (None for
      one with another name), its `threshold`, and `unsure`.
    likely: in a photo in which no face was found but one is likely, its `box`
      and `score`, how sure the detector is of it; None in all others.
  """

  path: str
  status: str
  reason: str | None = None
  source_sha256: str | None = None
  output_sha256: str | None = None
  output: str | None = None
  place: Place | None = None
  config: str
  seconds: float = 0.0
  finished: str | None = None
  smallest_face: float | None = None
  faces: tuple[dict, ...] = ()
  lost: tuple[str, ...] = ()
  names: bool = False
  decisions: tuple[dict, ...] = ()
  likely: dict | None = None

  def __post_init__(self):
    if self.status not in STATUSES:
      raise ValueError(f"status must be one of {STATUSES}, got {self.status}")

  @property
  def protected(self) -> list[dict]:
    """The faces whose cloak is in the output."""
    return [face for face in self.faces if not face.get("unprotected")]

  @property
  def unprotected(self) -> list[str]:
    """Why, for each face that could not be protected."""
    whys = (face.get("unprotected") for face in self.faces)
    return [why for why in whys if why]

  def to_json(self) -> str:
    """One line of JSON: floats of 6 significant digits, no NaN."""
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    if self.place is not None:
      fields["place"] = dataclasses.asdict(self.place)
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
    for name in "faces", "lost", "decisions":
      fields[name] = tuple(fields.get(name, ()))
    try:
      if fields.get("place") is not None:
        fields["place"] = Place(**fields["place"])
      return cls(**fields)
    except TypeError as error:
      raise ValueError("not a row of a manifest") from error


class Rows:
  """The last row of each path, and the paths that must have one.

  Threads may share it. It lies in a temporary file, which is gone with it.
  """

  def __init__(self):
    self._lock = threading.Lock()
    # An empty name: a temporary file, which is written only when it is large.
    self._data = sqlite3.connect("", check_same_thread=False)
    weakref.finalize(self, self._data.close)
    self._data.executescript(
      "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
      "CREATE TABLE rows (path TEXT PRIMARY KEY, line TEXT) WITHOUT ROWID;"
      "CREATE TABLE listed (path TEXT PRIMARY KEY, owner INT) WITHOUT ROWID;"
    )

  def __len__(self) -> int:
    with self._lock:
      return self._data.execute("SELECT count(*) FROM rows").fetchone()[0]

  def __iter__(self) -> Iterator[Row]:
    """All rows in the order of their paths' bytes."""
    return map(Row.from_json, self.lines())

  def lines(self) -> Iterator[str]:
    """The same as JSON; rows that are put meanwhile may be among them."""
    return self._pages(
      "SELECT path, line FROM rows WHERE path > ? ORDER BY path LIMIT ?"
    )

  def get(self, path: str) -> Row | None:
    """The row of a path, if there is one."""
    found = self._all("SELECT line FROM rows WHERE path = ?", path)
    return Row.from_json(found[0][0]) if found else None

  def put(self, rows: Iterable[Row]) -> None:
    """Adds rows, or replaces those of the same paths, in their order."""
    self.put_lines((row.path, row.to_json()) for row in rows)

  def put_lines(self, lines: Iterable[tuple[str, str]]) -> None:
    """The same with each row's path and its JSON."""
    with self._lock, self._data:
      self._data.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", lines)

  def tars(self) -> set[str]:
    """The tar files that rows name."""
    query = "SELECT DISTINCT json_extract(line, '$.place.tar') FROM rows"
    return {tar for (tar,) in self._all(query) if tar is not None}

  def expect(self, paths: Iterable[tuple[str, int]]) -> None:
    """Notes paths, and for each the process that it belongs to."""
    with self._lock, self._data:
      self._data.executemany(
        "INSERT OR REPLACE INTO listed VALUES (?, ?)", paths
      )

  def missing(self) -> dict[int, int]:
    """By process, how many of the expected paths have no row."""
    return dict(
      self._all(
        "SELECT owner, count(*) FROM listed LEFT JOIN rows USING (path)"
        " WHERE line IS NULL GROUP BY owner ORDER BY owner"
      )
    )

  def unexpected(self) -> Iterator[Row]:
    """The rows of paths that were not expected."""
    return map(
      Row.from_json,
      self._pages(
        "SELECT path, line FROM rows LEFT JOIN listed USING (path)"
        " WHERE owner IS NULL AND path > ? ORDER BY path LIMIT ?"
      ),
    )

  def _pages(self, query: str) -> Iterator[str]:
    """The lines that a query gives, some at a time."""
    after = ""
    while found := self._all(query, after, _MANY):
      yield from (line for _, line in found)
      after = found[-1][0]

  def _all(self, query: str, *values: object) -> list[tuple]:
    with self._lock:
      return self._data.execute(query, values).fetchall()


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
