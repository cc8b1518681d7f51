"""The bank of target identities that travels with the package."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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


def names(file: pathlib.Path | None = None) -> set[str]:
  """The extractors that a bank covers.

  Args:
    file: another bank than the package's.

  Raises:
    FawkesError: the file is missing or damaged.
  """
  with _open(file or path()) as tensors:
    return set(tensors.keys())


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
  covered = names(file)
  for name in extractors:
    if name not in covered:
      raise types.FawkesError(
        f"the target bank {file} must hold every extractor; it lacks {name}"
      )
  with _open(file) as tensors:
    return Bank(
      embeddings={
        name: tensors.get_tensor(name).astype(np.float32) for name in extractors
      }
    )


@contextlib.contextmanager
def _open(file: pathlib.Path) -> Iterator[Any]:
  """The tensors of a bank; FawkesError where they cannot be read."""
  try:
    with safetensors.safe_open(file, framework="numpy") as tensors:
      yield tensors
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
