"""What a cloak strives for in the embedding spaces of the extractors.

Embeddings are compared after subtracting the mean over many identities and
scaling to length one: then different people are near a right angle in every
extractor's space, whatever its scale, and one number fits all.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from fawkes_jax.imaging import views
from fawkes_jax.models import architectures
from fawkes_jax.options import SolverOptions


def normalised(
  embeddings: Float32[Array, "... d"], centre: Float32[Array, " d"]
) -> Float32[Array, "... d"]:
  """Embeddings relative to the mean identity, of length one.

  Args:
    embeddings: an extractor's raw embeddings.
    centre: the mean of its embeddings over many identities.

  Returns:
    Unit vectors.
  """
  centred = embeddings - centre
  length = jnp.linalg.norm(centred, axis=-1, keepdims=True)
  return centred / jnp.maximum(length, 1e-6)


def attack(
  image: Float32[Array, "size size 3"],
  problem: Any,
  variables: Mapping[str, Any],
  extractors: Sequence[architectures.Extractor],
  options: SolverOptions,
  key: jax.Array,
) -> tuple[Float32[Array, ""], Float32[Array, " n"]]:
  """How far a face still is from its target, and how near to its identity.

  The mean over the extractors of the weighted mean of 1 - cosine to the target
  and 1 + cosine to the person, with weights 1 and `own_weight`. Each
  extractor sees its own random view of a crop that is turned for all.

  The person is left behind also where its cosine is negative already: what is
  below zero for an extractor is near zero for recognisers that were not cloaked
  against.

  Args:
    image: the changed crop, values in 0..255.
    problem: the face, a `solver.Problem`.
    variables: by extractor, its "weights" and its "centre".
    extractors: which of them, static.
    options: static.
    key: of the random views.

  Returns:
    The loss, 0..2, and that of each extractor, which has no gradient.
  """
  spread = options.jitter * jax.random.truncated_normal(
    key, -2, 2, (len(extractors), 4)
  )
  if options.jitter:
    turn = views.TURN_SPREAD * spread[0, 3]
    image = views.turn(image, problem.side, turn)

  def one(i: int, image: jax.Array) -> jax.Array:
    extractor = extractors[i]
    softness = jax.random.uniform(jax.random.fold_in(key, i))
    view = views.template_view(
      image,
      problem.side,
      extractor.template,
      extractor.input_size,
      shift=views.SHIFT_SPREAD * spread[i, :2],
      zoom=jnp.exp(views.ZOOM_SPREAD * spread[i, 2]),
      blur=1 + options.blur * softness,
    )
    raw = extractor.apply(variables[extractor.name]["weights"], view[None])[0]
    features = normalised(raw, variables[extractor.name]["centre"])
    to_target = 1 - features @ problem.target[extractor.name]
    from_own = 1 + features @ problem.own[extractor.name]
    return to_target + options.own_weight * from_own

  total, each = _sum_in_turn(
    [functools.partial(one, i) for i in range(len(extractors))], image
  )
  whole = 1 + options.own_weight
  return total / (whole * len(extractors)), each / whole


def _sum_in_turn(
  functions: Sequence[Callable[[jax.Array], jax.Array]], x: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The sum of functions of x, which needs the memory of one at a time.

  The gradient of each is taken at once, before the next one's value, so that
  nothing of it is kept for a backward pass. What is returned has the sum's
  value and its gradient, and no further derivatives; beside it the value of
  each.
  """
  still = jax.lax.stop_gradient(x)
  values, slope = [], jnp.zeros_like(x)
  for f in functions:
    # Nothing may begin before the last one's gradient is there. This says so
    # to XLA, which orders by data alone, and adds nothing to a pixel.
    here, gradient = jax.value_and_grad(f)(still + 1e-30 * slope)
    values.append(here)
    slope = slope + gradient
  each = jnp.stack(values)
  return each.sum() + jnp.vdot(slope, x - still), each
