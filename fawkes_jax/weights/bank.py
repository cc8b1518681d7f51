"""The bank of target identities that travels with the package."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float32

from fawkes_jax import types
from fawkes_jax.weights import builtin

_NAME = "target_bank.safetensors"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Bank:
  """Mean embeddings of many identities in the space of each extractor.

  Attributes:
    embeddings: by extractor, one identity a row, the same in each; raw.
  """

  embeddings: Mapping[str, Float32[np.ndarray, "k d"]]

  @property
  def centres(self) -> dict[str, Float32[np.ndarray, " d"]]:
    """By extractor, the mean identity."""
    return {name: e.mean(axis=0) for name, e in self.embeddings.items()}


def path() -> pathlib.Path:
  """Where the bank lies: in the installed package, or in a checkout."""
  return builtin.checkpoint(_NAME)


def load(
  extractors: Sequence[str], *, file: pathlib.Path | None = None
) -> Bank:
  """Loads the bank for some extractors.

  Args:
    extractors: their names.
    file: another bank than the package's.

  Returns:
    The bank with exactly these extractors.

  Raises:
    FawkesError: the file is missing or damaged, or lacks an extractor.
  """
  file = file or path()
  try:
    with safetensors.safe_open(file, framework="numpy") as tensors:
      names = set(tensors.keys())
      for name in extractors:
        if name not in names:
          raise types.FawkesError(
            f"the target bank {file} must hold every extractor; it lacks {name}"
          )
      return Bank(
        embeddings={
          name: tensors.get_tensor(name).astype(np.float32)
          for name in extractors
        }
      )
  except (OSError, safetensors.SafetensorError) as error:
    raise types.FawkesError(
      f"the target bank {file} must be a safetensors file: {error}"
    ) from error


def save(bank: Bank, file: pathlib.Path) -> None:
  """Writes a bank in half precision.

  Args:
    bank: what to write.
    file: where to; replaced.
  """
  safetensors.numpy.save_file(
    {k: v.astype(np.float16) for k, v in bank.embeddings.items()}, file
  )
