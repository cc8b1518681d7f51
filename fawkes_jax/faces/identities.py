"""Photos of known people, to train on or to evaluate with.

A source is a folder with a sub-folder of photos for each identity, a
TensorFlow Datasets name (`tfds:lfw`) whose examples have an image and a label,
or a folder in which a table, `faces.tsv`, says where the face of each photo is:
tab-separated, with the columns `file` and `lex`, `ley`, `rex`, `rey`, `nx`,
`ny`, `lmx`, `lmy`, `rmx`, `rmy`: the eyes, the nose and the corners of the
mouth in pixels, left and right as seen in the picture. A photo that lies in no
sub-folder is an identity of its own.
"""

import csv
import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fawkes_jax import types
from fawkes_jax.archive import datasets, files, scan
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.faces import recognition
from fawkes_jax.options import FaceOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photo:
  """A photo of a person that is not decoded yet.

  Attributes:
    identity: the person's name.
    name: the name of the photo, below its identity.
    load: decodes it; RGB, upright. Raises a `PhotoError` where it cannot be
      read.
    path: its file; None for an example of a dataset.
    landmarks: float32 [5, 2], the points of `geometry.ARCFACE_POINTS` in pixels
      (x, y); None where they have to be found.
  """

  identity: str
  name: str
  load: Callable[[], UInt8[np.ndarray, "height width 3"]]
  path: Path | None = None
  landmarks: np.ndarray | None = None


TABLE = "faces.tsv"
"""The name of the table of faces in a folder."""

_POINTS = ("le", "re", "n", "lm", "rm")


def read_all(
  data: str, faces: FaceOptions
) -> tuple[list[Photo], Callable[[], list[Any]]]:
  """Lists the photos of several sources, as `read` those of one.

  Args:
    data: sources, with commas between them.
    faces: how photos are decoded.

  Raises:
    FawkesError: a source cannot be read, or has no photo.
  """
  parts = data.split(",")
  sources = [read(part, faces) for part in parts]
  for part, (listed, _) in zip(parts, sources, strict=True):
    if not listed:
      raise types.FawkesError(
        "--data must hold photos, in a folder for each identity (links to"
        f" folders are not followed); there are none in {part}"
      )
  if len(sources) == 1:
    return sources[0]
  photos = [photo for listed, _ in sources for photo in listed]
  photos.sort(key=lambda photo: (photo.identity, photo.name))
  return photos, lambda: [fingerprint() for _, fingerprint in sources]


def read(
  data: str, faces: FaceOptions
) -> tuple[list[Photo], Callable[[], list[Any]]]:
  """Lists the photos of a source by identity and name.

  Args:
    data: a folder of identities, or `tfds:NAME`.
    faces: how photos are decoded.

  Returns:
    The photos; and what gives plain data that differs when they do, which
    reads all files of a folder.

  Raises:
    FawkesError: the source cannot be read.
  """
  if data.startswith(datasets.PREFIX):
    return _dataset(data)
  return _folder(Path(data), faces)


def _folder(
  root: Path, faces: FaceOptions
) -> tuple[list[Photo], Callable[[], list[Any]]]:
  """The photos of a folder of identities."""
  if not root.is_dir():
    raise types.FawkesError(
      f"--data must be a folder of identities, or {datasets.PREFIX}NAME; got"
      f" {root}"
    )
  photos = []
  table = _read_table(root / TABLE)
  for source in scan.scan(root):
    identity, _, name = source.relative.partition("/")
    if source.status is not None or not (name or table):
      continue
    if table and source.relative not in table:
      continue
    photos.append(
      Photo(
        identity=files.printable(identity),
        name=files.printable(name or identity),
        load=functools.partial(_pixels, source, faces),
        path=root / source.relative,
        landmarks=table.get(source.relative),
      )
    )

  def fingerprint() -> list[Any]:
    points = {k: v.tolist() for k, v in table.items()}
    listed = [(p.identity, p.name, _digest(p)) for p in photos]
    return [listed, points] if points else listed

  return photos, fingerprint


def _read_table(path: Path) -> dict[str, np.ndarray]:
  """The landmarks that a table gives, by file; none without a table."""
  if not path.is_file():
    return {}
  try:
    with path.open(encoding="utf-8", newline="") as file:
      return {
        row["file"]: np.array(
          [[float(row[point + axis]) for axis in "xy"] for point in _POINTS],
          np.float32,
        )
        for row in csv.DictReader(file, delimiter="\t")
      }
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise types.FawkesError(
      f"{path} must have the columns file, lex, ley, ..., rmy, with numbers:"
      f" {error}"
    ) from error


def _digest(photo: Photo) -> str | None:
  """Of a file's content: a copy with another time is the same photo."""
  assert photo.path is not None
  try:
    with photo.path.open("rb") as file:
      return hashlib.file_digest(file, "sha256").hexdigest()
  except OSError:
    return None  # Whoever loads it will say so.


def _pixels(
  source: SourceFile, faces: FaceOptions
) -> UInt8[np.ndarray, "height width 3"]:
  return recognition.load_photo(source, faces).pixels


def _dataset(data: str) -> tuple[list[Photo], Callable[[], list[Any]]]:
  """The photos of all splits of a dataset of TensorFlow Datasets."""
  full_name, features, splits = datasets.open_dataset(data, flag="data")
  if not {"image", "label"} <= set(getattr(features, "keys", tuple)()):
    raise types.FawkesError(
      f"--data={data} must have the features image and label, got {features}"
    )
  label = features["label"]

  def example(source: Any, index: int) -> Photo:
    value = source[index]["label"]
    text = label.int2str(value) if hasattr(label, "int2str") else value
    return Photo(
      identity=text.decode() if isinstance(text, bytes) else str(text),
      name=f"{index:08d}",
      load=lambda: np.ascontiguousarray(_rgb(source[index]["image"])),
    )

  photos = [
    dataclasses.replace(photo, name=f"{part}-{photo.name}")
    for part, source in splits.items()
    for photo in (example(source, index) for index in range(len(source)))
  ]
  photos.sort(key=lambda photo: (photo.identity, photo.name))
  return photos, lambda: [full_name, len(photos)]


def _rgb(image: np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
  """An image of one or three channels with three."""
  return np.broadcast_to(image, (*image.shape[:2], 3))
