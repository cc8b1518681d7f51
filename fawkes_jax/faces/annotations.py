"""Photos whose faces are known: annotations.tsv and faces.tsv."""

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from fawkes_jax import types

BOXES = "annotations.tsv"
"""The table of a folder of photos with many faces each."""

FACES = "faces.tsv"
"""The table of a folder of photos with one face each."""

SAME = 0.4
"""A box is that of a face if so much of their union is shared."""

_SIDES = ("left", "top", "right", "bottom")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Annotated:
  """A photo and its faces.

  Attributes:
    path: of the photo.
    boxes: left, top, right, bottom in pixels.
    ignored: boxes that nobody must find, and that are no error to find.
    labels: the other columns of the table, by face.
  """

  path: Path
  boxes: Float32[np.ndarray, "n 4"]
  ignored: Bool[np.ndarray, " n"]
  labels: list[dict[str, str]] = dataclasses.field(default_factory=list)


def photos(folder: Path) -> list[Annotated]:
  """The photos of a folder with annotations.tsv.

  Args:
    folder: its table has the columns file, left, top, right, bottom, and
      perhaps others; difficulty says "ignore" of what nobody must find.
      Files are relative to it, or to its folder images.

  Returns:
    The photos, by name.

  Raises:
    FawkesError: the table cannot be read, or names what is not there.
  """
  table = folder / BOXES
  by_file: dict[str, list[tuple[list[float], dict[str, str]]]] = {}
  for row, box in _rows(table):
    by_file.setdefault(row["file"], []).append((box, row))
  found = []
  for name, faces in sorted(by_file.items()):
    path = folder / name
    if not path.exists():
      path = folder / "images" / name
    if not path.exists():
      raise types.FawkesError(f"{table}: {name} must be beside it")
    found.append(
      Annotated(
        path=path,
        boxes=np.array([box for box, _ in faces], np.float32),
        ignored=np.array(
          [row.get("difficulty") == "ignore" for _, row in faces]
        ),
        labels=[row for _, row in faces],
      )
    )
  return found


def single_faces(folder: Path) -> list[Annotated]:
  """The photos of a folder with faces.tsv, one face each.

  Args:
    folder: its table has the columns file, left, top, right, bottom.

  Returns:
    The photos, in the table's order.

  Raises:
    FawkesError: the table cannot be read.
  """
  return [
    Annotated(
      path=folder / row["file"],
      boxes=np.array([box], np.float32),
      ignored=np.zeros(1, bool),
    )
    for row, box in _rows(folder / FACES)
  ]


def _rows(table: Path) -> Iterator[tuple[dict[str, str], list[float]]]:
  """The rows of a table, and the boxes in them."""
  try:
    with table.open(encoding="utf-8-sig", newline="") as file:
      reader = csv.DictReader(file, delimiter="\t")
      for name in ("file", *_SIDES):
        if name not in (reader.fieldnames or ()):
          raise types.FawkesError(f"{table} must have a column {name}")
      for row in reader:
        try:
          numbers = [float(row[name]) for name in _SIDES]
        except (TypeError, ValueError) as error:
          raise types.FawkesError(
            f"{table}, line {reader.line_num}: {', '.join(_SIDES)} must be"
            " numbers"
          ) from error
        yield row, numbers
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise types.FawkesError(f"{table} must be readable: {error}") from error
