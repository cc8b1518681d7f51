"""Trains on one batch: changes its faces, then takes steps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fawkes_jax.options import TrainOptions
from fawkes_jax.training import adversarial, cloaks
from fawkes_jax.training.network import Network
from fawkes_jax.training.schedule import Moment
from fawkes_jax.training.state import State
from fawkes_jax.xla import compiler

BatchLoss = Callable[
  [Any, Any, jax.Array, dict[str, Any], dict[str, Any]],
  tuple[jax.Array, tuple[dict[str, jax.Array], Any]],
]
"""A `state.Loss` that is also given the batch, and the teachers' networks as
`Material.looking` has them."""

Look = Callable[[jax.Array, dict[str, Any]], dict[str, jax.Array]]
"""Of whole crops and the teachers' networks: by teacher, the targets."""


class Lesson:
  """What is done with one batch, whatever is to be learned from it.

  With --cloaking, faces of the batch are cloaked against the student as it is,
  teachers look at them, and several steps see different views of them. With
  --adversarial, views are changed so that the loss is large.
  """

  def __init__(
    self,
    options: TrainOptions,
    network: Network,
    optimiser: optax.GradientTransformation,
    *,
    loss: BatchLoss,
    look: Look,
    whole: bool,
  ):
    """Compiles nothing yet.

    Args:
      options: the options of the run.
      network: that learns.
      optimiser: the optimiser of its weights.
      loss: to be made smaller.
      look: what the teachers say of cloaked faces.
      whole: whether batches have whole crops, of which views are to be taken.
    """
    self._options = options
    self._network = network
    self._optimiser = optimiser
    self._loss = loss
    self._look = look
    self._whole = whole
    self._cloak = compiler.jit(self.cloaked)
    self._step = compiler.jit(self._advance, donate_argnums=0)

  def __call__(
    self,
    state: State,
    batch: dict[str, Any],
    looking: dict[str, Any],
    moment: Moment,
  ) -> tuple[State, dict[str, jax.Array]]:
    """Learns from a batch.

    Args:
      state: is used up.
      batch: on the devices.
      looking: the teachers' networks, see `Material.looking`.
      moment: the moment of the run.

    Returns:
      The new state, and the parts of the loss.
    """
    options = self._options
    rate, bound = jnp.float32(moment.rate), jnp.float32(moment.bound)
    if options.cloaking:
      draw = jnp.uint32(moment.step)
      batch = self._cloak(state, batch, looking, bound, draw)
    repeats = options.repeats if options.cloaking else 1
    values: dict[str, jax.Array] = {}
    for repeat in range(repeats):
      draw = jnp.uint32(moment.step * options.repeats + repeat)
      state, values = self._step(state, batch, looking, rate, bound, draw)
    return state, values

  def cloaked(
    self,
    state: State,
    batch: dict[str, Any],
    looking: dict[str, Any],
    bound: jax.Array,
    step: jax.Array,
  ) -> dict[str, Any]:
    """The batch with mixed and cloaked faces, as the teachers embed them."""
    options, network = self._options, self._network
    key = jax.random.fold_in(jax.random.key(options.seed + 1), step)
    mixing, making = jax.random.split(key)
    student = {"params": state.params["student"], "batch_stats": state.stats}

    def embed(crops):
      view = cloaks.still(crops, network.template, network.size)
      return network.module.apply(student, view)

    crops = cloaks.cloaked(
      cloaks.mixed(batch["images"].astype(jnp.float32), mixing),
      embed,
      bound=bound,
      steps=options.cloaking_steps,
      key=making,
    )
    return batch | {"images": crops, "targets": self._look(crops, looking)}

  def _advance(
    self,
    state: State,
    batch: dict[str, Any],
    looking: dict[str, Any],
    rate: jax.Array,
    bound: jax.Array,
    step: jax.Array,
  ) -> tuple[State, dict[str, jax.Array]]:
    """One step, on views of the batch."""
    options, network = self._options, self._network
    images = batch["images"].astype(jnp.float32)
    key = jax.random.fold_in(jax.random.key(options.seed), step)

    def loss(params, stats, images):
      return self._loss(params, stats, images, batch, looking)

    if options.adversarial:
      images = adversarial.worsened(
        images,
        lambda changed: loss(state.params, state.stats, changed)[0],
        bound=bound,
        steps=options.adversarial_steps,
        key=key,
      )
    elif self._whole:
      images = cloaks.moved(images, network.template, network.size, key)
    return state.advanced(
      loss,
      images,
      optimiser=self._optimiser,
      rate=rate,
      ema=options.ema,
      step=step,
    )
