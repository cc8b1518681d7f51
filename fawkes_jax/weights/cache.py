"""Keeps converted weights as safetensors files in the user's cache directory.

A conversion is a pure function of its pinned source, so an entry is named
after the source's sha256 and never becomes stale; while it is there the source
is not read at all. An entry also carries the sha256 of its own tensors: a
damaged one is rebuilt. Where the directory cannot be written, the conversion
is done in memory.
"""

import contextlib
import hashlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import flax.traverse_util
import numpy as np
import safetensors
import safetensors.numpy

_CONVERSION = 1
"""Raised whenever a conversion changes what it stores."""

_DIGEST_KEY = "sha256"  # The only metadata key: with more of them the bytes of
# a safetensors file are not reproducible.


def directory() -> pathlib.Path:
  """Returns the cache directory, which need not exist.

  It is ``$FAWKES_JAX_CACHE``, else ``$XDG_CACHE_HOME/fawkes_jax``, else
  ``~/.cache/fawkes_jax``.
  """
  own = os.environ.get("FAWKES_JAX_CACHE")
  if own:
    return pathlib.Path(own).expanduser()
  shared = os.environ.get("XDG_CACHE_HOME")
  root = pathlib.Path(shared) if shared else pathlib.Path.home() / ".cache"
  return root / "fawkes_jax"


def entry(name: str, sha256: str) -> pathlib.Path:
  """Returns the path of the cache entry of a source.

  Args:
    name: the entry's readable name, without suffix.
    sha256: the SHA-256 of the source, in hexadecimal.
  """
  return directory() / f"{name}-{sha256[:12]}-v{_CONVERSION}.safetensors"


def load(
  name: str, sha256: str, convert: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
  """Loads converted weights, converting and storing them when necessary.

  Args:
    name: the entry's readable name, without suffix.
    sha256: the SHA-256 of the source, in hexadecimal.
    convert: reads and converts the source into nested dictionaries of numpy
      arrays. What it raises is passed on.

  Returns:
    What `convert` returns, from the cache where possible.
  """
  path = entry(name, sha256)
  tensors = _read(path)
  if tensors is None:
    nested = convert()
    tensors = {
      key: np.asarray(array, order="C")
      for key, array in flax.traverse_util.flatten_dict(
        dict(nested), sep="/"
      ).items()
    }
    with contextlib.suppress(OSError):  # A cache may be read-only or full.
      _write(path, tensors)
  return flax.traverse_util.unflatten_dict(tensors, sep="/")


def _digest(tensors: Mapping[str, np.ndarray]) -> str:
  """Returns the sha256 of names, types, shapes and values."""
  state = hashlib.sha256()
  for key, array in sorted(tensors.items()):
    state.update(f"{key} {array.dtype.str} {array.shape}\n".encode())
    state.update(np.ascontiguousarray(array).data)
  return state.hexdigest()


def _read(path: pathlib.Path) -> dict[str, np.ndarray] | None:
  """Reads an entry; None when it is absent, unreadable or damaged."""
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      metadata = file.metadata() or {}
      tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
  except (OSError, safetensors.SafetensorError):
    return None
  return tensors if metadata.get(_DIGEST_KEY) == _digest(tensors) else None


def _write(path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
  """Writes an entry so that a reader sees all of it or nothing."""
  data = safetensors.numpy.save(tensors, {_DIGEST_KEY: _digest(tensors)})
  path.parent.mkdir(parents=True, exist_ok=True)
  descriptor, temporary = tempfile.mkstemp(
    prefix=f".{path.name}.", dir=path.parent
  )
  try:
    with os.fdopen(descriptor, "wb") as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException:
    pathlib.Path(temporary).unlink(missing_ok=True)
    raise
