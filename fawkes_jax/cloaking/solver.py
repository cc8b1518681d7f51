"""The solver: one face's cloak by gradient descent, as pure functions.

The Fawkes paper's optimisation (Shan et al. 2020, section 4.3, equation 4):
move the face's features towards a dissimilar target under a budget of
structural dissimilarity (DSSIM). Here with Adam; a candidate over the budget
is penalised and also shrunk back to it. Steps get shorter to the end, and the
last candidate within the budget is the result: a loss says more of its step's
random views than of the candidate, so the best one by that is a worse one.

Extractors take turns: a step asks some of them, and the next step others
(`turns`), so that more of them cost no more time. Many networks that are asked
now and then transfer better than few that are asked always
(docs/protection.md).

`start`, `step` and `finished` are written for one face; `vmap` them. No face
knows of the others in its batch.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from fawkes_jax.cloaking import objective
from fawkes_jax.imaging import ssim, views
from fawkes_jax.models import architectures
from fawkes_jax.options import SolverOptions

# The penalty's multiplier grows by the first factor in a step over the budget
# and shrinks by the second in one within it.
_PENALTY_UP = 1.15
_PENALTY_DOWN = 0.88

# With which powers of a change what is measured of it may grow.
_POWERS = 0.5, 8.0
_TINY = 1e-12

# What remains of Adam's mean of gradients in a step; its usual 0.9 is slower
# than the few steps allow (docs/cloaking.md).
_MOMENTUM = 0.8

# Where the gradient is smaller than this, steps are shorter; as long as it is
# made (`objective.attack`), it is about so large at a pixel.
_SMALL = 2e-5

# Beside its pixels the brightness of a face changes in blocks of so many, with
# this share of the learning rate. DSSIM hardly sees such shading.
_BLOCK = 8
_SHADING = 0.5

# The gradient is taken where the change would be with this share of the
# learning rate more in the direction of the next steps.
_AHEAD = 0.25

# With fewer than so many steps the first one is shorter, but at least this
# share of the learning rate.
_LONG = 60
_SHORTEST = 2 / 3


class Problem(NamedTuple):
  """One face to be cloaked: arrays of JAX or numpy, without a batch axis.

  Attributes:
    original: float32 [size, size, 3], the aligned crop, RGB in 0..255, in the
      upper left `side` x `side` pixels of an array of fixed size.
    coverage: float32 [size, size], how far each pixel may change, 0..1.
    weights: float32 [size, size], how much it counts towards the DSSIM.
    side: float32 [], the crop's side in pixels.
    tables: float32 [2, 8, 8], the quantisation steps of luma and chroma that
      the face may be saved with.
    colour: float32 [], 1; 0 for a greyscale photo, whose change is grey.
    budget: float32 [], of the DSSIM, or of what replaces it.
    own: by extractor, float32 [d]: the person's normalised embedding.
    target: by extractor, float32 [d]: the target's.
    own_weight: float32 [], of leaving the person, where reaching the target
      weighs 1.
    seed: uint32 [], of this face's random views.
  """

  original: Any
  coverage: Any
  weights: Any
  side: Any
  tables: Any
  colour: Any
  budget: Any
  own: Mapping[str, Any]
  target: Mapping[str, Any]
  own_weight: Any
  seed: Any


class State(NamedTuple):
  """The solver's state for one face.

  Attributes:
    problem: the face.
    moments: the moments of the original, for the DSSIM.
    change: float32 [size, size, 3], the free variable.
    adam: the optimiser's state, for what `_scales` gives.
    penalty: float32 [], multiplier of the penalty on DSSIM over the budget.
    result: float32 [size, size, 3], the last candidate within the budget, in
      whole numbers; zero until there is one.
    result_dssim: float32 [], its DSSIM, or what another budget measures.
    steps: int32 [], steps done.
  """

  problem: Problem
  moments: ssim.Moments
  change: jax.Array
  adam: Any
  penalty: jax.Array
  result: jax.Array
  result_dssim: jax.Array
  steps: jax.Array


_Named = TypeVar("_Named")


def turns(
  extractors: Sequence[_Named], options: SolverOptions
) -> list[list[_Named]]:
  """Which extractors are asked in which step.

  Args:
    extractors: all of them.
    options: at most `extractors_per_step` are asked in a step.

  Returns:
    Groups, which take turns from a face's first step on; each extractor is in
    one of them. Neighbours in the list, which may be alike, are in different
    ones.
  """
  count = -(
    -len(extractors) // (options.extractors_per_step or len(extractors))
  )
  return [list(extractors[first::count]) for first in range(count)]


def start(problem: Problem, options: SolverOptions) -> State:
  """The state before the first step."""
  zero = jnp.zeros_like(problem.original)
  return State(
    problem=problem,
    moments=ssim.moments(problem.original, problem.weights),
    change=zero,
    adam=_adam(options).init(_scales(zero)),
    penalty=jnp.float32(1),
    result=zero,
    result_dssim=jnp.float32(0),
    steps=jnp.int32(0),
  )


def step(
  state: State,
  variables: Mapping[str, Any],
  extractors: Sequence[architectures.Extractor],
  options: SolverOptions,
  goal: objective.Goal = objective.OWN_GOAL,
) -> State:
  """One step of descent.

  Args:
    state: the state of one face.
    variables: by extractor, its weights and centre, see `objective.attack`.
    extractors: whose turn it is, see `turns`; static.
    options: static.
    goal: what is minimised, within which budget; static.

  Returns:
    The state after the step.
  """
  problem = state.problem
  key = jax.random.fold_in(jax.random.key(problem.seed), state.steps)
  key, strength_key, grid_key = jax.random.split(key, 3)
  strength = options.jpeg * jax.random.uniform(strength_key)
  tables = jnp.maximum(strength * problem.tables, 1)
  grid = jax.random.randint(grid_key, (2,), 0, 16)
  room = ssim.room(state.moments) if goal.budget is None else jnp.float32(1)
  momentum = optax.tree_utils.tree_get(state.adam, "mu")
  downhill = -room * jnp.sign(momentum["pixels"])
  far = _AHEAD * options.learning_rate
  ahead = far * downhill * problem.coverage[..., None]

  def attack(candidate):
    saved = (
      views.quantise(candidate, tables, grid) if options.jpeg else candidate
    )
    return objective.attack(
      problem.original + saved + ahead,
      problem,
      variables,
      extractors,
      options,
      key,
      goal.loss,
    )

  def measure(candidate):
    if goal.budget is None:
      return ssim.dssim(problem.original, candidate, state.moments)
    changed = problem.original + candidate
    return goal.budget(problem.original, changed, problem.weights)

  candidate, to_change = jax.vjp(
    lambda change: _candidate(change, problem), state.change
  )
  dssim, outward = jax.value_and_grad(measure)(candidate)
  within = dssim <= problem.budget
  penalty = jnp.where(within, 0, state.penalty / problem.budget)
  [gradient] = to_change(jax.grad(attack)(candidate) + penalty * outward)
  moved, adam = _adam(options).update(_scales(gradient), state.adam)
  shading = jax.image.resize(moved["shading"], gradient.shape[:2], "linear")
  update = room * moved["pixels"] + _SHADING * shading[..., None]
  # DSSIM grows like the square of the change; what replaces it, by Euler's
  # theorem, like this power.
  power = jnp.vdot(outward, candidate) / jnp.maximum(dssim, _TINY)
  allowed = problem.budget / jnp.maximum(dssim, problem.budget)
  shrink = allowed ** (1 / jnp.clip(power, *_POWERS))
  change = _bounded(shrink * state.change + update, options)
  # A face that has ended keeps its result, however long its batch goes on.
  live = ~finished(state, options)
  newer = live & within
  return State(
    problem=problem,
    moments=state.moments,
    change=change,
    adam=adam,
    penalty=state.penalty * jnp.where(within, _PENALTY_DOWN, _PENALTY_UP),
    result=jnp.where(newer, candidate, state.result),
    result_dssim=jnp.where(newer, dssim, state.result_dssim),
    steps=state.steps + live,
  )


def finished(state: State, options: SolverOptions) -> Bool[Array, ""]:
  """Whether the face needs no further step."""
  return state.steps >= options.steps


def _scales(gradient: jax.Array) -> dict[str, jax.Array]:
  """What Adam moves: each pixel's channels, and the brightness of blocks."""
  blocks = gradient.shape[0] // _BLOCK
  grey = gradient.mean(axis=-1).reshape(blocks, _BLOCK, blocks, _BLOCK)
  return {"pixels": gradient, "shading": grey.sum(axis=(1, 3))}


def _bounded(change: jax.Array, options: SolverOptions) -> jax.Array:
  """The change with what is too large for a pixel, or too colourful, cut off.

  DSSIM hardly sees a tint; the eye does.
  """
  grey = change.mean(axis=-1, keepdims=True)
  tint = jnp.clip(change - grey, -options.chroma, options.chroma)
  return jnp.clip(grey + tint, -options.linf, options.linf)


def _candidate(change: jax.Array, problem: Problem) -> jax.Array:
  """The change that the free variable stands for.

  Grey where it must be, faded out at the crop's edges, in whole numbers and
  such that the changed crop stays in 0..255. The gradient passes straight
  through the rounding.
  """
  grey = change.mean(axis=-1, keepdims=True)
  change = grey + problem.colour * (change - grey)
  change = change * problem.coverage[..., None]
  change = jnp.clip(change, -problem.original, 255 - problem.original)
  return change + jax.lax.stop_gradient(jnp.round(change) - change)


def _adam(options: SolverOptions) -> optax.GradientTransformation:
  # What few steps change must be within the budget early.
  rate = options.learning_rate * min(1, max(_SHORTEST, options.steps / _LONG))
  schedule = optax.cosine_decay_schedule(rate, options.steps)
  return optax.adam(schedule, b1=_MOMENTUM, eps=_SMALL)
