"""Compares an output folder, and its input, with what the manifest says."""

import collections
import concurrent.futures
import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

from fawkes_jax.archive import manifest, scan

_AHEAD = 64
"""Files that are read before their turn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
  """What was found about one file.

  Attributes:
    path: of the input file, as in the manifest.
    problem: what is wrong, in words; None if nothing is.
  """

  path: str
  problem: str | None


def audit(
  rows: dict[str, manifest.Row], output: Path, source: Path | None
) -> Iterator[Finding]:
  """Reads every file again that has an outcome, or should have.

  Args:
    rows: of the manifest, by path.
    output: the folder with the results.
    source: the input; None to look at the results alone.

  Yields:
    One finding for each row in the order of paths, and one for each input file
    without a row. The problems are "output missing" and "output altered",
    and with an input "no outcome", "source altered" and "source cannot be read:
    ...". An input file that is gone is none: people
    may keep the cloaked photos only.

  Raises:
    FawkesError: the input cannot be listed.
  """
  entries = {} if source is None else {e.name: e for e in scan.scan(source)}
  names = sorted(rows.keys() | entries.keys())

  def look(name: str) -> Finding:
    row, entry = rows.get(name), entries.get(name)
    problem = "no outcome" if row is None else row.output_problem(output)
    if row and entry and problem is None:
      problem = _source(row, entry)
    return Finding(path=name, problem=problem)

  with concurrent.futures.ThreadPoolExecutor() as pool:
    ahead: collections.deque[concurrent.futures.Future[Finding]]
    ahead = collections.deque()
    for name in names:
      ahead.append(pool.submit(look, name))
      if len(ahead) > _AHEAD:
        yield ahead.popleft().result()
    while ahead:
      yield ahead.popleft().result()


def _source(row: manifest.Row, entry: scan.SourceFile) -> str | None:
  """What is wrong with the input of a row."""
  if row.source_sha256 is None or entry.status is not None:
    return None
  try:
    digest = hashlib.sha256(entry.path.read_bytes()).hexdigest()
  except OSError as error:
    return f"source cannot be read: {error.strerror or error}"
  return None if digest == row.source_sha256 else "source altered"
