"""Flax variables in safetensors files, as students are written.

A file holds the variables of an architecture of `models.architectures`, flat,
with slashes between the levels of their names, in any floating point type. Its
only metadata key holds JSON that says which architecture, and who taught it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from fawkes_jax import types
from fawkes_jax.archive import files
from fawkes_jax.models import architectures

_KEY = "fawkes_jax"

_OLD_KEY = "architecture"
"""The only key of older files, which do not say who taught them."""


def architecture(path: Path) -> str | None:
  """The architecture that a file is of.

  Args:
    path: a safetensors file.

  Returns:
    What its metadata says; None where that says nothing.

  Raises:
    FawkesError: the file is missing, unreadable or damaged.
  """
  return _about(path).get("architecture")


def teachers(path: Path) -> tuple[str, ...]:
  """Who taught the network of a file.

  Args:
    path: a safetensors file.

  Returns:
    Their identities, see `catalogue.identity`; none where the file does not
    say.

  Raises:
    FawkesError: the file is missing, unreadable or damaged.
  """
  return tuple(_about(path).get("teachers", ()))


def _about(path: Path) -> dict[str, Any]:
  """What the metadata of a file says of its network."""
  with _open(path) as file:
    known = file.metadata() or {}
  if _OLD_KEY in known:
    return {"architecture": known[_OLD_KEY]}
  try:
    about = json.loads(known.get(_KEY, "{}"))
    return about if isinstance(about, dict) else {}
  except ValueError:
    return {}


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


def load(path: Path) -> tuple[str, dict[str, Any]]:
  """Loads the variables of a file that names its architecture.

  Args:
    path: a safetensors file.

  Returns:
    The architecture, a key of `architectures.ARCHITECTURES`, and the variables,
    float32.

  Raises:
    FawkesError: the file is missing or damaged, or is not of the architecture
      that it names.
  """
  name = architecture(path)
  if name not in architectures.ARCHITECTURES:
    raise types.FawkesError(
      f"{path}: the architecture in the metadata must be one of"
      f" {', '.join(architectures.ARCHITECTURES)}, got {name or 'nothing'}"
    )
  flat = {k: array.astype(np.float32) for k, array in read(path).items()}
  nested = flax.traverse_util.unflatten_dict(flat, sep="/")
  check(str(path), name, nested)
  return name, nested


def save(
  variables: dict[str, Any],
  path: Path,
  *,
  name: str,
  teachers: Sequence[str] = (),
) -> None:
  """Writes a student's variables in half precision.

  Args:
    variables: nested dictionaries of arrays.
    path: the safetensors file; replaced.
    name: the architecture.
    teachers: who taught it, see `catalogue.identity`.

  Raises:
    FawkesError: it cannot be written.
  """
  flat = flax.traverse_util.flatten_dict(variables, sep="/")
  tensors = {k: np.asarray(v, np.float16) for k, v in flat.items()}
  # One key alone: with several the bytes of a file would not be reproducible.
  about = {"architecture": name, "teachers": list(teachers)}
  metadata = {_KEY: json.dumps(about, sort_keys=True)}
  files.write_atomically(path, safetensors.numpy.save(tensors, metadata))


def check(source: str, name: str, variables: dict[str, Any]) -> None:
  """Checks that variables are those of an architecture.

  Args:
    source: where they come from, for the message.
    name: a key of `architectures.ARCHITECTURES`.
    variables: nested dictionaries of arrays.

  Raises:
    FawkesError: one is missing, is one too many, has another shape, or is not
      made of finite numbers.
  """
  about = architectures.ARCHITECTURES[name]
  size = about.input_size
  shapes = jax.eval_shape(
    about.module().init,
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32),
  )
  expected, actual = (
    flax.traverse_util.flatten_dict(dict(tree), sep="/")
    for tree in (shapes, variables)
  )
  for key in sorted(expected.keys() | actual.keys()):
    wanted, got = (
      list(tree[key].shape) if key in tree else "nothing"
      for tree in (expected, actual)
    )
    if wanted != got:
      raise types.FawkesError(
        f"{source}: the {name} weight {key} must be {wanted}, got {got}"
      )
    if not np.isfinite(actual[key]).all():
      raise types.FawkesError(
        f"{source}: the {name} weight {key} must be finite numbers"
      )


def _open(path: Path) -> Any:
  """The file, to be read; FawkesError where it cannot be."""
  try:
    return safetensors.safe_open(path, framework="numpy")
  except (OSError, safetensors.SafetensorError) as error:
    raise types.FawkesError(
      f"{path} must be a complete safetensors file: {error}"
    ) from error
