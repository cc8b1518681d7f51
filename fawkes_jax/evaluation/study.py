"""An evaluation's people, cloaks and features, computed once and kept."""

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import rich.progress
from jaxtyping import Float, Int, UInt8

from fawkes_jax import types, version
from fawkes_jax.archive import files, manifest, scan
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.evaluation import detectors, kept, people, quality, trackers
from fawkes_jax.evaluation.countermeasures import COUNTERMEASURES
from fawkes_jax.faces import recognition
from fawkes_jax.options import CloakOptions, EvaluateOptions, SolverOptions
from fawkes_jax.photos import codec
from fawkes_jax.runs import outcomes, pipeline
from fawkes_jax.weights import extractors

# What a photo becomes without --countermeasures.
CLEAN = "none"

# Experiments that look at people beyond those of the tracker.
_WIDE = {"identities", "adaptive"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """How an experiment's cloaks are made.

  Attributes:
    name: in the results.
    solver: its options.
    extractors: the surrogates; None for those of the run.
  """

  name: str
  solver: SolverOptions
  extractors: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Cloaks:
  """What people publish.

  Attributes:
    key: differs when a published photo does.
    photos: what is published of each photo; without those that failed.
    statuses: how many photos were cloaked, had no face, failed.
    failed: names of the photos that failed or in which no face was found.
    faces: how many faces were cloaked.
    rate: faces a second; None where that was not measured.
  """

  key: str
  photos: Mapping[people.Photo, people.Photo]
  statuses: Mapping[str, int]
  failed: tuple[str, ...]
  faces: int
  rate: float | None

  def published(self, photos: Sequence[people.Photo]) -> list[people.Photo]:
    """What is published of photos, without those that failed."""
    return [self.photos[photo] for photo in photos if photo in self.photos]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Features:
  """Features of the photos in which a tracker found a face.

  Attributes:
    x: the features, [n, d].
    labels: of the people they show, [n].
  """

  x: Float[np.ndarray, "n d"]
  labels: Int[np.ndarray, " n"]

  def __add__(self, other: "Features") -> "Features":
    """Both together."""
    return Features(
      x=np.concatenate([self.x, other.x]),
      labels=np.concatenate([self.labels, other.labels]),
    )

  def mapped(
    self,
    function: Callable[[Float[np.ndarray, "n d"]], Float[np.ndarray, "n d"]],
  ) -> "Features":
    """The same faces with other features."""
    return Features(x=function(self.x), labels=self.labels)

  def of(self, labels: Sequence[int] | np.ndarray) -> "Features":
    """Those of some people."""
    rows = np.isin(self.labels, labels)
    return Features(x=self.x[rows], labels=self.labels[rows])


class Study:
  """Everything that experiments share.

  Attributes:
    options: of the run.
    people: who takes part.
    trackers: the recognisers.
    memory: results of earlier runs.
  """

  def __init__(self, options: EvaluateOptions, console: rich.console.Console):
    """Chooses the people and loads the trackers; cloaks nothing yet.

    Raises:
      FawkesError: the data, a tracker or a runtime cannot be used.
    """
    self.options = options
    self._console = console
    self._tables: dict[str, kept.Table] = {}
    self._cloaks: dict[str, Cloaks] = {}
    self._dlib = detectors.Dlib()
    self._detector: detectors.Detector = self._dlib
    if options.detector is not None:
      self._detector = detectors.YuNet(options.detector)
    self.trackers = [self.tracker(name) for name in options.trackers]
    self.memory = kept.Memory(options.output / "results")
    console.print(f"choosing people of {options.data}")
    self.people = people.choose(
      options, extras=bool(_WIDE & set(options.experiments))
    )
    _check_free(options, self.people)

  def tracker(self, name: str) -> trackers.Tracker:
    """Loads a tracker.

    Raises:
      FawkesError: it cannot be used.
    """
    return trackers.load(name, self._dlib, self._detector)

  def key(
    self, tracker: trackers.Tracker, cloaks: Cloaks, *parts: Any
  ) -> list[Any]:
    """What results of a tracker and of cloaks depend on, and more parts."""
    return [
      version.__version__,
      self.people.key(),
      tracker.key,
      cloaks.key,
      self.options.heads,
      self.options.draws,
      *parts,
    ]

  def recipes(self) -> list[Recipe]:
    """The cloaks of the modes."""
    return [
      Recipe(name=mode, solver=self.options.solver(mode))
      for mode in self.options.modes
    ]

  def relation(self, tracker: trackers.Tracker, recipe: Recipe) -> str:
    """What cloaks that were made so have seen of a recogniser.

    Returns:
      "yes" where they are made against itself, "its student" where they are
      made against a network that it taught, else "no".
    """
    names = recipe.extractors or self.options.extractors
    if tracker.identity in map(trackers.identity, names):
      return "yes"
    if any(tracker.identity in extractors.teachers(name) for name in names):
      return "its student"
    return "no"

  def cloak(
    self, recipe: Recipe, whom: Sequence[people.Person] | None = None
  ) -> Cloaks:
    """Cloaks the photos that people publish, unless that is done.

    Args:
      recipe: how.
      whom: people who are not protected but whose cloaks are wanted; None for
        the protected.

    Returns:
      What they publish.

    Raises:
      FawkesError: a surrogate cannot be used, or the output not be written.
    """
    group = "protected" if whom is None else "others"
    photos = people.train_photos(
      self.people.protected if whom is None else whom
    )
    run = self._cloak_options(recipe, group)
    known = kept.digest(str(run.output), [photo.sha256 for photo in photos])
    if known not in self._cloaks:
      people.stage(photos, self.options.output / "photos" / group)
      self._make(run, f"cloaking, {recipe.name}")
      self._cloaks[known] = _read_cloaks(run, photos)
    return self._cloaks[known]

  def _cloak_options(self, recipe: Recipe, group: str) -> CloakOptions:
    """The run of the cloaking pipeline for a recipe."""
    root = self.options.output
    extractors = recipe.extractors or self.options.extractors
    run = self.options.cloak(
      recipe.solver, root / "photos" / group, root, extractors=extractors
    )
    # Beside the flags: what files hold, and how the package computes.
    key = kept.digest(
      run.fingerprint(),
      version.__version__,
      [_content(str(name)) for name in (*extractors, self.options.bank or "")],
    )
    return dataclasses.replace(run, output=root / "cloaks" / key / group)

  def _make(self, run: CloakOptions, title: str) -> None:
    """Cloaks what is not cloaked yet, and notes how long it took."""
    sources = list(scan.scan(run.input))
    with manifest.Manifest(run.output) as record:
      if all(_is_done(record, source, run) for source in sources):
        return
    if not self._console.is_terminal:
      self._console.print(f"{title}: {len(sources)} photos")
    started = time.monotonic()
    with _progress(self._console) as progress:
      task = progress.add_task(title, total=len(sources))
      watcher = _Advancing(progress, task)
      pipeline.cloak_archive(run, watcher)
    output = Path(run.output)
    note = _read_note(output)
    note["faces"] += watcher.counts["fresh faces"]
    note["seconds"] += time.monotonic() - started
    files.write_atomically(_note(output), json.dumps(note).encode())

  def table(self, name: str, key: str) -> kept.Table:
    """A table of vectors that is kept between runs."""
    file = f"{name}-{key}"
    if file not in self._tables:
      path = self.options.output / "features" / f"{file}.npz"
      self._tables[file] = kept.Table(path)
    return self._tables[file]

  def rows(
    self,
    tracker: trackers.Tracker,
    photos: Sequence[people.Photo],
    countermeasure: str = CLEAN,
  ) -> list[Float[np.ndarray, " d"] | None]:
    """A tracker's features of photos; None where it finds no face."""
    table = self.table(tracker.name, tracker.key)
    faces = self._faces(tracker.detector)

    def compute(photo: people.Photo) -> Callable[[], np.ndarray | None]:
      def embed() -> np.ndarray | None:
        pixels = _pixels(photo, self.options)
        if pixels is None:
          return None
        pixels = COUNTERMEASURES[countermeasure](pixels)
        face = self._face(tracker.detector, photo, countermeasure, pixels)
        return None if face is None else tracker.embed(pixels, face)

      return embed

    wanted = {_row_key(photo, countermeasure): photo for photo in photos}
    todo = [photo for key, photo in wanted.items() if key not in table]
    for photo in self._track(todo, f"looking, {tracker.name}"):
      table.get(_row_key(photo, countermeasure), compute(photo))
    table.save()
    faces.save()
    return [
      table.get(_row_key(photo, countermeasure), compute(photo))
      for photo in photos
    ]

  def features(
    self,
    tracker: trackers.Tracker,
    photos: Sequence[people.Photo],
    countermeasure: str = CLEAN,
  ) -> Features:
    """A tracker's features of the photos in which it finds a face."""
    rows = self.rows(tracker, photos, countermeasure)
    found = [i for i, row in enumerate(rows) if row is not None]
    return self._features(tracker, rows, photos, found)

  def _features(
    self,
    tracker: trackers.Tracker,
    rows: Sequence[np.ndarray | None],
    photos: Sequence[people.Photo],
    found: Sequence[int],
  ) -> Features:
    """The rows with these numbers."""
    width = self.table(tracker.name, tracker.key).width
    if not width:
      raise types.FawkesError(
        f"--trackers: {tracker.name} must find a face, got none in"
        f" {len(photos)} photos"
      )
    return Features(
      x=np.array([rows[i] for i in found]).reshape(len(found), width),
      labels=people.labels([photos[i] for i in found]),
    )

  def pairs(
    self,
    tracker: trackers.Tracker,
    photos: Sequence[people.Photo],
    cloaks: Cloaks,
  ) -> tuple[Features, Features]:
    """Features of photos and of what is published of them.

    Only of photos in which the tracker finds a face before and after.
    """
    photos = [photo for photo in photos if photo in cloaks.photos]
    before = self.rows(tracker, photos)
    after = self.rows(tracker, cloaks.published(photos))
    both = [
      i
      for i, (a, b) in enumerate(zip(before, after, strict=True))
      if a is not None and b is not None
    ]
    return (
      self._features(tracker, before, photos, both),
      self._features(tracker, after, photos, both),
    )

  def not_found(
    self, tracker: trackers.Tracker, photos: Sequence[people.Photo]
  ) -> list[str]:
    """The names of the photos in which a tracker finds no face."""
    rows = self.rows(tracker, photos)
    return [
      photo.name for photo, row in zip(photos, rows, strict=True) if row is None
    ]

  def visibility(
    self, photos: Sequence[people.Photo], cloaks: Cloaks
  ) -> Float[np.ndarray, "n 3"]:
    """DSSIM, change of colour and of the file's size, of published photos.

    Args:
      photos: as they were.
      cloaks: as they are published.

    Returns:
      A row for each photo in which dlib finds the face: scikit-image's DSSIM
      and the mean absolute change of a* and b* (CIELAB), both in dlib's box,
      and the size of the file divided by that before.
    """
    table = self.table("visibility", self._dlib.key)
    photos = [photo for photo in photos if photo in cloaks.photos]

    def compute(photo: people.Photo) -> Callable[[], np.ndarray | None]:
      def measure() -> np.ndarray | None:
        after = cloaks.photos[photo]
        before = _pixels(photo, self.options)
        saved = _pixels(after, self.options)
        if before is None or saved is None:
          return None
        face = self._face(self._dlib, photo, CLEAN, before)
        if face is None:
          return None
        ratio = after.path.stat().st_size / photo.path.stat().st_size
        return np.array([*quality.visibility(before, saved, face.box), ratio])

      return measure

    def key(photo: people.Photo) -> str:
      return f"{photo.sha256} {cloaks.photos[photo].sha256}"

    todo = [photo for photo in photos if key(photo) not in table]
    for photo in self._track(todo, "measuring"):
      table.get(key(photo), compute(photo))
    table.save()
    self._faces(self._dlib).save()
    rows = [table.get(key(photo), compute(photo)) for photo in photos]
    return np.array([row for row in rows if row is not None]).reshape(-1, 3)

  def face(
    self, tracker: trackers.Tracker, photo: people.Photo
  ) -> tuple[UInt8[np.ndarray, "height width 3"], detectors.Face] | None:
    """The pixels of a photo and the face that a tracker finds in it."""
    pixels = _pixels(photo, self.options)
    if pixels is None:
      return None
    face = self._face(tracker.detector, photo, CLEAN, pixels)
    return None if face is None else (pixels, face)

  def _faces(self, detector: detectors.Detector) -> kept.Table:
    return self.table(f"faces-{detector.name}", detector.key)

  def _face(
    self,
    detector: detectors.Detector,
    photo: people.Photo,
    countermeasure: str,
    pixels: UInt8[np.ndarray, "height width 3"],
  ) -> detectors.Face | None:
    """What a detector finds in a photo."""

    def find() -> np.ndarray | None:
      face = detector.find(pixels)
      return None if face is None else face.flat()

    row = self._faces(detector).get(_row_key(photo, countermeasure), find)
    return None if row is None else detectors.Face.from_flat(row)

  def _track(self, todo: Sequence[Any], title: str) -> Any:
    """The items, with a bar where there is something to do."""
    if not todo:
      return todo
    if not self._console.is_terminal:
      self._console.print(f"{title}: {len(todo)} photos")
      return todo
    return rich.progress.track(todo, title, console=self._console)


class _Advancing(outcomes.Tally):
  """Shows how many photos are done."""

  def __init__(
    self, progress: rich.progress.Progress, task: rich.progress.TaskID
  ):
    super().__init__()
    self._progress = progress
    self._task = task

  def settled(self, outcome: outcomes.Outcome) -> None:
    """See `outcomes.Watcher`."""
    super().settled(outcome)
    self._progress.advance(self._task)


def _check_free(options: EvaluateOptions, everybody: people.People) -> None:
  """Makes sure that the output is not within the data."""
  for photo in people.train_photos(everybody.chosen)[:1]:
    if not photo.path.is_relative_to(options.output / "photos"):
      scan.check_output(Path(options.data), options.output, flag="data")


def _content(name: str) -> str | None:
  """The sha256 of a surrogate's or bank's file; None for what is built in."""
  path = extractors.file_of(name)
  with contextlib.suppress(OSError):
    return trackers.file_digest(path) if path else None
  return None


def _is_done(
  record: manifest.Manifest, source: SourceFile, run: CloakOptions
) -> bool:
  """Whether nothing is left to do for a photo."""
  sha256 = hashlib.sha256(recognition.read(source)).hexdigest()
  why = manifest.why_unfinished(
    record.rows.get(source.name),
    record.store,
    source_sha256=sha256,
    config=run.fingerprint(),
  )
  return why is None


def _read_cloaks(run: CloakOptions, photos: Sequence[people.Photo]) -> Cloaks:
  """What the manifest of a run says of some photos."""
  published, statuses, failed, faces = {}, dict[str, int](), [], 0
  output = Path(run.output)
  with manifest.reading(output) as (rows, _):
    outcomes = {row.path: row for row in rows}
  for photo in photos:
    row = outcomes[files.printable(photo.name)]
    statuses[row.status] = statuses.get(row.status, 0) + 1
    faces += len(row.faces)
    if row.status != "cloaked":
      failed.append(f"{photo.name}: {row.reason or row.status}")
    if row.output_sha256 is not None:
      published[photo] = dataclasses.replace(
        photo, path=output / photo.name, sha256=row.output_sha256
      )
  note = _read_note(output)
  return Cloaks(
    key=kept.digest([photo.sha256 for photo in published.values()]),
    photos=published,
    statuses=statuses,
    failed=tuple(failed),
    faces=faces,
    rate=note["faces"] / note["seconds"] if note["faces"] else None,
  )


def _note(output: Path) -> Path:
  """Where the speed of a run is noted."""
  return output.with_name(f"{output.name}.json")


def _read_note(output: Path) -> dict[str, float]:
  with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
    note = json.loads(_note(output).read_text())
    return {name: float(note[name]) for name in ("faces", "seconds")}
  return {"faces": 0.0, "seconds": 0.0}


def _row_key(photo: people.Photo, countermeasure: str) -> str:
  return f"{photo.sha256} {countermeasure}"


def _pixels(
  photo: people.Photo, options: EvaluateOptions
) -> UInt8[np.ndarray, "height width 3"] | None:
  """A decoded photo; None where that is impossible."""
  try:
    data = files.read_source(photo.path, max_bytes=1 << 30)
    return codec.decode(data, max_pixels=options.max_pixels).pixels
  except (OSError, types.PhotoError):
    return None


def _progress(console: rich.console.Console) -> rich.progress.Progress:
  return rich.progress.Progress(
    rich.progress.TextColumn("{task.description}"),
    rich.progress.BarColumn(),
    rich.progress.MofNCompleteColumn(),
    rich.progress.TimeElapsedColumn(),
    rich.progress.TimeRemainingColumn(),
    console=console,
  )
