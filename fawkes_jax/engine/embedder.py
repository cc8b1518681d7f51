"""Embedding aligned crops with several extractors, in batches of one size."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32

from fawkes_jax.cloaking import objective
from fawkes_jax.engine import mesh as mesh_lib
from fawkes_jax.imaging import views
from fawkes_jax.models import architectures
from fawkes_jax.xla import compiler


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

  One face at a time, so that each is rounded as it would be alone.
  """
  faces = len(next(iter(embeddings.values()), ()))
  if not faces:
    return {name: np.empty_like(e) for name, e in embeddings.items()}
  program = _normalise_one()
  known = {name: centres[name] for name in embeddings}
  rows = [
    program({name: e[i] for name, e in embeddings.items()}, known)
    for i in range(faces)
  ]
  return {
    name: np.stack([np.asarray(row[name]) for row in rows])
    for name in embeddings
  }


@functools.cache
def _normalise_one() -> Callable[..., dict[str, jax.Array]]:
  """The program that normalises the embeddings of one face."""

  def normalise(row, centres):
    return {
      name: objective.normalised(e, centres[name]) for name, e in row.items()
    }

  return compiler.jit(normalise)


def _padded(array: Any, size: int) -> np.ndarray:
  """The array with ones appended to its first axis up to a size."""
  rest = (size - len(array), *array.shape[1:])
  return np.concatenate([array, np.ones(rest, array.dtype)])
