"""The material of a training run: faces, and the embeddings of its teachers."""

import dataclasses
from typing import Any

import jax
import numpy as np
import rich.console
from jaxtyping import Float32, Int

from fawkes_jax import types
from fawkes_jax.engine import mesh as mesh_lib
from fawkes_jax.options import TWIN, TrainOptions
from fawkes_jax.training import data, teachers
from fawkes_jax.weights import variables

FITTED = 2048
"""Crops that the mean of a teacher who looks at every view is taken over, and
that the first linear maps to teachers are fitted to, at most."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Material:
  """What a run learns from.

  Attributes:
    faces: the data.
    split: which crop serves what.
    teachers: who teach.
    targets: by teacher, its embeddings of the crops plain and mirrored around
      their mean, of length one.
    centres: by teacher, that mean.
    pairs: of photos to verify, see `data.read_pairs`.
  """

  faces: data.Faces
  split: data.Split
  teachers: list[teachers.Teacher]
  targets: dict[str, Float32[np.ndarray, "2 n d"]]
  centres: dict[str, Float32[np.ndarray, " d"]]
  pairs: list[tuple[bool, str, str]]

  def looking(self, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """The teachers' networks, to look at images that are new.

    Args:
      mesh: the devices.

    Returns:
      By teacher, on every device: its "weights" and its "centre".

    Raises:
      FawkesError: a teacher is a file of embeddings and has no network.
    """
    known = {
      teacher.name: {
        "weights": teacher.looking.variables,
        "centre": self.centres[teacher.name],
      }
      for teacher in self.teachers
    }
    return mesh_lib.replicate(mesh, known)


def load(options: TrainOptions, *, console: rich.console.Console) -> Material:
  """Finds the faces, divides them, and lets the teachers look at them.

  Args:
    options: the options of the run.
    console: where progress is shown.

  Returns:
    The material.

  Raises:
    FawkesError: a file, the data or a teacher cannot be used.
  """
  # What cannot be read is said before the work, not after it.
  names = data.read_names(options.holdout) if options.holdout else frozenset()
  pairs = data.read_pairs(options.pairs) if options.pairs else []
  if options.initial is not None:
    variables.load(options.initial)
  faces = data.load_faces(options, console=console)
  split = data.split(faces, options, frozenset(names))
  known = _known(options, split)
  rows = np.concatenate([known, split.validation])
  taught = [
    teachers.load_teacher(teacher, faces, rows=rows, console=console)
    for teacher in options.teachers
  ]
  if len({teacher.name for teacher in taught}) < len(taught):
    raise types.FawkesError(
      "--teachers must have different names, got"
      f" {','.join(teacher.name for teacher in taught)}"
    )
  targets, centres = {}, {}
  for teacher in taught:
    targets[teacher.name], centres[teacher.name] = teacher.targets(known)
  return Material(
    faces=faces,
    split=split,
    teachers=taught,
    targets=targets,
    centres=centres,
    pairs=pairs,
  )


def _known(options: TrainOptions, split: data.Split) -> Int[np.ndarray, " k"]:
  """The crops to train on of which a teacher's embeddings are needed.

  The teacher of its own architecture looks at every view itself, so that some
  are enough for its mean.
  """
  rows = split.training
  if options.student != TWIN:
    return rows
  return rows[:: max(1, len(rows) // FITTED)]
