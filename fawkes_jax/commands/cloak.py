"""`fawkes-jax cloak`: cloaks a folder of photos and says what happens."""

import collections
import dataclasses
import sys
import time
from typing import Any

import jax
import rich.console
import rich.progress

from fawkes_jax import cloaker, cluster, config, outcomes, pipeline, types
from fawkes_jax.archive import files, manifest, team
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.commands import telemetry, terminal

# Plain lines, where there is no terminal, at most this often (seconds).
_LINE_EVERY = 10.0


def run(options: config.CloakOptions) -> int:
  """Cloaks the photos of a folder, or with `dry_run` counts their faces.

  Args:
    options: of the run.

  Returns:
    0, or 1 if some photo failed or some face is not protected.

  Raises:
    FawkesError: the run cannot begin or go on.
  """
  console = terminal.console()
  if options.dry_run:
    return _dry_run(options, console)
  if options.distributed:
    options = _meet(options)
  summary = _Summary()
  watchers = [summary, *telemetry.watchers(options)]
  with _Progress(console) as progress:
    watcher = telemetry.Several([*watchers, progress])
    if options.engine == "ray":
      cluster.cloak_archive(options, watcher)
    else:
      pipeline.cloak_archive(options, watcher)
  summary.show(console, options)
  return 1 if summary.counts["failed"] or summary.counts["unprotected"] else 0


def _meet(options: config.CloakOptions) -> config.CloakOptions:
  """Lets JAX find the other processes, and their number."""
  given: dict[str, Any] = {}
  if options.coordinator_address is not None:
    given = {
      "coordinator_address": options.coordinator_address,
      "num_processes": options.num_processes,
      "process_id": options.process_id,
    }
  try:
    jax.distributed.initialize(**given)
  except (RuntimeError, ValueError) as error:
    raise types.FawkesError(
      "--distributed must find the other processes (else use"
      f" --coordinator_address, or --num_processes alone): {error}"
    ) from error
  return dataclasses.replace(
    options, num_processes=jax.process_count(), process_id=jax.process_index()
  )


def _dry_run(
  options: config.CloakOptions, console: rich.console.Console
) -> int:
  """Counts faces and estimates how long cloaking them takes."""
  faces = photos = total = 0
  reasons: collections.Counter[str] = collections.Counter()
  with _Progress(console) as progress:

    def report(_: SourceFile, found: int | str) -> None:
      nonlocal faces, photos, total
      total += 1
      if isinstance(found, str):
        reasons[found] += 1
      else:
        faces += found
        photos += found > 0
      progress.advance(found if isinstance(found, int) else 0)

    started = time.monotonic()
    pipeline.count_faces(options, report)
    finding = time.monotonic() - started
  solving = 0.0
  if faces:
    engine = cloaker.Cloaker(options, photos=total)
    solving = faces * engine.seconds_per_face()
  console.print(
    f"{total} files, {photos} photos with {faces} faces; cloaking them takes"
    f" about {terminal.duration(finding + solving)} here, nothing was written"
  )
  terminal.show_counts(console, reasons)
  return 0


def _of_process(options: config.CloakOptions) -> str:
  if options.num_processes == 1:
    return ""
  return f", process {options.process_id} of {options.num_processes}"


class _Summary(outcomes.Tally):
  """Counts outcomes and averages what was measured on the saved files."""

  def __init__(self):
    super().__init__()
    self.reasons: collections.Counter[str] = collections.Counter()
    self.redone: collections.Counter[str] = collections.Counter()
    self.earlier_failed = 0
    self.dssim = 0.0
    self.shift: collections.Counter[str] = collections.Counter()
    self.started = time.monotonic()
    self._everybody: list[team.State] = []

  def others(self, states: list[team.State]) -> None:
    """See `outcomes.Watcher`."""
    self._everybody = states

  def settled(self, outcome: outcomes.Outcome) -> None:
    """See `outcomes.Watcher`."""
    super().settled(outcome)
    row = outcome.row
    self.earlier_failed += row.status == "failed" and not outcome.fresh
    if row.reason:
      self.reasons[f"{row.status}: {row.reason}"] += 1
    if outcome.redone:
      self.redone[outcome.redone] += 1
    for why in row.unprotected:
      self.reasons[f"faces left unprotected: {why}"] += 1
    for face in row.protected:
      self.dssim += face["dssim"]
      for name, measured in face["extractors"].items():
        self.shift[name] += measured["shift"]

  def show(
    self, console: rich.console.Console, options: config.CloakOptions
  ) -> None:
    seconds = time.monotonic() - self.started
    files_ = self.counts["files"]
    output = files.printable(options.output)
    if not files_:
      console.print(
        f"--input={files.printable(options.input)} holds no files"
        f"{_of_process(options)}: nothing to do"
      )
      return
    console.print(
      f"{_statuses(self.counts)} in {terminal.duration(seconds)}"
      f"{_of_process(options)}: {output}"
    )
    if earlier := files_ - self.counts["fresh"]:
      console.print(f"  {earlier} of them by an earlier run")
    if self.earlier_failed:
      console.print(
        f"  {self.earlier_failed} failed in an earlier run; --retry_failed"
        " tries them again"
      )
    for why, count in self.redone.most_common():
      console.print(f"  {count} done again: {why}")
    if faces := self.counts["faces"]:
      shifts = ", ".join(
        f"shift {total / faces:.3f} ({name})"
        for name, total in self.shift.items()
      )
      console.print(
        f"  {faces} faces, mean DSSIM {self.dssim / faces:.4f}, {shifts}"
      )
    terminal.show_counts(console, self.reasons)
    if self._everybody:
      counts: collections.Counter[str] = collections.Counter()
      for state in self._everybody:
        counts.update(state.counts)
      console.print(
        f"all {len(self._everybody)} processes: {_statuses(counts)},"
        f" {counts['faces']} faces"
      )


def _statuses(counts: collections.Counter[str]) -> str:
  """How many files ended in which status."""
  return terminal.counted(
    collections.Counter({s: counts[s] for s in manifest.STATUSES if counts[s]})
  )


class _Progress(outcomes.Watcher):
  """A progress bar on a terminal, plain lines elsewhere.

  Process 0 of several shows how far all are together.
  """

  def __init__(self, console: rich.console.Console):
    self._total: int | None = None
    self._photos = self._faces = self._seen = 0
    self._others: list[team.State] = []
    self._started = self._said = time.monotonic()
    self._bar: rich.progress.Progress | None = None
    self._console = console
    if console.is_terminal:
      self._bar = rich.progress.Progress(
        rich.progress.TextColumn("{task.fields[photos]} photos"),
        rich.progress.TextColumn("{task.fields[faces]} faces"),
        rich.progress.TextColumn("{task.fields[seen]}"),
        rich.progress.BarColumn(),
        rich.progress.TextColumn("{task.fields[rate]:.2f} photos/s"),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("left"),
        rich.progress.TimeRemainingColumn(),
        console=console,
      )

  def __enter__(self) -> "_Progress":
    if self._bar:
      self._bar.start()
      self._task = self._bar.add_task(
        "", total=None, photos="0", faces=0, seen="", rate=0.0
      )
    return self

  def __exit__(self, *error: object) -> None:
    if self._bar:
      self._bar.stop()
    sys.stdout.flush()

  def listed(self, files: int) -> None:
    """See `outcomes.Watcher`."""
    self._total = files
    if self._bar:
      self._bar.update(self._task, total=files)
    else:
      self._console.print(f"{files} files")

  def warned(self, message: str) -> None:
    """See `outcomes.Watcher`."""
    self._console.print(message)

  def others(self, states: list[team.State]) -> None:
    """See `outcomes.Watcher`."""
    self._others = [state for state in states if state.process]
    self._say()

  def looked(self) -> None:
    """See `outcomes.Watcher`."""
    self._seen += 1
    self._say()

  def settled(self, outcome: outcomes.Outcome) -> None:
    """See `outcomes.Watcher`."""
    self.advance(len(outcome.row.protected) if outcome.fresh else 0)

  def advance(self, faces: int) -> None:
    """One file more is done."""
    self._photos += 1
    self._faces += faces
    self._say()

  def _say(self) -> None:
    now = time.monotonic()
    photos = self._photos + sum(s.counts.get("files", 0) for s in self._others)
    faces = self._faces + sum(s.counts.get("faces", 0) for s in self._others)
    rate = photos / max(now - self._started, 1e-3)
    of = "" if self._total is None else f"/{self._total}"
    # The workers of a cluster do not say.
    seen = f"{self._seen} looked through" if self._seen else ""
    if self._bar:
      self._bar.update(
        self._task,
        completed=photos,
        photos=f"{photos}{of}",
        faces=faces,
        seen=seen,
        rate=rate,
      )
    elif now - self._said >= _LINE_EVERY:
      self._said = now
      left = ""
      if photos and self._total is not None:
        seconds = (self._total - photos) / rate
        left = f", {terminal.duration(seconds)} left"
      self._console.print(
        f"{photos}{of} photos, {faces} faces, {seen}{', ' if seen else ''}"
        f"{rate:.2f} photos/s{left}"
      )
