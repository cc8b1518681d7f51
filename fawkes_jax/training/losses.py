"""The losses of a student, on what its teachers say and on identities.

Pure functions of one batch, in float32.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int

ARCFACE_SCALE = 32.0
ARCFACE_MARGIN = 0.3


def normalised(x: Float32[Array, "n d"]) -> Float32[Array, "n d"]:
  """Rows of length one; a row of zeros stays finite, and so its gradient."""
  return x * jax.lax.rsqrt((x * x).sum(axis=-1, keepdims=True) + 1e-12)


def distillation(
  embeddings: Float32[Array, "n e"],
  heads: Mapping[str, Float32[Array, "e d"]],
  targets: Mapping[str, Float32[Array, "n d"]],
) -> dict[str, Float32[Array, ""]]:
  """How far the teachers' embeddings are from being a linear map away.

  Args:
    embeddings: the student's, not normalised.
    heads: a matrix for each teacher.
    targets: the teachers' embeddings, centred, rows of length one.

  Returns:
    By teacher, the mean of 1 - cosine; 0..2.
  """
  return {
    name: 1 - (normalised(embeddings @ heads[name]) * target).sum(-1).mean()
    for name, target in targets.items()
  }


def relations(
  embeddings: Float32[Array, "n e"],
  targets: Mapping[str, Float32[Array, "n d"]],
) -> Float32[Array, ""]:
  """Compares the cosines between the faces of a batch.

  The student's cosine of two faces shall be the mean of the teachers' cosines
  (after "Similarity-Preserving Knowledge Distillation", Tung and Mori, 2019).

  Args:
    embeddings: the student's, not normalised.
    targets: the teachers', rows of length one; at least one teacher.

  Returns:
    The mean squared difference over pairs of different faces.
  """
  own = normalised(embeddings)
  wanted = sum(t @ t.T for t in targets.values()) / len(targets)
  squares = jnp.square(own @ own.T - wanted)
  n = len(embeddings)
  return (squares.sum() - jnp.trace(squares)) / (n * (n - 1))


def arcface(
  embeddings: Float32[Array, "n e"],
  centres: Float32[Array, "k e"],
  labels: Int[Array, " n"],
) -> Float32[Array, ""]:
  """The additive angular margin loss ("ArcFace", Deng et al., 2018).

  Args:
    embeddings: the student's, not normalised.
    centres: a direction for each identity, not normalised.
    labels: the identity of each embedding.

  Returns:
    The mean cross entropy of softmax(s cos(angle + m at the own identity)).
  """
  cosines = normalised(embeddings) @ normalised(centres).T
  own = jnp.take_along_axis(cosines, labels[:, None], axis=1)
  sine = jnp.sqrt(jnp.maximum(1 - own * own, 1e-9))
  turned = own * jnp.cos(ARCFACE_MARGIN) - sine * jnp.sin(ARCFACE_MARGIN)
  # Past pi - m the cosine would rise again: a straight line goes on instead.
  limit = -jnp.cos(ARCFACE_MARGIN)
  line = own - ARCFACE_MARGIN * jnp.sin(ARCFACE_MARGIN)
  margin = jnp.where(own > limit, turned, line)
  at_own = labels[:, None] == jnp.arange(len(centres))
  logits = ARCFACE_SCALE * jnp.where(at_own, margin, cosines)
  logs = jax.nn.log_softmax(logits)
  return -jnp.take_along_axis(logs, labels[:, None], axis=1).mean()
