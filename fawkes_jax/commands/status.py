"""`fawkes-jax status`: how far a run is, while it runs or afterwards."""

import collections
import datetime
from collections.abc import Iterable

from fawkes_jax import config
from fawkes_jax.archive import files, manifest, scan
from fawkes_jax.commands import terminal

_WINDOW = datetime.timedelta(minutes=10)
"""The rate is that of the last outcomes, of so much time at most."""


def run(options: config.StatusOptions) -> int:
  """Counts outcomes, and files that have none yet.

  Args:
    options: of the run.

  Returns:
    0.

  Raises:
    FawkesError: there is no manifest, or the input cannot be listed.
  """
  console = terminal.console()
  rows, notes, running = manifest.peek(options.output)
  for note in notes:
    console.print(note)
  statuses = collections.Counter(row.status for row in rows.values())
  faces = sum(len(row.faces) for row in rows.values())
  console.print(
    f"{len(rows)} outcomes ({terminal.counted(statuses)}), {faces} faces in"
    f" {files.printable(options.output)}"
  )
  terminal.show_counts(
    console,
    collections.Counter(
      f"{row.status}: {row.reason}" for row in rows.values() if row.reason
    ),
  )
  rate = _rate(row.finished for row in rows.values())
  said = "a process is writing" if running else "no process is writing"
  if rate:
    said += f", {rate:.2f} photos/s"
    said += " of late" if running else " when one last did"
  if options.input is not None:
    left = sum(source.name not in rows for source in scan.scan(options.input))
    said += f", {left} left"
    if rate and left:
      said += f", {terminal.duration(left / rate)}"
  console.print(f"  {said}")
  return 0


def _rate(finished: Iterable[str | None]) -> float | None:
  """Outcomes a second before the newest; None where that cannot be told."""
  times = sorted(
    datetime.datetime.fromisoformat(time) for time in finished if time
  )
  late = [time for time in times if time >= times[-1] - _WINDOW]
  spent = (late[-1] - late[0]).total_seconds() if late else 0.0
  return (len(late) - 1) / spent if spent else None
