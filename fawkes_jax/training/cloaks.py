"""Faces on their way to a cloak, for a student to learn from its teachers.

A student that agrees with its teachers on photos may still disagree with them
on which small changes matter: then cloaks that are computed against it move
it, and no other. So it is shown such cloaks, computed against itself as it is,
with what the teachers say of them (after "A Reduction of Imitation Learning and
Structured Prediction to No-Regret Online Learning", Ross et al., 2010; mixed
faces after "Knowledge distillation: A good teacher is patient and consistent",
Beyer et al., 2021).

Pure functions of one batch, in float32.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, PRNGKeyArray, UInt8

from fawkes_jax.imaging import geometry, views
from fawkes_jax.training import losses

_MIXED = 0.5
"""The share of the second face in a mixed one, at most."""

_OWN_WEIGHT = 4.0
"""How much leaving the own identity counts beside reaching the target."""

_MOVED = 0.5
"""How far views of one cloak differ, beside the solver's."""


def mixed(
  crops: Float32[Array, "n size size 3"], key: PRNGKeyArray
) -> Float32[Array, "n size size 3"]:
  """Aligned faces, half of them mixed with the one before.

  Args:
    crops: RGB in 0..255.
    key: the key of the shares.

  Returns:
    Images in 0..255.
  """
  shares = jax.random.uniform(
    key, (len(crops), 1, 1, 1), minval=-_MIXED, maxval=_MIXED
  )
  others = jnp.roll(crops, 1, axis=0)
  return crops + jnp.maximum(shares, 0) * (others - crops)


def cloaked(
  crops: Float32[Array, "n size size 3"],
  embed: Callable[[Float32[Array, "n size size 3"]], Float32[Array, "n d"]],
  *,
  bound: Float32[Array, ""],
  steps: int,
  key: PRNGKeyArray,
) -> UInt8[Array, "n size size 3"]:
  """Moves each face from its identity towards that of another of the batch.

  Steps of signed gradients, each face within its own bound, from none at all
  to the whole: a student sees clean faces, cloaks and all between.

  Args:
    crops: aligned faces, RGB in 0..255.
    embed: the student as it is; the length of its embeddings is ignored.
    bound: the L-infinity bound of the largest change.
    steps: of gradient descent.
    key: the key of the faces' bounds.

  Returns:
    The changed faces.
  """

  def features(change):
    return losses.normalised(embed(jnp.clip(crops + change, 0, 255)))

  change = jnp.zeros_like(crops)
  own = features(change)
  target = jnp.roll(own, len(crops) // 2, axis=0)
  gradient = jax.grad(
    lambda change: (features(change) * (_OWN_WEIGHT * own - target)).sum()
  )
  limits = bound * jax.random.uniform(key, (len(crops), 1, 1, 1))
  for _ in range(steps):
    change = change - 1.5 / steps * limits * jnp.sign(gradient(change))
    change = jnp.clip(change, -limits, limits)
  return jnp.round(jnp.clip(crops + change, 0, 255)).astype(jnp.uint8)


def still(
  crops: Float32[Array, "n size size 3"],
  template: geometry.Template,
  output: int,
) -> Float32[Array, "n output output 3"]:
  """What an extractor sees of aligned crops.

  Args:
    crops: squares `geometry.CROP`, RGB in 0..255.
    template: the square of the face frame that is seen.
    output: the side of the views in pixels.

  Returns:
    The views.
  """
  side = jnp.float32(crops.shape[1])
  return jax.vmap(lambda crop: views.still_view(crop, side, template, output))(
    crops
  )


def moved(
  crops: Float32[Array, "n size size 3"],
  template: geometry.Template,
  output: int,
  key: PRNGKeyArray,
) -> Float32[Array, "n output output 3"]:
  """What an extractor sees of crops that are aligned a little differently.

  Args:
    crops: squares `geometry.CROP`, RGB in 0..255.
    template: the square of the face frame that is seen.
    output: the side of the views in pixels.
    key: the key of the moves, the scales and the blur.

  Returns:
    The views.
  """
  side = jnp.float32(crops.shape[1])
  moving, blurring = jax.random.split(key)
  moves = _MOVED * jax.random.truncated_normal(moving, -2, 2, (len(crops), 3))
  blurs = 1 + _MOVED * jax.random.uniform(blurring, (len(crops),))

  def view(crop, move, blur):
    return views.template_view(
      crop,
      side,
      template,
      output,
      shift=views.SHIFT_SPREAD * move[:2],
      zoom=jnp.exp(views.ZOOM_SPREAD * move[2]),
      blur=blur,
    )

  return jax.vmap(view)(crops, moves, blurs)
