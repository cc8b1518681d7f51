"""Which files of an archive need a person's attention, and why."""

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


class Concerns:
  """Counts reasons, and keeps the first names."""

  def __init__(self):
    self._reasons: collections.Counter[str] = collections.Counter()
    self._copied: collections.Counter[str] = collections.Counter()
    self._count = 0
    self._first: list[str] = []

  def add(self, row: manifest.Row) -> None:
    """Takes a file into account."""
    for line in lines(row):
      self._count += 1
      if len(self._first) < terminal.NAMES:
        self._first.append(line)
    if row.status == "copied":
      self._copied[posixpath.splitext(row.path)[1].lower() or "no suffix"] += 1
    elif row.reason:
      self._reasons[f"{row.status}: {row.reason}"] += 1

  def show(self, console: rich.console.Console, output: str) -> None:
    """Says it all.

    Args:
      console: where to.
      output: the folder with the results.
    """
    named = self._count <= len(self._first)
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
        f"  {terminal.number(copied, 'other file')} copied as they were, with"
        f" any faces in them ({kinds}{more}); --others=skip leaves them out"
      )
    for line in self._first:
      console.print(f"  {line}")
    if not named:
      command = f"fawkes-jax status --failed --output={shlex.quote(output)}"
      console.print(f"  and {self._count - len(self._first)} more: {command}")


def lines(row: manifest.Row) -> Iterator[str]:
  """A line for each concern about a file."""
  for what, why in of(row):
    yield f"{what}: {row.path}: {why}"
