"""Flax variables in safetensors files: students, shipped or one's own.

A file holds the variables of an architecture of `models.registry`, flat, with
slashes between the levels of their names, in any floating point type. Its only
metadata key says which architecture.
"""

from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from fawkes_jax import types
from fawkes_jax.models import registry

_KEY = "architecture"


def architecture(path: Path) -> str | None:
  """The architecture that a file is of.

  Args:
    path: a safetensors file.

  Returns:
    What its metadata says; None where that says nothing.

  Raises:
    FawkesError: the file is missing, unreadable or damaged.
  """
  with _open(path) as file:
    return (file.metadata() or {}).get(_KEY)


def load(path: Path, **options: Any) -> registry.Extractor:
  """Loads an extractor.

  Args:
    path: a safetensors file with the metadata key "architecture".
    **options: attributes of its Flax module, such as `dtype`.

  Returns:
    The extractor, called as the file is without suffix; weights are float32.

  Raises:
    FawkesError: the file is missing or damaged, or is not of the architecture
      that it names.
  """
  name = architecture(path)
  if name not in registry.ARCHITECTURES:
    raise types.FawkesError(
      f"{path}: the metadata {_KEY} must be one of"
      f" {', '.join(registry.ARCHITECTURES)}, got {name or 'nothing'}"
    )
  tensors = read(path)
  check(str(path), name, tensors)
  tensors = {key: array.astype(np.float32) for key, array in tensors.items()}
  nested = flax.traverse_util.unflatten_dict(tensors, sep="/")
  return registry.build(name, nested, name=path.stem, **options)


def read(path: Path) -> dict[str, np.ndarray]:
  """Reads all arrays of a file.

  Args:
    path: a safetensors file.

  Returns:
    The arrays by name.

  Raises:
    FawkesError: the file is missing, unreadable or damaged, or has a type of
      numbers that numpy has not.
  """
  with _open(path) as file:
    try:
      return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (TypeError, ValueError, safetensors.SafetensorError) as error:
      raise types.FawkesError(
        f"{path} must be a complete safetensors file: {error}"
      ) from error


def check(source: str, name: str, tensors: dict[str, np.ndarray]) -> None:
  """Checks that flat variables are those of an architecture.

  Args:
    source: where they come from, for the message.
    name: a key of `registry.ARCHITECTURES`.
    tensors: arrays by names with slashes.

  Raises:
    FawkesError: one is missing, is one too many, has another shape, or is not
      made of finite numbers.
  """
  about = registry.ARCHITECTURES[name]
  size = about.input_size
  shapes = jax.eval_shape(
    about.module().init,
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32),
  )
  expected = flax.traverse_util.flatten_dict(dict(shapes), sep="/")
  for key in sorted(expected.keys() | tensors.keys()):
    wanted, got = (
      list(tree[key].shape) if key in tree else "nothing"
      for tree in (expected, tensors)
    )
    if wanted != got:
      raise types.FawkesError(
        f"{source}: {key} of {name} must be {wanted}, got {got}"
      )
    if not np.isfinite(tensors[key]).all():
      raise types.FawkesError(f"{source}: {key} must be finite numbers")


def _open(path: Path) -> Any:
  """The file, to be read; FawkesError where it cannot be."""
  try:
    return safetensors.safe_open(path, framework="numpy")
  except (OSError, safetensors.SafetensorError) as error:
    raise types.FawkesError(
      f"{path} must be a complete safetensors file: {error}"
    ) from error
