"""`fawkes-jax status`: reports the progress of a run."""

import collections
import datetime
import os
import socket

from fawkes_jax import types
from fawkes_jax.archive import (
  files,
  manifest,
  membership,
  scan,
  storage,
  stores,
)
from fawkes_jax.commands import concerns, terminal
from fawkes_jax.options import StatusOptions

_WINDOW = 600
"""The rate is that of the last outcomes, of so many seconds at most."""
_SILENCE = 12 * membership.BEAT_SECONDS
"""A process that has said nothing for so many seconds has died."""


def run(options: StatusOptions) -> int:
  """Counts outcomes, and files that have none yet.

  Args:
    options: the options of the run.

  Returns:
    0.

  Raises:
    FawkesError: there is no manifest, or the input cannot be listed.
  """
  console = terminal.console()
  rows, notes, running = manifest.peek(options.output)
  for note in notes:
    console.print(note)
  statuses: collections.Counter[str] = collections.Counter()
  found = concerns.Concerns()
  faces = 0
  seconds: collections.Counter[int] = collections.Counter()
  for row in rows:
    statuses[row.status] += 1
    faces += len(row.protected)
    found.add(row)
    if row.finished:
      finished = datetime.datetime.fromisoformat(row.finished)
      seconds[int(finished.timestamp())] += 1
  output = files.printable(options.output)
  console.print(
    f"{terminal.number(len(rows), 'outcome')} ({terminal.counted(statuses)}),"
    f" {terminal.number(faces, 'face')} in {output}"
  )
  if options.failed:
    for row in rows:
      for line in concerns.lines(row):
        console.print(f"  {line}")
    return 0
  found.show(console, output)
  states = _states(options.output)
  for state in states:
    if state.processes > 1:
      console.print(f"  {_said(state)}")
  # Where there are locks, they know of this machine's processes.
  here = None if storage.is_remote(options.output) else socket.gethostname()
  running = running or any(_lives(s) for s in states if s.host != here)
  rate = _rate(seconds)
  said = "a process is writing" if running else "no process is writing"
  if rate:
    said += f", {rate:.2f} photos/s"
    said += " of late" if running else " when one last did"
  if options.input is not None:
    rows.expect((source.name, 0) for source in scan.scan(options.input))
    left = sum(rows.missing().values())
    said += f", {left} left"
    if rate and left:
      said += f", {terminal.duration(left / rate)}"
  console.print(f"  {said}")
  return 0


def _rate(seconds: collections.Counter[int]) -> float | None:
  """Outcomes a second before the newest; None where that cannot be told."""
  newest = max(seconds, default=0)
  late = [s for s in seconds if s >= newest - _WINDOW]
  spent = max(late) - min(late) if late else 0
  return (sum(seconds[s] for s in late) - 1) / spent if spent else None


def _states(output: str | os.PathLike) -> list[membership.State]:
  """What the processes of a run that has not ended have said last."""
  try:
    return membership.read(stores.open_store(output))
  except OSError as error:
    raise types.FawkesError(
      f"--output must be readable, got {files.printable(output)}:"
      f" {files.reason(error)}"
    ) from error


def _age(state: membership.State) -> float:
  """Seconds since a process said something, if the clocks agree."""
  now = datetime.datetime.now(datetime.UTC)
  return (now - datetime.datetime.fromisoformat(state.time)).total_seconds()


def _lives(state: membership.State) -> bool:
  return state.state == "running" and abs(_age(state)) < _SILENCE


def _said(state: membership.State) -> str:
  done = state.counts.get("files", 0)
  what = state.state
  if state.state == "running":
    what = "running" if _lives(state) else "silent"
    what += f", last heard of {terminal.duration(_age(state))} ago"
  return (
    f"process {state.process} of {state.processes}: {done} outcomes, {what}"
  )
