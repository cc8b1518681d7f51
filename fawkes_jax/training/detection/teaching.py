"""What a teacher says of annotated photos: where the landmarks are."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from PIL import Image

from fawkes_jax.archive import files
from fawkes_jax.faces.annotations import Annotated
from fawkes_jax.models import yunet
from fawkes_jax.xla import compiler

_SCALES = (1, 2)
"""Photos are also looked at magnified: it finds landmarks of smaller faces."""

_THRESHOLD = 0.3
_SAME = 0.4
"""A face is an annotated one if this much of the union is shared."""


def with_landmarks(
  photos: Sequence[Annotated],
  variables: dict[str, Any],
  *,
  kept: Path,
) -> list[Annotated]:
  """Photos with the landmarks of the faces that a teacher finds.

  What it finds beside the annotated faces is added as ignored.

  Args:
    photos: with boxes.
    variables: of `yunet.YuNet`.
    kept: a file that keeps what it says, for the next time.

  Returns:
    The photos, in the same order.
  """
  names = "\n".join(f"{photo.path.name} {len(photo.boxes)}" for photo in photos)
  digest = hashlib.sha256(names.encode()).hexdigest()
  found = _read(kept, digest)
  if found is None:
    found = [
      yunet.Faces(*map(np.concatenate, zip(*faces, strict=True)))
      for faces in _looked(photos, variables)
    ]
    arrays = {
      f"{i}/{name}": getattr(faces, name)
      for i, faces in enumerate(found)
      for name in yunet.Faces._fields
    }
    files.write_atomically(
      kept, safetensors.numpy.save(arrays, {"photos": digest})
    )
  return [
    _joined(photo, faces) for photo, faces in zip(photos, found, strict=True)
  ]


def _read(path: Path, digest: str) -> list[yunet.Faces] | None:
  """What was kept of the same photos; None where nothing was."""
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      if (file.metadata() or {}).get("photos") != digest:
        return None
      count = len(file.keys()) // len(yunet.Faces._fields)
      return [
        yunet.Faces(
          *(file.get_tensor(f"{i}/{name}") for name in yunet.Faces._fields)
        )
        for i in range(count)
      ]
  except (OSError, safetensors.SafetensorError):
    return None


def _looked(
  photos: Sequence[Annotated], variables: dict[str, Any]
) -> Iterator[list[yunet.Faces]]:
  """The faces that are found in each photo, by scale."""
  look = compiler.jit(lambda v, images: yunet.YuNet().apply(v, images))
  for photo in photos:
    with Image.open(photo.path) as file:
      image = file.convert("RGB")
    found = []
    for scale in _SCALES:
      size = (round(image.width * scale), round(image.height * scale))
      larger = image.resize(size, Image.Resampling.BICUBIC)
      # Few sides, for few compilations.
      rows, columns = (-(-side // 128) * 128 for side in size[::-1])
      pixels = np.zeros((1, rows, columns, 3), np.float32)
      pixels[0, : size[1], : size[0]] = np.asarray(larger)
      grids = jax.device_get(look(variables, pixels))
      [faces] = yunet.decode(grids, threshold=_THRESHOLD, overlap=0.4)
      found.append(
        yunet.Faces(faces.boxes / scale, faces.points / scale, faces.scores)
      )
    yield found


def _joined(photo: Annotated, found: yunet.Faces) -> Annotated:
  """The photo with the landmarks of what was found, and what it adds."""
  points = photo.points.copy()
  other = np.ones(len(found.scores), bool)
  for i, box in enumerate(photo.boxes):
    shared = yunet.overlaps(box, found.boxes)
    other &= shared < _SAME / 2
    likely = np.where(shared > _SAME, found.scores, 0)
    if len(likely) and likely.max() > 0:
      points[i] = found.points[np.argmax(likely)]
  boxes = found.boxes[other]
  return dataclasses.replace(
    photo,
    boxes=np.concatenate([photo.boxes, boxes]),
    points=np.concatenate(
      [points, np.full((len(boxes), 5, 2), np.nan, np.float32)]
    ),
    ignored=np.concatenate([photo.ignored, np.ones(len(boxes), bool)]),
  )
