"""A student of its teacher's architecture, which learns block by block."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fawkes_jax import types
from fawkes_jax.models import architectures
from fawkes_jax.options import TWIN, TrainOptions
from fawkes_jax.training import blocks, cloaks, losses
from fawkes_jax.training.batches import Batches
from fawkes_jax.training.lesson import Lesson
from fawkes_jax.training.material import Material
from fawkes_jax.training.network import Network
from fawkes_jax.training.schedule import Moment
from fawkes_jax.training.state import State
from fawkes_jax.xla import compiler


class Twin:
  """See `Learning`: each block does what the teacher's block does.

  They learn apart at first, then together; with --apart=0 together at once.
  """

  def __init__(
    self,
    options: TrainOptions,
    material: Material,
    mesh: jax.sharding.Mesh,
  ):
    """Draws the weights; compiles no step yet.

    Raises:
      FawkesError: the teacher is a file of embeddings, or has no blocks.
    """
    self._options = options
    self._looking = material.looking(mesh)
    (teacher,) = material.teachers
    self._teacher = teacher.name
    self.network = _network(options, teacher.name, teacher.looking)
    self.batches = Batches(options, material, self.network, whole=True)
    rows = material.split.training[: options.batch_size]
    crops = jnp.asarray(material.faces.crops[rows], jnp.float32)
    self._weights, sizes = blocks.Blocks(teacher.looking.module).fresh(
      teacher.looking.variables,
      cloaks.still(crops, self.network.template, self.network.size),
      jax.random.key(options.seed),
    )
    self.optimiser = blocks.optimiser(sizes)
    self._together = Lesson(
      options,
      self.network,
      self.optimiser,
      loss=self._loss,
      look=lambda crops, looking: {},  # The teacher looks at every view.
      whole=True,
    )
    self._apart = compiler.jit(self._advance_apart, donate_argnums=0)

  def drawn(self) -> dict[str, Any]:
    """See `Learning`."""
    return self._weights

  def learned(self, student: dict[str, Any]) -> dict[str, Any]:
    """See `Learning`: the weights alone."""
    return {"student": student["params"], "heads": {}}

  def learn(
    self, state: State, batch: dict[str, Any], moment: Moment
  ) -> tuple[State, dict[str, jax.Array]]:
    """See `Learning`: blocks apart at first, then together."""
    apart = self._options.share_apart
    if moment.progress >= apart:
      share = blocks.share(moment.progress, apart)
      batch = batch | {"share": jnp.float32(share)}
      return self._together(state, batch, self._looking, moment)
    rate, step = jnp.float32(moment.rate), jnp.uint32(moment.step)
    return self._apart(state, batch, self._looking, rate, step)

  def predicted(
    self, params: dict[str, Any], teacher: str, embeddings: np.ndarray
  ) -> jax.Array:
    """See `Learning`."""
    centre = self._looking[teacher]["centre"]
    return losses.normalised(jnp.asarray(embeddings) - centre)

  def _advance_apart(
    self,
    state: State,
    batch: dict[str, Any],
    looking: dict[str, Any],
    rate: jax.Array,
    step: jax.Array,
  ) -> tuple[State, dict[str, jax.Array]]:
    """One step in which no block depends on another."""
    options, network = self._options, self.network
    mixing = jax.random.fold_in(jax.random.key(options.seed + 1), step)
    mixed = cloaks.mixed(batch["images"].astype(jnp.float32), mixing)
    draw = step * options.repeats
    moving = jax.random.fold_in(jax.random.key(options.seed), draw)

    def loss(params, stats, images):
      return self._errors(params, images, looking, None)

    return state.advanced(
      loss,
      cloaks.moved(mixed, network.template, network.size, moving),
      optimiser=self.optimiser,
      rate=rate,
      ema=options.ema,
      step=draw,
    )

  def _loss(
    self,
    params: Any,
    stats: Any,
    images: jax.Array,
    batch: dict[str, Any],
    looking: dict[str, Any],
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
    """See `lesson.BatchLoss`: blocks are given what others have made."""
    return self._errors(params, images, looking, batch["share"])

  def _errors(
    self,
    params: Any,
    images: jax.Array,
    looking: dict[str, Any],
    share: jax.Array | None,
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
    """The sum of the errors of all blocks, with its parts.

    Apart without a share of what they hand on. Of what is far off, the
    logarithm: one block must not drown the others.
    """
    teacher = blocks.Blocks(self.network.module)
    student = {"params": params["student"]}
    wanted, shown = teacher.look(looking[self._teacher]["weights"], images)
    if share is None:
      made, inner = teacher.apart(student, images, shown)
    else:
      made, inner = teacher.together(student, images, shown, share)
    embedding = blocks.error(made, wanted)
    errors = jnp.stack([*inner.values(), embedding])
    said = {"blocks": errors[:-1].mean(), "embedding": embedding}
    return jnp.log1p(errors).sum(), (said, {})


def _network(
  options: TrainOptions, name: str, looking: architectures.Extractor
) -> Network:
  """The teacher's network, to be given other weights."""
  architecture = architectures.architecture_of(looking.module)
  if architecture is None or not blocks.Blocks(looking.module).any(
    looking.variables, looking.input_size
  ):
    raise types.FawkesError(
      "--teachers must be of an architecture of the package that has blocks,"
      f" with --student={TWIN}; got {name}"
    )
  return Network(
    architecture=architecture,
    module=looking.module.clone(dtype=jnp.dtype(options.dtype)),
    template=looking.template,
    size=looking.input_size,
  )
