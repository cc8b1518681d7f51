"""Events a run reports to its observers: outcomes of files, and progress."""

import collections
import dataclasses

from fawkes_jax.archive import manifest, membership


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
  """What became of one input file.

  Attributes:
    row: its row of the manifest.
    fresh: whether this run did it, or an earlier one.
    redone: why an earlier run's result was not kept, or None.
  """

  row: manifest.Row
  fresh: bool
  redone: str | None = None

  def count(self, counts: collections.Counter[str]) -> None:
    """Adds it to the counts.

    They are "files", "faces", its status, "fresh", "fresh faces", "unprotected"
    (faces that are not cloaked, which "faces" are), "named" (see `Row.names`),
    and "lost: ..." for each thing of `Row.lost`.
    """
    faces = len(self.row.protected)
    counts["unprotected"] += len(self.row.unprotected)
    counts["files"] += 1
    counts["faces"] += faces
    counts[self.row.status] += 1
    counts["named"] += self.row.names
    counts.update(f"lost: {what}" for what in self.row.lost)
    counts["fresh"] += self.fresh
    counts["fresh faces"] += faces if self.fresh else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Risk:
  """Why a tracker may know people of an archive all the same.

  Attributes:
    what: what these people have, in words.
    people: how many they are.
    first: the names of photos that show some of them.
  """

  what: str
  people: int
  first: tuple[str, ...]


class Watcher:
  """Is told what a run does; the methods of this one do nothing."""

  def listed(self, files: int) -> None:
    """The archive was listed to its end; called from a thread.

    Args:
      files: the files of this process's share; on process 0 those of all.
    """

  def prepares(self, begins: bool) -> None:
    """Programs are being compiled, or no longer; called from a thread."""

  def looked(self) -> None:
    """One file more has been looked through for people."""

  def settled(self, outcome: Outcome) -> None:
    """The outcome of a file is known, and recorded; in no particular order."""

  def spent(self, stage: str, seconds: float) -> None:
    """So much time more was spent on a stage, see `cloak_archive`."""

  def warned(self, message: str) -> None:
    """What the user should know; called from a thread."""

  def others(self, states: list[membership.State]) -> None:
    """On process 0 of several: how far each is.

    Called from a thread now and then, and when all are done.
    """

  def risks(self, found: list[Risk]) -> None:
    """At the end, on process 0: for whom protection is at risk, and why."""


class Tally(Watcher):
  """Counts what comes of the files.

  Attributes:
    counts: see `Outcome.count`.
  """

  def __init__(self):
    self.counts: collections.Counter[str] = collections.Counter()

  def settled(self, outcome: Outcome) -> None:
    """See `Watcher`."""
    outcome.count(self.counts)
