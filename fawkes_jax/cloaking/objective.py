"""The objective of a cloak in the embedding spaces of the extractors.

Embeddings are compared after subtracting the mean over many identities and
scaling to length one: then different people are near a right angle in every
extractor's space, whatever its scale, and one number fits all.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from fawkes_jax import types
from fawkes_jax.imaging import views
from fawkes_jax.models import architectures
from fawkes_jax.options import SolverOptions

Loss = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
"""A loss of (embedding, own, target, key) in the space of one extractor.

The first three are float32 [d] and normalised, see `normalised`: of the changed
face, of its person, and of the target. The key is for randomness, another one
for each step and extractor. The result is a float32 scalar, and lower is
better; a factor changes nothing, as gradients are scaled to one length.
"""

Budget = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""How visible a change is: a function of (original, changed, weights).

The first two are float32 [size, size, 3], RGB in 0..255; `weights`, float32
[size, size], says how much each pixel counts and is 0 beyond the crop; its sum
over the face is 1. The result is a float32 scalar of at least 0, 0 for no
change, and has a gradient.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Goal:
  """What the solver minimises, where it is not the package's own.

  Attributes:
    loss: replaces `away_from_own`; None for that.
    budget: replaces DSSIM as what stays within `SolverOptions.rho`; None for
      DSSIM.
  """

  loss: Loss | None = None
  budget: Budget | None = None

  def check(self, lengths: Iterable[int]) -> None:
    """Traces the functions, as the solver will call them.

    Args:
      lengths: of the embeddings of the extractors.

    Raises:
      FawkesError: one does not give a scalar; names the argument.
    """
    if self.loss is not None:
      for length in set(lengths):
        vector = jax.ShapeDtypeStruct((length,), jnp.float32)
        _check("loss", self.loss, vector, vector, vector, jax.random.key(0))
    if self.budget is not None:
      image = jax.ShapeDtypeStruct((64, 64, 3), jnp.float32)
      weights = jax.ShapeDtypeStruct((64, 64), jnp.float32)
      _check("budget", self.budget, image, image, weights)


OWN_GOAL = Goal()

# How long the gradient of each extractor is made. Several times as long as it
# is by itself, so that the penalty, whose multiplier begins with 1, does not
# keep the first steps from using the budget up.
_SAY = 1e-2


def away_from_own(own_weight: jax.Array | float) -> Loss:
  """The package's own loss: to the target, and away from the person.

  The person is left behind also where its cosine is negative already: what is
  below zero for an extractor is near zero for recognisers that were not cloaked
  against.

  Args:
    own_weight: of leaving the person, where reaching the target weighs 1.

  Returns:
    The weighted mean of 1 - cosine to the target and 1 + cosine to the person,
    0..2.
  """

  def loss(
    embedding: jax.Array, own: jax.Array, target: jax.Array, key: jax.Array
  ) -> jax.Array:
    del key  # Nothing in it is random.
    to_target = 1 - embedding @ target
    from_own = 1 + embedding @ own
    return (to_target + own_weight * from_own) / (1 + own_weight)

  return loss


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
  loss: Loss | None = None,
) -> Float32[Array, ""]:
  """How far a face still is from its target, and how near to its identity.

  The mean of the loss over the extractors, which have an equal say in where it
  falls: by itself the gradient of one may be several times as long as that of
  another, and most of the budget would go into what only that one sees. Each
  extractor sees its own random view of a crop that is turned for all. Half of
  the views are mirrored: a recogniser knows a face in its mirror image by other
  weights, so that each stands for two.

  Args:
    image: the changed crop, values in 0..255.
    problem: the face, a `solver.Problem`.
    variables: by extractor, its "weights" and its "centre".
    extractors: which of them, static.
    options: static.
    key: the key of the random views.
    loss: static; None for `away_from_own`.

  Returns:
    The loss, 0..2 where it is `away_from_own`, whose gradient is the mean of
    those of the extractors, scaled to the same length.
  """
  loss = loss or away_from_own(problem.own_weight)
  spread = options.jitter * jax.random.truncated_normal(
    key, -2, 2, (len(extractors), 4)
  )
  if options.jitter:
    turn = views.TURN_SPREAD * spread[0, 3]
    image = views.turn(image, problem.side, turn)

  def one(i: int, image: jax.Array) -> jax.Array:
    extractor = extractors[i]
    own_key = jax.random.fold_in(key, i)
    softness = jax.random.uniform(own_key)
    view = views.template_view(
      image,
      problem.side,
      extractor.template,
      extractor.input_size,
      shift=views.SHIFT_SPREAD * spread[i, :2],
      zoom=jnp.exp(views.ZOOM_SPREAD * spread[i, 2]),
      blur=1 + options.blur * softness,
    )
    if options.jitter:
      mirrored = jax.random.bernoulli(jax.random.fold_in(own_key, 2))
      view = jnp.where(mirrored, view[:, ::-1], view)
    raw = extractor.apply(variables[extractor.name]["weights"], view[None])[0]
    features = normalised(raw, variables[extractor.name]["centre"])
    return loss(
      features,
      problem.own[extractor.name],
      problem.target[extractor.name],
      jax.random.fold_in(own_key, 1),
    )

  total = _sum_in_turn(
    [functools.partial(one, i) for i in range(len(extractors))], image
  )
  return total / len(extractors)


def _sum_in_turn(
  functions: Sequence[Callable[[jax.Array], jax.Array]], x: jax.Array
) -> jax.Array:
  """The sum of functions of x, which needs the memory of one at a time.

  The gradient of each is taken at once, before the next one's value, so that
  nothing of it is kept for a backward pass. What is returned has the sum's
  value, the sum of the gradients, each of length `_SAY`, and no further
  derivatives.
  """
  still = jax.lax.stop_gradient(x)
  value, slope = jnp.float32(0), jnp.zeros_like(x)
  for f in functions:
    # Nothing may begin before the last one's gradient is there. This says so
    # to XLA, which orders by data alone, and adds nothing to a pixel.
    here, gradient = jax.value_and_grad(f)(still + 1e-30 * slope)
    value = value + here
    length = jnp.sqrt(jnp.vdot(gradient, gradient))
    slope = slope + _SAY / jnp.maximum(length, 1e-12) * gradient
  return value + jnp.vdot(slope, x - still)


def _check(name: str, function: Callable[..., Any], *arguments: Any) -> None:
  found: Any = jax.eval_shape(function, *arguments)
  shape, kind = getattr(found, "shape", None), getattr(found, "dtype", object)
  if shape != () or not jnp.issubdtype(kind, jnp.floating):
    raise types.FawkesError(
      f"{name} must give a scalar in floating point, got {found}"
    )
