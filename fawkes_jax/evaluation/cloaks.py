"""Cloaked photos of the people of an evaluation, made once and kept."""

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fawkes_jax import version
from fawkes_jax.archive import files, manifest, scan
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.evaluation import kept, people, trackers
from fawkes_jax.evaluation.bars import Bars
from fawkes_jax.faces import recognition
from fawkes_jax.options import CloakOptions, EvaluateOptions, SolverOptions
from fawkes_jax.runs import pipeline
from fawkes_jax.weights import catalogue


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


class Wardrobe:
  """Cloaks people's photos, unless that is done."""

  def __init__(
    self,
    options: EvaluateOptions,
    everybody: people.People,
    bars: Bars,
  ):
    """Cloaks nothing yet.

    Args:
      options: the options of the run.
      everybody: who takes part.
      bars: show progress.
    """
    self._options = options
    self._people = everybody
    self._bars = bars
    self._known: dict[str, Cloaks] = {}

  def recipes(self) -> list[Recipe]:
    """The cloaks of the modes."""
    return [
      Recipe(name=mode, solver=self._options.solver(mode))
      for mode in self._options.modes
    ]

  def surrogates(self, recipe: Recipe) -> tuple[str, ...]:
    """The networks that cloaks are made against."""
    return recipe.extractors or self._options.extractors

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
      self._people.protected if whom is None else whom
    )
    run = self._run(recipe, group)
    key = kept.digest(str(run.output), [photo.sha256 for photo in photos])
    if key not in self._known:
      people.stage(photos, self._options.output / "photos" / group)
      self._make(run, f"cloaking, {recipe.name}")
      self._known[key] = _read(run, photos)
    return self._known[key]

  def _run(self, recipe: Recipe, group: str) -> CloakOptions:
    """The run of the cloaking pipeline for a recipe."""
    root, surrogates = self._options.output, self.surrogates(recipe)
    run = self._options.cloak(
      recipe.solver, root / "photos" / group, root, extractors=surrogates
    )
    # Beside the flags: what files hold, and how the package computes.
    key = kept.digest(
      run.fingerprint(),
      version.__version__,
      [_content(str(name)) for name in (*surrogates, self._options.bank or "")],
    )
    return dataclasses.replace(run, output=root / "cloaks" / key / group)

  def _make(self, run: CloakOptions, title: str) -> None:
    """Cloaks what is not cloaked yet, and notes how long it took."""
    sources = list(scan.scan(run.input))
    with manifest.Manifest(run.output) as record:
      if all(_is_done(record, source, run) for source in sources):
        return
    started = time.monotonic()
    with self._bars.cloaking(title, len(sources)) as watcher:
      pipeline.cloak_archive(run, watcher)
    output = Path(run.output)
    note = _read_note(output)
    note["faces"] += watcher.counts["fresh faces"]
    note["seconds"] += time.monotonic() - started
    files.write_atomically(_note(output), json.dumps(note).encode())


def relation(identity: str, surrogates: Sequence[str]) -> str:
  """What cloaks have seen of a recogniser.

  Args:
    identity: the identity of the recogniser.
    surrogates: the networks that the cloaks are made against.

  Returns:
    "yes" where they are made against itself, "its student" where they are
    made against a network that it taught, else "no".
  """
  if identity in map(trackers.identity, surrogates):
    return "yes"
  if any(identity in catalogue.teachers(name) for name in surrogates):
    return "its student"
  return "no"


def _content(name: str) -> str | None:
  """The sha256 of a surrogate's or bank's file; None for what is built in."""
  path = catalogue.file_of(name)
  with contextlib.suppress(OSError):
    return catalogue.file_digest(path) if path else None
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


def _read(run: CloakOptions, photos: Sequence[people.Photo]) -> Cloaks:
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
