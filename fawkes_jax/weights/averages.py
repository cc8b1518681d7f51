"""Averaged faces, which stand for the people of the bank.

The bank (`weights/bank.py`) has embeddings of its identities for the extractors
that the package knows. For any other one they are computed from what lies in
`checkpoints/averaged_faces.safetensors`: its identities in groups of four or
more people who look alike, and the mean picture of each group, which shows
nobody (`docs/make_averaged_faces.py` makes it).
"""

import dataclasses
import pathlib

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Int32, UInt8

from fawkes_jax import types
from fawkes_jax.weights import builtin

_NAME = "averaged_faces.safetensors"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AveragedFaces:
  """See the module's docstring.

  Attributes:
    faces: RGB, the square `geometry.CROP`, one group a row.
    groups: the groups of each identity of the bank.
  """

  faces: UInt8[np.ndarray, "g size size 3"]
  groups: Int32[np.ndarray, " k"]


def path() -> pathlib.Path:
  """Where they lie: in the installed package, or in a checkout."""
  return builtin.checkpoint(_NAME)


def load() -> AveragedFaces:
  """Loads the averaged faces.

  Raises:
    FawkesError: the file is missing or damaged.
  """
  try:
    return AveragedFaces(**safetensors.numpy.load_file(path()))
  except (OSError, TypeError, safetensors.SafetensorError) as error:
    raise types.FawkesError(
      f"{path()} must be a safetensors file of averaged faces: {error}"
    ) from error
