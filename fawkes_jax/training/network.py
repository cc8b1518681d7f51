"""The network that learns, and how it looks at crops."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int, UInt8

from fawkes_jax import types
from fawkes_jax.imaging import geometry
from fawkes_jax.training import views
from fawkes_jax.weights import variables
from fawkes_jax.xla import compiler

_BATCH = 64


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Network:
  """A student's network, without its variables.

  Attributes:
    architecture: its name in the lists of architectures.
    module: takes images [n, size, size, 3], RGB in 0..255, to embeddings.
    template: the square of the face frame that its input shows.
    size: height and width of its input, in pixels.
  """

  architecture: str
  module: nn.Module
  template: geometry.Template
  size: int

  def load(self, path: Path) -> dict[str, Any]:
    """Reads the variables that another training has written.

    Raises:
      FawkesError: the file cannot be read, or is of another architecture.
    """
    architecture, trained = variables.load(path)
    if architecture != self.architecture:
      raise types.FawkesError(
        f"--initial must be weights of {self.architecture}, got {path} of"
        f" {architecture}"
      )
    return trained

  def embeddings(
    self,
    student: dict[str, Any],
    crops: UInt8[np.ndarray, "n side side 3"],
    rows: Int[np.ndarray, " k"],
  ) -> Float32[np.ndarray, "k d"]:
    """Embeds crops, plain and exactly aligned.

    Args:
      student: the network's variables.
      crops: squares `geometry.CROP`, RGB.
      rows: which of them; one or more.

    Returns:
      An embedding a row, not normalised.
    """
    chunks = []
    for start in range(0, len(rows), _BATCH):
      wanted = rows[start : start + _BATCH]
      padded = np.resize(wanted, _BATCH)  # One shape for all.
      images = np.stack(
        [views.still(crops[i], self.template, self.size) for i in padded]
      )
      result = self._embed(student, images)
      chunks.append(np.asarray(result)[: len(wanted)])
    return np.concatenate(chunks)

  def embedding_size(self, student: dict[str, Any]) -> int:
    """The length of an embedding, with these variables."""
    images = jax.ShapeDtypeStruct((1, self.size, self.size, 3), jnp.float32)
    return jax.eval_shape(self._embed, student, images).shape[-1]

  @functools.cached_property
  def _embed(self) -> jax.stages.Wrapped:
    return compiler.jit(
      lambda student, images: self.module.apply(student, images)
    )
