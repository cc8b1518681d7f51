"""`fawkes-jax cloak`: cloaks a folder of photos and says what happens."""

import collections
import contextlib
import dataclasses
import os
import posixpath
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import rich.console
import rich.progress

from fawkes_jax import types
from fawkes_jax.archive import (
  files,
  manifest,
  membership,
  scan,
  storage,
  stores,
)
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.commands import concerns, report, telemetry, terminal
from fawkes_jax.faces import cloaker
from fawkes_jax.options import CloakOptions, FaceOptions, ReportOptions
from fawkes_jax.reporting import gathering
from fawkes_jax.runs import outcomes, pipeline, ray_cluster, triage
from fawkes_jax.weights import ensembles

_WORDS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
_PREPARING = "preparing, about 30 s more on the first run"

# Suffixes of the same format.
_SAME_KIND = {
  **dict.fromkeys((".jpeg", ".jpe", ".jfif"), ".jpg"),
  ".tif": ".tiff",
  ".heif": ".heic",
}

# Plain lines, where there is no terminal, at most this often (seconds).
_LINE_EVERY = 10.0


# Measured in mode mid, see docs/protection.md.
_MORE = (
  "  the strongest recogniser that we tested, in mode mid, still knew 4 to 28 %"
  " of the photos of ten people who were cloaked in one run, and 40 to 50 % of"
  " somebody's who was cloaked alone; of small JPEGs 22 to 30 % and 76 to 90 %",
  "  for more networks to cloak against: `fawkes-jax weights fetch free`, then"
  " --surrogates=free",
)


def run(options: CloakOptions) -> int:
  """Cloaks the photos of a folder, or with `dry_run` counts their faces.

  Args:
    options: of the run.

  Returns:
    0, or 1 if some photo failed or some face is not protected.

  Raises:
    FawkesError: the run cannot begin or go on.
  """
  options = ensembles.resolved(options)
  console = terminal.console()
  if options.dry_run:
    return _dry_run(options, console)
  if options.distributed:
    options = _meet(options)
  if _names_a_photo(options):
    with tempfile.TemporaryDirectory(prefix=files.TEMPORARY_PREFIX) as folder:
      inside = dataclasses.replace(options, output=folder)
      code = _run(inside, console, shown=options.output)
      _take_out(Path(folder), options)
      return code
  return _run(options, console, shown=options.output)


def _run(
  options: CloakOptions,
  console: rich.console.Console,
  *,
  shown: str | os.PathLike,
) -> int:
  """Cloaks photos, and says that the results are where they are shown."""
  summary = _Summary()
  watchers = [summary, *telemetry.watchers(options)]
  with Progress(console) as progress:
    watcher = telemetry.Several([*watchers, progress])
    if options.engine == "ray":
      ray_cluster.cloak_archive(options, watcher)
    else:
      pipeline.cloak_archive(options, watcher)
  summary.show(console, dataclasses.replace(options, output=shown))
  if options.report and not options.process_id:
    report.run(ReportOptions(input=options.input, output=options.output))
  if summary.counts["faces"] and options.extractors == FaceOptions.extractors:
    for line in _MORE:
      console.print(line)
  return 1 if summary.counts["failed"] or summary.counts["unprotected"] else 0


def _names_a_photo(options: CloakOptions) -> bool:
  """Whether the output is the file of a single photo, and no folder.

  Raises:
    types.FawkesError: the file is there, or cannot be what it is called.
  """
  output = os.fspath(options.output)
  if not triage.is_photo_name(output) or os.path.isdir(output):
    return False
  flag = f"--output={files.printable(output)}"
  if options.report:
    raise types.FawkesError(f"{flag} must be a folder for --report")
  if not scan.is_one_file(options.input) or options.num_processes > 1:
    raise types.FawkesError(f"{flag} must be a folder for more than one photo")
  assert isinstance(options.input, str | os.PathLike)
  kinds = [
    _SAME_KIND.get(suffix, suffix)
    for suffix in (
      os.path.splitext(name)[1].lower() for name in (options.input, output)
    )
  ]
  if kinds[0] != kinds[1]:
    raise types.FawkesError(
      f"{flag} must end in {kinds[0]}: a photo keeps its format"
    )
  store, name = _parent(output)
  with contextlib.suppress(OSError):
    store.open(name).close()
    raise types.FawkesError(
      f"{flag} must not be there yet; move it away, or choose another name"
    )
  return True


def _parent(output: str) -> tuple[storage.Store, str]:
  folder, name = posixpath.split(output)
  return stores.open_store(folder or "."), name


def _take_out(folder: Path, options: CloakOptions) -> None:
  """Moves the result of a single photo to where it belongs.

  Raises:
    types.FawkesError: it cannot be written.
  """
  store, name = _parent(os.fspath(options.output))
  for path in folder.iterdir():
    if path.name not in manifest.RESERVED:
      try:
        store.write_file(name, path, files.stamp(path))
      except OSError as error:
        raise types.FawkesError(
          f"{files.printable(options.output)} cannot be written:"
          f" {files.reason(error)}"
        ) from error


def _meet(options: CloakOptions) -> CloakOptions:
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


def _dry_run(options: CloakOptions, console: rich.console.Console) -> int:
  """Counts faces and estimates how long cloaking them takes."""
  faces = photos = total = 0
  reasons: collections.Counter[str] = collections.Counter()
  started = time.monotonic()
  with Progress(console) as progress:

    def told(_: SourceFile, found: int | str) -> None:
      nonlocal faces, photos, total
      total += 1
      if isinstance(found, str):
        reasons[found] += 1
      else:
        faces += found
        photos += found > 0
      progress.advance(found if isinstance(found, int) else 0)

    pipeline.count_faces(options, told)
    seconds = time.monotonic() - started
    if faces:
      progress.prepares(True)
      engine = cloaker.Cloaker(options, photos=total)
      seconds += engine.seconds_for(faces)
  console.print(
    f"{terminal.number(total, 'file')}, {terminal.number(photos, 'photo')} with"
    f" {terminal.number(faces, 'face')}; cloaking them takes about"
    f" {terminal.duration(seconds)} here, nothing was written"
  )
  terminal.show_counts(console, reasons)
  return 0


def _of_process(options: CloakOptions) -> str:
  if options.num_processes == 1:
    return ""
  return f", process {options.process_id} of {options.num_processes}"


class _Summary(outcomes.Tally):
  """Counts outcomes and averages what was measured on the saved files."""

  def __init__(self):
    super().__init__()
    self.concerns = concerns.Concerns()
    self.redone: collections.Counter[str] = collections.Counter()
    self.altered: list[str] = []
    self.earlier_failed = 0
    self.dssim = self.alike = 0.0
    self.extractors: set[str] = set()
    self.started = time.monotonic()
    self._everybody: list[membership.State] = []
    self._risks: list[outcomes.Risk] = []

  def risks(self, found: list[outcomes.Risk]) -> None:
    """See `outcomes.Watcher`."""
    self._risks = found

  def others(self, states: list[membership.State]) -> None:
    """See `outcomes.Watcher`."""
    self._everybody = states

  def settled(self, outcome: outcomes.Outcome) -> None:
    """See `outcomes.Watcher`."""
    super().settled(outcome)
    row = outcome.row
    self.earlier_failed += row.status == "failed" and not outcome.fresh
    self.concerns.add(row)
    if outcome.redone:
      self.redone[outcome.redone] += 1
      if outcome.redone == "output altered":
        self.altered.append(row.path)
        del self.altered[terminal.NAMES :]
    for face in row.protected:
      self.dssim += face["dssim"]
      self.alike += gathering.likeness(face) or 0.0
      self.extractors.update(face["extractors"])

  def show(self, console: rich.console.Console, options: CloakOptions) -> None:
    seconds = time.monotonic() - self.started
    files_ = self.counts["files"]
    output = files.printable(options.output)
    if not files_:
      console.print(
        f"--input={scan.shown(options.input)} holds no files"
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
    for path in self.altered:
      console.print(f"    {path}")
    if more := self.redone["output altered"] - len(self.altered):
      console.print(f"    and {more} more")
    if faces := self.counts["faces"]:
      self._show_faces(console, faces)
    terminal.show_metadata(console, self.counts)
    self.concerns.show(console, output)
    for risk in self._risks:
      who = "1 person has" if risk.people == 1 else f"{risk.people} people have"
      rest = ("...",) if risk.people > len(risk.first) else ()
      seen = ", ".join((*risk.first, *rest))
      console.print(f"  at risk: {who} {risk.what} ({seen})")
    if self._everybody:
      counts: collections.Counter[str] = collections.Counter()
      for state in self._everybody:
        counts.update(state.counts)
      console.print(
        f"all {len(self._everybody)} processes: {_statuses(counts)},"
        f" {terminal.number(counts['faces'], 'face')}"
      )

  def _show_faces(self, console: rich.console.Console, faces: int) -> None:
    """How well they are protected, in plain words and in numbers."""
    many = len(self.extractors)
    looks = "looks" if faces == 1 else "look"
    console.print(
      f"  {terminal.number(faces, 'face')} {looks}"
      f" {100 * (1 - self.alike / faces):.0f} % less like the person to"
      f" {_WORDS.get(many, many)} recogniser{'' if many == 1 else 's'}"
      " that cloaks are made against"
    )
    console.print(
      f"  measured on the saved files: mean DSSIM {self.dssim / faces:.4f}"
    )


def _statuses(counts: collections.Counter[str]) -> str:
  """How many files ended in which status."""
  return terminal.counted(
    collections.Counter({s: counts[s] for s in manifest.STATUSES if counts[s]})
  )


class Progress(outcomes.Watcher):
  """A progress bar on a terminal, plain lines elsewhere.

  Process 0 of several shows how far all are together.
  """

  def __init__(self, console: rich.console.Console):
    self._total: int | None = None
    self._photos = self._faces = self._seen = self._cloaked = 0
    self._others: list[membership.State] = []
    self._clock = _Clock()
    self._said = time.monotonic()
    self._bar: rich.progress.Progress | None = None
    self._console = console
    if console.is_terminal:
      self._bar = rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(bar_width=12),
        rich.progress.TimeElapsedColumn(),
        console=console,
      )

  def __enter__(self) -> "Progress":
    if self._bar:
      self._bar.start()
      self._task = self._bar.add_task(_PREPARING, total=None)
    else:
      self._console.print(_PREPARING)
    return self

  def __exit__(self, *error: object) -> None:
    if self._bar:
      self._bar.stop()
    self._console.file.flush()

  def listed(self, files: int) -> None:
    """See `outcomes.Watcher`."""
    self._total = files
    if not self._bar:
      self._console.print(terminal.number(files, "file"))
    self._say()

  def warned(self, message: str) -> None:
    """See `outcomes.Watcher`."""
    self._console.print(message)

  def others(self, states: list[membership.State]) -> None:
    """See `outcomes.Watcher`."""
    self._others = [state for state in states if state.process]
    self._say()

  def prepares(self, begins: bool) -> None:
    """See `outcomes.Watcher`."""
    self._clock.prepares(begins)
    self._say(at_once=begins)

  def looked(self) -> None:
    """See `outcomes.Watcher`."""
    if not self._seen:
      self._clock.prepares(False)
    self._seen += 1
    self._clock.looked()
    self._say()

  def settled(self, outcome: outcomes.Outcome) -> None:
    """See `outcomes.Watcher`."""
    faces = len(outcome.row.protected) if outcome.fresh else 0
    self._cloaked += faces > 0
    self.advance(faces)

  def advance(self, faces: int) -> None:
    """One file more is done."""
    if not self._seen and not self._photos:
      self._clock.prepares(False)
    self._photos += 1
    self._faces += faces
    self._say()

  def _left(self, photos: int) -> float | None:
    """How many seconds the rest takes; None where that cannot be told yet."""
    if self._total is None or not photos:
      return None
    if self._others or not self._seen:
      # The workers of a cluster do not say what they have looked through.
      return (self._total - photos) * self._clock.seconds() / photos
    return self._clock.left(
      total=self._total,
      looked=self._seen,
      settled=self._photos,
      cloaked=self._cloaked,
    )

  def _say(self, *, at_once: bool = False) -> None:
    now = time.monotonic()
    if not self._bar and now - self._said < _LINE_EVERY and not at_once:
      return
    self._said = now
    photos = self._photos + sum(s.counts.get("files", 0) for s in self._others)
    faces = self._faces + sum(s.counts.get("faces", 0) for s in self._others)
    of = "" if self._total is None else f" of {self._total}"
    many = photos if self._total is None else self._total
    parts = []
    if self._clock.preparing:
      parts.append(_PREPARING)
    elif self._seen and self._cloaked == 0 and self._seen != self._total:
      parts.append("looking for faces")
    elif self._seen:
      parts.append("cloaking")
    if photos or self._seen:
      parts.append(f"{photos}{of} file{'' if many == 1 else 's'} done")
      parts.append(terminal.number(faces, "face"))
    if self._seen > photos:
      parts.append(f"{self._seen} looked through")
    if photos and not self._clock.preparing:
      parts.append(f"{photos / max(self._clock.seconds(), 1e-3):.2f} files/s")
    left = None if self._clock.preparing else self._left(photos)
    if left is not None and photos != self._total:
      parts.append(f"about {terminal.duration(left)} left")
    text = ", ".join(parts)
    if self._bar:
      self._bar.update(
        self._task, total=self._total, completed=photos, description=text
      )
    elif text:
      self._console.print(text)


class _Clock:
  """How fast a run is, apart from what it does only once."""

  def __init__(self, now: Callable[[], float] = time.monotonic):
    self._now = now
    self._began = self._since = now()
    self._prepared = 0.0
    self._looked = 0.0
    self._solving = 0.0
    self._first: float | None = None
    self.preparing = True

  def seconds(self) -> float:
    """Since the begin, without what was spent on preparations."""
    now = self._now()
    waited = now - self._since if self.preparing else 0.0
    return now - self._began - self._prepared - waited

  def prepares(self, begins: bool) -> None:
    """Preparations begin, or have ended."""
    if begins == self.preparing:
      return
    now = self._now()
    if not begins:
      self._prepared += now - self._since
    self._since, self.preparing = now, begins
    if not begins:
      self._solving = self.seconds()

  def looked(self) -> None:
    """One file more was looked through."""
    self._looked = self.seconds()

  def left(
    self, *, total: int, looked: int, settled: int, cloaked: int
  ) -> float | None:
    """How many seconds the rest takes; None where that cannot be told yet.

    Args:
      total: the number of files.
      looked: how many were looked through for faces.
      settled: of how many it is known what became of them.
      cloaked: how many of these were cloaked just now.
    """
    looking = (total - looked) * self._looked / looked
    with_faces = looked - settled + cloaked
    if with_faces <= 0:
      return looking
    spent = self.seconds() - self._solving
    if not cloaked:
      return None
    if self._first is None:
      self._first = spent
    # The first ones that are solved together end together.
    if spent < 1.2 * self._first:
      return None
    rest = with_faces / looked * total - cloaked
    return max(looking, rest * spent / cloaked)
