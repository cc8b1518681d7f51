"""The files of an archive that need a person's attention, with reasons."""

import collections
import posixpath
import shlex
from collections.abc import Iterator

import rich.console

from fawkes_jax.archive import manifest
from fawkes_jax.commands import terminal

_KINDS = 5
"""So many suffixes of files that were copied are named."""


def of(row: manifest.Row) -> Iterator[tuple[str, str]]:
  """What a person should know of a file: in a word, and why."""
  if row.status == "failed":
    yield "failed", row.reason or "for an unknown reason"
  elif row.unprotected:
    yield "unprotected", row.reason or row.unprotected[0]
  if row.likely is not None:
    what = "left out" if row.output_sha256 is None else "copied"
    yield what, f"no face was found, but one is likely {_where(row.likely)}"
  # Previews would show the clean face, so that they go without saying.
  lost = [what for what in row.lost if what != "preview"]
  if lost:
    yield "altered", f"without its {', '.join(lost)}"


class Concerns:
  """Counts reasons, and keeps the first names."""

  def __init__(self):
    self._reasons: collections.Counter[str] = collections.Counter()
    self._copied: collections.Counter[str] = collections.Counter()
    self._counts: collections.Counter[str] = collections.Counter()
    self._unprotected: collections.Counter[str] = collections.Counter()
    self._first: collections.defaultdict[str, list[str]]
    self._first = collections.defaultdict(list)
    self._smallest: list[float] = []

  def add(self, row: manifest.Row) -> None:
    """Takes a file into account."""
    self._unprotected.update(row.unprotected)
    if (side := row.smallest_face) is not None:
      self._smallest = [
        min([side, *self._smallest]),
        max([side, *self._smallest]),
      ]
    for what, why in of(row):
      self._counts[what] += 1
      if len(self._first[what]) < terminal.NAMES:
        self._first[what].append(_line(row, what, why))
    if row.status == "copied":
      self._copied[posixpath.splitext(row.path)[1].lower() or "no suffix"] += 1
    elif row.reason and (row.status == "failed" or not row.unprotected):
      self._reasons[f"{row.status}: {row.reason}"] += 1

  def show(self, console: rich.console.Console, output: str) -> None:
    """Says it all.

    Args:
      console: where to.
      output: the folder with the results.
    """
    for why, faces in self._unprotected.most_common():
      console.print(
        f"  {terminal.number(faces, 'face')} left unprotected: {why}"
      )
    named = self._counts["failed"] <= terminal.NAMES
    terminal.show_counts(
      console,
      collections.Counter(
        {
          reason: count
          for reason, count in self._reasons.items()
          # Those that are named have their reason beside the name.
          if not (named and reason.startswith("failed: "))
        }
      ),
    )
    if copied := self._copied.total():
      kinds = terminal.counted(
        collections.Counter(dict(self._copied.most_common(_KINDS)))
      )
      more = ", ..." if len(self._copied) > _KINDS else ""
      console.print(
        f"  {terminal.number(copied, 'other file')} copied unchanged, faces"
        f" and all ({kinds}{more}); --others=skip leaves such files out"
      )
    if self._smallest:
      low, high = (f"{side:.0f}" for side in self._smallest)
      sides = low if low == high else f"{low} to {high}"
      console.print(
        f"  faces smaller than {sides} pixels were not looked for"
        " (--min_face_pixels)"
      )
    for concern, first in self._first.items():
      for line in first:
        console.print(f"  {line}")
      if rest := self._counts[concern] - len(first):
        command = f"fawkes-jax status --failed --output={shlex.quote(output)}"
        console.print(f"  {concern}: {rest} more, see {command}")


def lines(row: manifest.Row) -> Iterator[str]:
  """A line for each concern about a file."""
  for what, why in of(row):
    yield _line(row, what, why)


def _where(likely: dict) -> str:
  left, top, right, bottom = likely["box"]
  return f"at {left},{top} to {right},{bottom}"


def _line(row: manifest.Row, what: str, why: str) -> str:
  return f"{what}: {row.path}: {why}"
