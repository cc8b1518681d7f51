"""Embedding aligned crops with several extractors, in batches of one size."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32

from fawkes_jax.engine import mesh as mesh_lib
from fawkes_jax.imaging import views
from fawkes_jax.models import architectures


class Embedder:
  """Looks at crops as each extractor does, without random views.

  All faces go through one program of one batch size, whatever their number:
  another batch size would round differently, and a face's embedding, and with
  it the cloak, would depend on the faces that it happens to meet.
  """

  def __init__(
    self,
    extractors: Sequence[architectures.Extractor],
    *,
    batch_size: int,
    mesh: Mesh,
  ):
    """Puts the weights on the devices.

    Args:
      extractors: at least one.
      batch_size: faces of a batch; rounded up to a multiple of the number of
        devices.
      mesh: the devices.
    """
    self._size = -(-batch_size // mesh.size) * mesh.size
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
    size = self._size
    for start in range(0, max(len(crops), 1), size):
      part = slice(start, start + size)
      result = self._program(
        _padded(crops[part], size), _padded(sides[part], size), self._variables
      )
      left = len(crops) - start
      chunks.append({k: np.asarray(v)[:left] for k, v in result.items()})
    return {k: np.concatenate([c[k] for c in chunks]) for k in chunks[0]}


def normalised(
  embeddings: Mapping[str, np.ndarray], centres: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """`objective.normalised` for each extractor's embeddings.

  In numpy, which rounds each face as it would alone.
  """
  normal = {}
  for name, e in embeddings.items():
    centred = np.asarray(e, np.float32) - np.asarray(centres[name], np.float32)
    length = np.linalg.norm(centred, axis=-1, keepdims=True)
    normal[name] = centred / np.maximum(length, np.float32(1e-6))
  return normal


def _padded(array: Any, size: int) -> np.ndarray:
  """The array with ones appended to its first axis up to a size."""
  rest = (size - len(array), *array.shape[1:])
  return np.concatenate([array, np.ones(rest, array.dtype)])
