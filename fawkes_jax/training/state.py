"""What changes while a student learns, and the file that keeps it."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors
import safetensors.numpy

from fawkes_jax import types
from fawkes_jax.archive import files
from fawkes_jax.options import TrainDetectorOptions, TrainOptions

# What a state may be continued with although it began with something else.
_MAY_CHANGE = (
  "output",
  "name",
  "data_note",
  "minutes",
  "threshold",
  "report_minutes",
  "pairs",
  "threads",
)

_README = b"""The state of a training that is not over, or could go on.
The command that wrote it goes on from it. It may be deleted.
"""

Loss = Callable[
  [Any, Any, jax.Array], tuple[jax.Array, tuple[dict[str, jax.Array], Any]]
]
"""Of what is learned, the statistics and images: the whole loss, its parts by
name, and the new statistics."""


@flax.struct.dataclass
class State:
  """What changes from step to step.

  Attributes:
    average: moving averages of "params" and "stats".
    optimiser: its state.
    params: all that is learned: the "student"'s weights, and whatever else a
      way of learning needs.
    stats: of the student's batch normalisation.
  """

  # In the order of their names, in which files of states have them.
  average: dict[str, Any]
  optimiser: Any
  params: Any
  stats: Any

  @classmethod
  def begin(
    cls, params: Any, stats: Any, optimiser: optax.GradientTransformation
  ) -> "State":
    """The state before the first step."""
    both = {"params": params, "stats": stats}
    return cls(
      average=jax.tree.map(jnp.copy, both),
      optimiser=optimiser.init(params),
      params=params,
      stats=stats,
    )

  def advanced(
    self,
    loss: Loss,
    images: jax.Array,
    *,
    optimiser: optax.GradientTransformation,
    rate: jax.Array,
    ema: float,
    step: jax.Array,
  ) -> tuple["State", dict[str, jax.Array]]:
    """Does one step of the optimiser and of the moving average.

    Args:
      loss: to be made smaller.
      images: that it is taken of.
      optimiser: of this state.
      rate: the learning rate.
      ema: how much of the average remains, at most.
      step: steps done; the first ones are averaged over a shorter time.

    Returns:
      The new state, and the parts of the loss.
    """
    gradients, (parts, stats) = jax.grad(loss, has_aux=True)(
      self.params, self.stats, images
    )
    updates, moved = optimiser.update(gradients, self.optimiser, self.params)
    params = jax.tree.map(lambda p, u: p - rate * u, self.params, updates)
    keep = jnp.minimum(ema, (1 + step) / (10 + step))
    average = jax.tree.map(
      lambda old, new: keep * old + (1 - keep) * new,
      self.average,
      {"params": params, "stats": stats},
    )
    return State(
      average=average, optimiser=moved, params=params, stats=stats
    ), parts

  def student(self) -> dict[str, Any]:
    """The averaged variables of the student."""
    stats = self.average["stats"]
    student = {"params": self.average["params"]["student"]}
    return {**student, "batch_stats": stats} if stats else student


class Checkpoint:
  """The file in the output that a run goes on from."""

  def __init__(
    self,
    options: TrainOptions | TrainDetectorOptions,
    *,
    data: str,
    teachers: Sequence[str],
  ):
    """Reads and writes nothing yet.

    Args:
      options: of the run.
      data: the digest of the faces.
      teachers: their names.
    """
    self.path = _folder(options) / "state.safetensors"
    self._learning_rate = options.learning_rate
    values = dataclasses.asdict(options)
    self._begun_with = {
      **{k: str(v) for k, v in values.items() if k not in _MAY_CHANGE},
      "data": data,
      "teachers": ",".join(teachers),
    }

  def save(self, state: State, step: int, seconds: float) -> None:
    """Writes a state; the file is whole at all times.

    Args:
      state: of the run.
      step: steps done.
      seconds: of training.

    Raises:
      FawkesError: training has diverged, or the file cannot be written.
    """
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)):
      raise types.FawkesError(
        "--learning_rate must be small enough for finite weights, got"
        f" {self._learning_rate:g}"
      )
    arrays = {
      **{k: np.asarray(v) for k, v in _leaves(state).items()},
      "step": np.int64(step).reshape(1),
      "seconds": np.float64(seconds).reshape(1),
    }
    text = json.dumps(self._begun_with, sort_keys=True)
    files.write_atomically(
      self.path, safetensors.numpy.save(arrays, {"run": text})
    )

  def restore(self, like: State) -> tuple[State, int, float]:
    """Reads what an earlier run has saved.

    Args:
      like: a state of the same structure.

    Returns:
      The state, the steps that were done and the seconds of training.

    Raises:
      FawkesError: the file cannot be read, is damaged, or is of a run with
        other options.
    """
    path = self.path
    try:
      with safetensors.safe_open(path, framework="numpy") as file:
        begun = json.loads((file.metadata() or {})["run"])
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
      self._check(begun)
      step, seconds = int(arrays["step"][0]), float(arrays["seconds"][0])
      return _unflattened(arrays, like), step, seconds
    except (
      OSError,
      ValueError,
      KeyError,
      safetensors.SafetensorError,
    ) as error:
      raise types.FawkesError(
        f"the state {path} must be whole; delete it to begin anew: {error}"
      ) from error

  def _check(self, begun: dict[str, str]) -> None:
    """Makes sure that a state was begun as this run was."""
    for name, value in self._begun_with.items():
      if begun.get(name) != value:
        raise types.FawkesError(
          f"--{name} must stay what {self.path} was begun with,"
          f" {begun.get(name)}, got {value}; take another --output to begin"
          " anew"
        )


def prepare(options: TrainOptions | TrainDetectorOptions) -> None:
  """Makes the folder of the state, with a file that says what it is.

  Raises:
    FawkesError: the output cannot be written.
  """
  files.write_atomically(_folder(options) / "README", _README)


def _folder(options: TrainOptions | TrainDetectorOptions) -> Path:
  return options.output / "state"


def _leaves(tree: Any) -> dict[str, Any]:
  """The leaves of a tree by their paths."""
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _unflattened(arrays: dict[str, np.ndarray], like: State) -> State:
  """Arrays by their paths as a state; ValueError where shapes differ."""
  leaves = []
  for name, leaf in _leaves(like).items():
    if arrays[name].shape != leaf.shape:
      raise ValueError(f"{name} must be {leaf.shape}")
    leaves.append(arrays[name].astype(leaf.dtype))
  return jax.tree.unflatten(jax.tree.structure(like), leaves)
