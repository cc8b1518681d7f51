"""A student of its own architecture, which predicts what its teachers say."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fawkes_jax.models import students
from fawkes_jax.options import TrainOptions
from fawkes_jax.training import cloaks, losses
from fawkes_jax.training.batches import Batches
from fawkes_jax.training.lesson import Lesson
from fawkes_jax.training.material import FITTED, Material
from fawkes_jax.training.network import Network
from fawkes_jax.training.schedule import Moment
from fawkes_jax.training.state import State


class Distillation:
  """See `Learning`: teachers' embeddings are linear maps of the student's."""

  def __init__(
    self,
    options: TrainOptions,
    material: Material,
    mesh: jax.sharding.Mesh,
  ):
    """Compiles nothing yet.

    Raises:
      FawkesError: teachers are to look at cloaks, and one cannot.
    """
    self._options = options
    self._material = material
    whole = bool(options.cloaking)
    self._looking = material.looking(mesh) if whole else {}
    self.network = Network(
      architecture=options.student,
      module=students.STUDENTS[options.student](dtype=jnp.dtype(options.dtype)),
      template=students.TEMPLATE,
      size=students.INPUT_SIZE,
    )
    self.batches = Batches(options, material, self.network, whole=whole)
    self.optimiser = optax.chain(
      optax.clip_by_global_norm(1.0),
      optax.scale_by_adam(),
      optax.add_decayed_weights(
        options.weight_decay,
        lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree),
      ),
    )
    self._lesson = Lesson(
      options,
      self.network,
      self.optimiser,
      loss=self._loss,
      look=self._look,
      whole=whole,
    )

  def drawn(self) -> dict[str, Any]:
    """See `Learning`."""
    return students.initialise(self.network.module, self._options.seed)

  def learned(self, student: dict[str, Any]) -> dict[str, Any]:
    """See `Learning`: a linear map for each teacher, perhaps identities."""
    params = {"student": student["params"], "heads": self._heads(student)}
    if self._options.identities:
      draw = jax.nn.initializers.lecun_normal()
      key = jax.random.key(self._options.seed + 1)
      shape = (self.batches.identities, students.EMBEDDING_SIZE)
      params["centres"] = draw(key, shape)
    return params

  def learn(
    self, state: State, batch: dict[str, Any], moment: Moment
  ) -> tuple[State, dict[str, jax.Array]]:
    """See `Learning`."""
    return self._lesson(state, batch, self._looking, moment)

  def predicted(
    self, params: dict[str, Any], teacher: str, embeddings: np.ndarray
  ) -> jax.Array:
    """See `Learning`."""
    return losses.normalised(jnp.asarray(embeddings) @ params["heads"][teacher])

  def _heads(self, student: dict[str, Any]) -> dict[str, np.ndarray]:
    """The linear maps to the teachers that suit a student as it is."""
    rows = self._material.split.training[:FITTED]
    known = self.network.embeddings(student, self._material.faces.crops, rows)
    products = known.T @ known
    ridge = 0.01 * np.trace(products) / len(products)
    products += ridge * np.eye(len(products), dtype=np.float32)
    return {
      name: np.linalg.solve(products, known.T @ array[0, rows])
      for name, array in self._material.targets.items()
    }

  def _loss(
    self,
    params: Any,
    stats: Any,
    images: jax.Array,
    batch: dict[str, Any],
    looking: dict[str, Any],
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
    """See `lesson.BatchLoss`."""
    del looking  # The teachers have looked already.
    options = self._options
    embeddings, updates = self.network.module.apply(
      {"params": params["student"], "batch_stats": stats},
      images,
      True,
      mutable=["batch_stats"],
    )
    parts = losses.distillation(embeddings, params["heads"], batch["targets"])
    total = sum(parts.values(), jnp.float32(0)) / max(1, len(parts))
    if options.relations and parts:
      parts["relations"] = losses.relations(embeddings, batch["targets"])
      total = total + options.relations * parts["relations"]
    if options.identities:
      parts["identities"] = losses.arcface(
        embeddings, params["centres"], batch["labels"]
      )
      total = total + options.identities * parts["identities"]
    return total, (parts, updates.get("batch_stats", {}))

  def _look(
    self, crops: jax.Array, looking: dict[str, Any]
  ) -> dict[str, jax.Array]:
    """See `lesson.Look`."""
    targets = {}
    for teacher in self._material.teachers:
      known, network = looking[teacher.name], teacher.looking
      view = cloaks.still(
        crops.astype(jnp.float32), network.template, network.input_size
      )
      raw = network.apply(known["weights"], view)
      targets[teacher.name] = losses.normalised(raw - known["centre"])
    return targets
