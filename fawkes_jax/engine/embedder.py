"""Embedding aligned crops with several extractors, in batches of one size."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32

from fawkes_jax.cloaking import objective
from fawkes_jax.engine import mesh as mesh_lib
from fawkes_jax.imaging import views
from fawkes_jax.models import registry


class Embedder:
  """Looks at crops as each extractor does, without random views.

  One program is compiled for full batches and one for as many faces as there
  are devices, whatever the number of faces asked for.
  """

  def __init__(
    self,
    extractors: Sequence[registry.Extractor],
    *,
    batch_size: int,
    mesh: Mesh,
  ):
    """Puts the weights on the devices.

    Args:
      extractors: at least one.
      batch_size: faces of a full batch; rounded up to a multiple of the
        number of devices.
      mesh: the devices.
    """
    self._least = mesh.size
    self._full = -(-batch_size // mesh.size) * mesh.size
    self._variables = mesh_lib.replicate(
      mesh, {e.name: e.variables for e in extractors}
    )

    def embed(crops, sides, variables):
      return {
        extractor.name: extractor.apply(
          variables[extractor.name],
          jax.vmap(views.still_view, (0, 0, None, None))(
            crops, sides, extractor.template, extractor.input_size
          ),
        )
        for extractor in extractors
      }

    self._program = mesh_lib.over_faces(
      embed,
      mesh,
      specs=(mesh_lib.FACES, mesh_lib.FACES, mesh_lib.EVERYWHERE),
    )

  def embed(
    self,
    crops: Float32[np.ndarray, "n size size 3"],
    sides: Float32[np.ndarray, " n"],
  ) -> dict[str, Float32[np.ndarray, "n d"]]:
    """Embeds aligned crops.

    Args:
      crops: as in `solver.Problem.original`; n may be 0.
      sides: the sides of the crops in pixels.

    Returns:
      By extractor, the raw embeddings.
    """
    chunks: list[dict[str, np.ndarray]] = []
    start = 0
    while start < len(crops) or not chunks:
      left = len(crops) - start
      size = self._least if left <= self._least else self._full
      part = slice(start, start + size)
      result = self._program(
        _padded(crops[part], size), _padded(sides[part], size), self._variables
      )
      chunks.append({k: np.asarray(v)[:left] for k, v in result.items()})
      start += size
    return {k: np.concatenate([c[k] for c in chunks]) for k in chunks[0]}


def normalised(
  embeddings: Mapping[str, np.ndarray], centres: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """`objective.normalise` for each extractor's embeddings, on the host."""
  return {
    name: np.asarray(
      objective.normalise(jnp.asarray(e), jnp.asarray(centres[name]))
    )
    for name, e in embeddings.items()
  }


def _padded(array: Any, size: int) -> np.ndarray:
  """The array with ones appended to its first axis up to a size."""
  rest = (size - len(array), *array.shape[1:])
  return np.concatenate([array, np.ones(rest, array.dtype)])
