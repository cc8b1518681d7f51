"""Chooses the people of an evaluation, and finds their photos."""

import dataclasses
import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fawkes_jax import types
from fawkes_jax.archive import files
from fawkes_jax.evaluation import kept
from fawkes_jax.faces import identities
from fawkes_jax.options import EvaluateOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photo:
  """A file of a photo.

  Attributes:
    path: where it is.
    sha256: the SHA-256 of its bytes, in hexadecimal.
    person: the label of whom it shows.
    name: below a folder, IDENTITY/NAME.
  """

  path: Path
  sha256: str
  person: int
  name: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Person:
  """Somebody who takes part.

  Attributes:
    name: the name of the identity.
    label: its number.
    protected: whether its photos to train on are cloaked.
    train: photos that a tracker trains on.
    test: clean photos that the tracker is to recognise.
  """

  name: str
  label: int
  protected: bool
  train: tuple[Photo, ...]
  test: tuple[Photo, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class People:
  """Everybody.

  Attributes:
    chosen: the people of the tracker, evenly over the alphabet, every second
      one protected.
    extras: the others with enough photos.
    excluded: identities with too few photos, and how many they have.
  """

  chosen: tuple[Person, ...]
  extras: tuple[Person, ...]
  excluded: dict[str, int]

  @property
  def protected(self) -> tuple[Person, ...]:
    """Those whose photos are cloaked."""
    return tuple(person for person in self.chosen if person.protected)

  @property
  def others(self) -> tuple[Person, ...]:
    """Those of the tracker whose photos are not."""
    return tuple(person for person in self.chosen if not person.protected)

  def key(self) -> str:
    """Differs when somebody or a photo of somebody does."""
    return kept.digest(
      [
        (p.name, p.protected, [x.sha256 for x in (*p.train, *p.test)])
        for p in self.chosen
      ]
    )


def train_photos(people: Iterable[Person]) -> list[Photo]:
  """The photos to train on of several people."""
  return [photo for person in people for photo in person.train]


def test_photos(people: Iterable[Person]) -> list[Photo]:
  """The photos to recognise of several people."""
  return [photo for person in people for photo in person.test]


def choose(options: EvaluateOptions, *, extras: bool) -> People:
  """Chooses who takes part.

  Args:
    options: the options of the run.
    extras: whether people beyond the tracker's are wanted.

  Returns:
    The people; the photos of a dataset are written to the output, as PNG.

  Raises:
    FawkesError: the data cannot be read, or holds too few people with enough
      photos.
  """
  photos, _ = identities.read(options.data, options)
  by_name: dict[str, list[identities.Photo]] = {}
  for photo in photos:
    by_name.setdefault(photo.identity, []).append(photo)
  enough = options.train + options.test
  rich = [name for name in by_name if len(by_name[name]) >= enough]
  count = options.identities
  if len(rich) < count:
    raise types.FawkesError(
      f"--data must hold {count} identities (--identities) with {enough}"
      f" photos each (--train and --test), got {len(rich)} of"
      f" {len(by_name)} in {options.data}"
    )
  names = [rich[i * len(rich) // count] for i in range(count)]
  rest = [name for name in rich if name not in set(names)] if extras else []
  people = []
  for label, name in enumerate((*names, *rest)):
    wanted = by_name[name][:enough]
    written = [_write(photo, label, options) for photo in wanted]
    people.append(
      Person(
        name=name,
        label=label,
        protected=label < count and label % 2 == 0,
        train=tuple(written[: options.train]),
        test=tuple(written[options.train :]),
      )
    )
  return People(
    chosen=tuple(people[:count]),
    extras=tuple(people[count:]),
    excluded={k: len(v) for k, v in by_name.items() if len(v) < enough},
  )


def _write(
  photo: identities.Photo, label: int, options: EvaluateOptions
) -> Photo:
  """A photo as a file: its own, or a new one for an example of a dataset."""
  path, suffix = photo.path, ""
  if path is None:
    suffix = ".png"
    source = kept.digest(options.data)
    path = options.output / "photos" / source / f"{photo.name}{suffix}"
    if not path.exists():
      buffer = io.BytesIO()
      Image.fromarray(photo.load()).save(buffer, "PNG")
      files.write_atomically(path, buffer.getvalue())
  try:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
  except OSError as error:
    raise types.FawkesError(
      f"--data must be readable, got {files.printable(path)}: {error.strerror}"
    ) from error
  folder = photo.identity.replace("/", "_").lstrip(".") or "_"
  return Photo(
    path=path,
    sha256=sha256,
    person=label,
    name=f"{folder}/{photo.name}{suffix}",
  )


def stage(photos: Sequence[Photo], folder: Path) -> None:
  """Makes a folder of photos to cloak: these and no others.

  Raises:
    FawkesError: it cannot be written.
  """
  wanted = {folder / photo.name: photo for photo in photos}
  try:
    for path in folder.rglob("*"):
      if path.is_file() and path not in wanted:
        path.unlink()
    for path, photo in wanted.items():
      data = photo.path.read_bytes()
      if not path.exists() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
  except OSError as error:
    raise types.FawkesError(
      f"--output must be writable, got {files.printable(folder)}:"
      f" {error.strerror}"
    ) from error


def labels(photos: Sequence[Photo]) -> np.ndarray:
  """The labels of photos, [n]."""
  return np.array([photo.person for photo in photos], np.int64)
