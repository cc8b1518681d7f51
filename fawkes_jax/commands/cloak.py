"""`fawkes-jax cloak`: cloaks a folder of photos and says what happens."""

import collections
import sys
import time

import rich.console
import rich.progress
import rich.table

from fawkes_jax import cloaker, config, pipeline
from fawkes_jax.archive import files, scan
from fawkes_jax.commands import terminal

# Plain lines, where there is no terminal, at most this often (seconds).
_LINE_EVERY = 10.0


def run(options: config.CloakOptions) -> int:
  """Cloaks the photos of a folder, or with `dry_run` counts their faces.

  Args:
    options: of the run.

  Returns:
    0, or 1 if some photo failed.

  Raises:
    FawkesError: the run cannot begin or go on.
  """
  console = terminal.console()
  total = sum(1 for _ in scan.scan(options.input))
  if not total:
    console.print(
      f"--input={files.printable(options.input)} holds no files: nothing to do"
    )
    return 0
  if options.dry_run:
    return _dry_run(options, console, total)
  summary = _Summary()
  with _Progress(console, total) as progress:

    def report(outcome: pipeline.Outcome) -> None:
      summary.add(outcome)
      progress.advance(len(outcome.row.faces) if outcome.fresh else 0)

    pipeline.cloak_archive(options, report, look=progress.look)
  summary.show(console, options)
  return 1 if summary.statuses["failed"] else 0


def _dry_run(
  options: config.CloakOptions, console: rich.console.Console, total: int
) -> int:
  """Counts faces and estimates how long cloaking them takes."""
  faces = photos = 0
  reasons: collections.Counter[str] = collections.Counter()
  with _Progress(console, total) as progress:

    def report(_: scan.SourceFile, found: int | str) -> None:
      nonlocal faces, photos
      if isinstance(found, str):
        reasons[found] += 1
      else:
        faces += found
        photos += found > 0
      progress.advance(found if isinstance(found, int) else 0)

    started = time.monotonic()
    pipeline.count_faces(options, report)
    finding = time.monotonic() - started
  solving = faces and faces * cloaker.Cloaker(options).seconds_per_face()
  console.print(
    f"{total} files, {photos} photos with {faces} faces; cloaking them takes"
    f" about {terminal.duration(finding + solving)} here, nothing was written"
  )
  terminal.show_counts(console, reasons)
  return 0


class _Summary:
  """Counts outcomes and averages what was measured on the saved files."""

  def __init__(self):
    self.statuses: collections.Counter[str] = collections.Counter()
    self.reasons: collections.Counter[str] = collections.Counter()
    self.redone: collections.Counter[str] = collections.Counter()
    self.earlier = self.earlier_failed = 0
    self.faces = 0
    self.dssim = 0.0
    self.shift: collections.Counter[str] = collections.Counter()
    self.started = time.monotonic()

  def add(self, outcome: pipeline.Outcome) -> None:
    row = outcome.row
    self.statuses[row.status] += 1
    self.earlier += not outcome.fresh
    self.earlier_failed += row.status == "failed" and not outcome.fresh
    if row.reason:
      self.reasons[f"{row.status}: {row.reason}"] += 1
    if outcome.redone:
      self.redone[outcome.redone] += 1
    for face in row.faces:
      self.faces += 1
      self.dssim += face["dssim"]
      for name, measured in face["extractors"].items():
        self.shift[name] += measured["shift"]

  def show(
    self, console: rich.console.Console, options: config.CloakOptions
  ) -> None:
    seconds = time.monotonic() - self.started
    counts = ", ".join(f"{n} {s}" for s, n in self.statuses.most_common())
    output = files.printable(options.output)
    console.print(f"{counts} in {terminal.duration(seconds)}: {output}")
    if self.earlier:
      console.print(f"  {self.earlier} of them by an earlier run")
    if self.earlier_failed:
      console.print(
        f"  {self.earlier_failed} failed in an earlier run; --retry_failed"
        " tries them again"
      )
    for why, count in self.redone.most_common():
      console.print(f"  {count} done again: {why}")
    if self.faces:
      shifts = ", ".join(
        f"shift {total / self.faces:.3f} ({name})"
        for name, total in self.shift.items()
      )
      console.print(
        f"  {self.faces} faces, mean DSSIM {self.dssim / self.faces:.4f},"
        f" {shifts}"
      )
    terminal.show_counts(console, self.reasons)


class _Progress:
  """A progress bar on a terminal, plain lines elsewhere."""

  def __init__(self, console: rich.console.Console, total: int):
    self._total = total
    self._photos = self._faces = self._seen = 0
    self._started = self._said = time.monotonic()
    self._bar = None
    self._console = console
    if console.is_terminal:
      self._bar = rich.progress.Progress(
        rich.progress.TextColumn(
          "{task.completed:.0f}/{task.total:.0f} photos"
        ),
        rich.progress.TextColumn("{task.fields[faces]} faces"),
        rich.progress.TextColumn("{task.fields[seen]} looked through"),
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
        "", total=self._total, faces=0, seen=0, rate=0.0
      )
    else:
      self._console.print(f"{self._total} files")
    return self

  def __exit__(self, *error: object) -> None:
    if self._bar:
      self._bar.stop()
    sys.stdout.flush()

  def look(self) -> None:
    """One file more has been looked through."""
    self._seen += 1
    self._say()

  def advance(self, faces: int) -> None:
    """One file more is done."""
    self._photos += 1
    self._faces += faces
    self._say()

  def _say(self) -> None:
    now = time.monotonic()
    rate = self._photos / max(now - self._started, 1e-3)
    if self._bar:
      self._bar.update(
        self._task,
        completed=self._photos,
        faces=self._faces,
        seen=self._seen,
        rate=rate,
      )
    elif now - self._said >= _LINE_EVERY:
      self._said = now
      left = ""
      if self._photos:
        seconds = (self._total - self._photos) / rate
        left = f", {terminal.duration(seconds)} left"
      self._console.print(
        f"{self._photos}/{self._total} photos, {self._faces} faces,"
        f" {self._seen} looked through, {rate:.2f} photos/s{left}"
      )
