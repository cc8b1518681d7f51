"""Photos of known people, to train on or to evaluate with.

A source is a folder with a sub-folder of photos for each identity, or a
TensorFlow Datasets name (`tfds:lfw`) whose examples have an image and a label.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fawkes_jax import config, recognition, types
from fawkes_jax.archive import datasets, files, scan
from fawkes_jax.archive.source import SourceFile


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photo:
  """A photo of a person that is not decoded yet.

  Attributes:
    identity: the person's name.
    name: of the photo, below its identity.
    load: decodes it; RGB, upright. Raises a `PhotoError` where it cannot be
      read.
    path: its file; None for an example of a dataset.
  """

  identity: str
  name: str
  load: Callable[[], UInt8[np.ndarray, "height width 3"]]
  path: Path | None = None


def read(
  data: str, faces: config.FaceOptions
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
  root: Path, faces: config.FaceOptions
) -> tuple[list[Photo], Callable[[], list[Any]]]:
  """The photos of a folder of identities."""
  if not root.is_dir():
    raise types.FawkesError(
      f"--data must be a folder of identities, or {datasets.PREFIX}NAME; got"
      f" {root}"
    )
  photos = []
  for source in scan.scan(root):
    identity, _, name = source.relative.partition("/")
    if source.status is not None or not name:
      continue
    photos.append(
      Photo(
        identity=files.printable(identity),
        name=files.printable(name),
        load=functools.partial(_pixels, source, faces),
        path=root / source.relative,
      )
    )
  return photos, lambda: [(p.identity, p.name, _digest(p)) for p in photos]


def _digest(photo: Photo) -> str | None:
  """Of a file's content: a copy with another time is the same photo."""
  assert photo.path is not None
  try:
    with photo.path.open("rb") as file:
      return hashlib.file_digest(file, "sha256").hexdigest()
  except OSError:
    return None  # Whoever loads it will say so.


def _pixels(
  source: SourceFile, faces: config.FaceOptions
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
