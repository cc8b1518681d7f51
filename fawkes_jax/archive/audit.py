"""Compares an output folder, and its input, with what the manifest says."""

import collections
import concurrent.futures
import dataclasses
import hashlib
import os
from collections.abc import Iterator

from fawkes_jax import types
from fawkes_jax.archive import manifest, scan, stores
from fawkes_jax.archive.source import SourceFile

_AHEAD = 64
"""Files that are read before their turn."""
UNPROTECTED = "faces left unprotected"
"""A problem that doing the file again with the same options does not mend."""
_MAX_BYTES = 1 << 40
"""Whatever its size, an input file is compared."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
  """What was found about one file.

  Attributes:
    path: the path of the input file, as in the manifest.
    problem: what is wrong, in words; None if nothing is.
  """

  path: str
  problem: str | None


def audit(
  rows: manifest.Rows,
  output: str | os.PathLike,
  source: scan.Addresses | None,
) -> Iterator[Finding]:
  """Reads every file again that has an outcome, or should have.

  Args:
    rows: the rows of the manifest.
    output: the address of the folder with the results.
    source: that of the input; None to look at the results alone.

  Yields:
    One finding for each input file in the order of the listing, then one for
    each row of another file. The problems are "output missing", "output
    altered" and "faces left unprotected", and with an input "no outcome",
    "source altered" and "source cannot be read: ...". An input file that is
    gone is none: people may keep the cloaked photos only.

  Raises:
    FawkesError: the input cannot be listed.
  """
  store = stores.open_store(output)

  def listed() -> Iterator[tuple[SourceFile | None, manifest.Row | None]]:
    if source is None:
      yield from ((None, row) for row in rows)
      return
    for entry in scan.scan(source):
      rows.expect([(entry.name, 0)])
      yield entry, rows.get(entry.name)
    yield from ((None, row) for row in rows.unexpected())

  def look(entry: SourceFile | None, row: manifest.Row | None) -> Finding:
    if row is None:
      assert entry is not None
      return Finding(path=entry.name, problem="no outcome")
    problem = manifest.output_problem(row, store)
    if entry is not None and problem is None:
      problem = _source(row, entry)
    if problem is None and row.output_sha256 and row.unprotected:
      problem = UNPROTECTED
    return Finding(path=row.path, problem=problem)

  with concurrent.futures.ThreadPoolExecutor() as pool:
    ahead: collections.deque[concurrent.futures.Future[Finding]]
    ahead = collections.deque()
    for entry, row in listed():
      ahead.append(pool.submit(look, entry, row))
      if len(ahead) > _AHEAD:
        yield ahead.popleft().result()
    while ahead:
      yield ahead.popleft().result()


def _source(row: manifest.Row, entry: SourceFile) -> str | None:
  """What is wrong with the input of a row."""
  if row.source_sha256 is None or entry.status is not None:
    return None
  try:
    data = entry.read(max_bytes=_MAX_BYTES)
  except types.PhotoError as error:
    return f"source {error}"
  digest = hashlib.sha256(data).hexdigest()
  return None if digest == row.source_sha256 else "source altered"
