"""Trains a student: batches, the step, validation, checkpoints."""

import collections
import concurrent.futures
import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.console
import safetensors
import safetensors.numpy
from jax.sharding import NamedSharding
from jaxtyping import Float32, Int, UInt8

from fawkes_jax import types
from fawkes_jax.archive import files
from fawkes_jax.engine import mesh as mesh_lib
from fawkes_jax.imaging import geometry
from fawkes_jax.models import architectures, students
from fawkes_jax.options import TWIN, TrainOptions
from fawkes_jax.training import (
  cloaks,
  data,
  losses,
  teachers,
  twins,
  verification,
  views,
)
from fawkes_jax.weights import variables
from fawkes_jax.xla import compiler

_STATE = Path("state", "state.safetensors")
_WARM_UP = 200
"""Steps in which the learning rate rises, or a tenth of --steps if fewer."""

_PAIRS = 3000
"""Drawn pairs of each kind that are verified."""

_LINE_SECONDS = 20.0
_EVALUATION_BATCH = 64
_FITTED = 2048
"""Crops that the first linear maps to the teachers are fitted to, at most."""

_APART = 0.5
"""The share of a run in which the blocks of a twin learn apart."""

_JOINED = 0.75
"""From which share on each is given all that the ones before have made."""

_TWIN_RATE = 15.0
"""A twin's weights move by this times their own size and the learning rate."""

_AHEAD = 4
"""Batches that are drawn before they are needed."""

# What a state may be continued with although it began with something else.
_MAY_CHANGE = (
  "output",
  "name",
  "data_note",
  "minutes",
  "report_minutes",
  "pairs",
  "threads",
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
  """What one step sees.

  Attributes:
    images: the student's views, RGB; whole crops where cloaks are made.
    targets: by teacher, centred, rows of length one; none where the teachers
      look for themselves.
    labels: the identities, counted among those that are trained on.
  """

  images: UInt8[np.ndarray, "n size size 3"]
  targets: dict[str, Float32[np.ndarray, "n d"]]
  labels: Int[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Result:
  """What a run has reached.

  Attributes:
    student: the averaged weights: "params" and perhaps "batch_stats".
    architecture: of the student, a key of `registry.ARCHITECTURES`.
    input_size: height and width of its input, in pixels.
    template: the square of the face frame that the input shows.
    embedding_size: length of its embedding.
    step: steps done, over all runs.
    seconds: of training, over all runs.
    cosines: by teacher, between predicted and true embeddings of the
      validation's crops.
    accuracies: by kind of pairs, of verification, and how many pairs.
    faces: the data.
    split: which crop served what.
    teachers: that taught.
  """

  student: dict[str, Any]
  architecture: str
  input_size: int
  template: geometry.Template
  embedding_size: int
  step: int
  seconds: float
  cosines: dict[str, float]
  accuracies: dict[str, tuple[float, int]]
  faces: data.Faces
  split: data.Split
  teachers: list[teachers.Teacher]


def train(options: TrainOptions, *, console: rich.console.Console) -> Result:
  """Trains a student, or goes on where an earlier run stopped.

  Args:
    options: of the run.
    console: where progress is shown.

  Returns:
    What was reached when the time or the steps were used up.

  Raises:
    FawkesError: data, teachers or the state cannot be used, or the output
      cannot be written.
  """
  clock = time.monotonic()
  files.write_atomically(options.output / "state" / "README", _README)
  known = [*students.STUDENTS, TWIN]
  if options.student not in known:
    raise types.FawkesError(
      f"--student must be of {', '.join(known)}, got {options.student}"
    )
  mesh = mesh_lib.local_mesh()
  if options.batch_size % mesh.size:
    raise types.FawkesError(
      f"--batch_size must be a multiple of the {mesh.size} devices, got"
      f" {options.batch_size}"
    )
  faces = data.load_faces(options, console=console)
  names = data.read_names(options.holdout) if options.holdout else frozenset()
  parts = data.split(faces, options, frozenset(names))
  rows = np.concatenate([_known(options, parts), parts.validation])
  taught = [
    teachers.load_teacher(teacher, faces, rows=rows, console=console)
    for teacher in options.teachers
  ]
  if len({teacher.name for teacher in taught}) < len(taught):
    raise types.FawkesError(
      "--teachers must have different names, got"
      f" {','.join(teacher.name for teacher in taught)}"
    )
  console.print(
    f"{len(faces)} crops ({len(faces.missing)} photos without one),"
    f" {len(parts.training)} to train on, {len(parts.validation)} for"
    f" validation, {len(parts.held_out)} held out;"
    f" {mesh.size} x {jax.devices()[0].device_kind};"
    f" prepared in {time.monotonic() - clock:.0f} s"
  )
  kind = _TwinTrainer if options.student == TWIN else _Trainer
  return kind(options, faces, parts, taught, mesh, console).run()


def _known(options: TrainOptions, parts: data.Split) -> Int[np.ndarray, " k"]:
  """The crops to train on of which a teacher's embeddings are needed.

  A twin's teacher looks at every view itself, so that some are enough for its
  mean.
  """
  rows = parts.training
  if options.student != TWIN:
    return rows
  return rows[:: max(1, len(rows) // _FITTED)]


class _Trainer:
  """One run, with everything that stays the same in it."""

  _architecture: str
  _module: nn.Module
  _template: geometry.Template
  _size: int
  _optimiser: optax.GradientTransformation

  def __init__(
    self,
    options: TrainOptions,
    faces: data.Faces,
    parts: data.Split,
    taught: list[teachers.Teacher],
    mesh: jax.sharding.Mesh,
    console: rich.console.Console,
  ):
    self._options = options
    self._faces = faces
    self._parts = parts
    self._teachers = taught
    self._mesh = mesh
    self._console = console
    self._targets, self._frozen = {}, {}
    for teacher in taught:
      self._targets[teacher.name], centre = teacher.targets(
        _known(options, parts)
      )
      if self._whole:
        variables = teacher.looking.variables
        self._frozen[teacher.name] = {"weights": variables, "centre": centre}
    self._frozen = mesh_lib.replicate(mesh, self._frozen)
    _, self._labels = np.unique(
      faces.identities[parts.training], return_inverse=True
    )
    self._prepare()
    self._cloak = compiler.jit(self._cloaked)
    self._step = compiler.jit(self._advance, donate_argnums=0)
    self._embed = compiler.jit(
      lambda student, images: self._module.apply(student, images)
    )
    rows = np.concatenate([parts.validation, parts.held_out])
    self._pairs = {
      "drawn": verification.draw_pairs(
        faces.identities, rows, count=_PAIRS, seed=options.seed
      )
    }
    if options.pairs:
      self._pairs["file"] = data.read_pairs(options.pairs, faces, rows)

  def _prepare(self) -> None:
    """Chooses the student and how it learns."""
    options = self._options
    self._architecture = options.student
    self._module = students.STUDENTS[options.student](
      dtype=jnp.dtype(options.dtype)
    )
    self._template, self._size = students.TEMPLATE, students.INPUT_SIZE
    self._optimiser = optax.chain(
      optax.clip_by_global_norm(1.0),
      optax.scale_by_adam(),
      optax.add_decayed_weights(
        options.weight_decay,
        lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree),
      ),
    )

  @property
  def _whole(self) -> bool:
    """Whether a batch has whole crops, for teachers to look at."""
    return bool(self._options.cloaking)

  def run(self) -> Result:
    """Trains until time or steps are used up."""
    options, console = self._options, self._console
    state, step, seconds = self._begin()
    begun = time.monotonic() - seconds
    saved = said = time.monotonic()
    done: list[dict[str, jax.Array]] = []
    batches = self._batches(step)
    while self._progress(step, time.monotonic() - begun) < 1:
      batch = self._place(next(batches))
      state, values, rate = self._learn(
        state, batch, step, time.monotonic() - begun
      )
      step += 1
      if done:  # Draw one step ahead of the device, not more.
        jax.block_until_ready(done[-1])
      done.append(values)
      now = time.monotonic()
      if now - said > _LINE_SECONDS:
        self._say(step, now - begun, rate, done, now - said)
        done, said = [], now
      if now - saved > 60 * options.report_minutes:
        self._save(state, step, now - begun)
        self._say_measured(*self._measure(state))
        saved = said = time.monotonic()
        done = []
    batches.close()
    seconds = time.monotonic() - begun
    cosines, accuracies = self._measure(state)
    self._say_measured(cosines, accuracies)
    self._save(state, step, seconds)
    images = jax.ShapeDtypeStruct((1, self._size, self._size, 3), jnp.float32)
    embeddings = jax.eval_shape(self._embed, self._student(state), images)
    console.print(f"{step} steps in {seconds / 60:.1f} minutes")
    return Result(
      student=jax.device_get(self._student(state)),
      architecture=self._architecture,
      input_size=self._size,
      template=self._template,
      embedding_size=embeddings.shape[-1],
      step=step,
      seconds=seconds,
      cosines=cosines,
      accuracies=accuracies,
      faces=self._faces,
      split=self._parts,
      teachers=self._teachers,
    )

  def _learn(
    self,
    state: dict[str, Any],
    batch: dict[str, Any],
    step: int,
    seconds: float,
  ) -> tuple[dict[str, Any], dict[str, jax.Array], float]:
    """What is done with one batch: the new state, errors, learning rate."""
    options = self._options
    rate, bound = self._schedule(step, seconds)
    rates = jnp.float32(rate), jnp.float32(bound)
    if options.cloaking:
      batch = self._cloak(
        state, batch, self._frozen, rates[1], jnp.uint32(step)
      )
    for repeat in range(options.repeats if options.cloaking else 1):
      draw = jnp.uint32(step * options.repeats + repeat)
      state, values = self._step(state, batch, self._frozen, *rates, draw)
    return state, values, rate

  # Time.

  def _progress(self, step: int, seconds: float) -> float:
    """How much of the run is behind; it ends at 1."""
    options = self._options
    if options.steps is None:
      return seconds / (60 * options.minutes)
    late = seconds >= 60 * options.minutes
    return 1.0 if late else step / options.steps

  def _schedule(self, step: int, seconds: float) -> tuple[float, float]:
    """The learning rate and the bound of the changes to the input.

    The rate goes up along a line and down along a cosine; the bound of
    adversarial changes grows in the first third, as nothing is learned from
    changes that are too large.
    """
    options = self._options
    warm = min(_WARM_UP, (options.steps or 10 * _WARM_UP) // 10 + 1)
    if options.cloaking:
      warm = warm // options.repeats + 1
    progress = min(1.0, self._progress(step, seconds))
    fall = 0.5 * (1 + math.cos(math.pi * progress))
    rate = options.learning_rate * min(1.0, (step + 1) / warm) * fall
    bound = options.adversarial * min(1.0, 3 * progress)
    return rate, options.cloaking or bound

  # Batches.

  def _batches(self, start: int) -> Generator[Batch, None, None]:
    """The batches from a step on, drawn by threads ahead of their use."""
    with concurrent.futures.ThreadPoolExecutor(self._options.threads) as pool:
      ahead = collections.deque(
        pool.submit(self._batch, start + i) for i in range(_AHEAD)
      )
      step = start + _AHEAD
      try:
        while True:
          yield ahead.popleft().result()
          ahead.append(pool.submit(self._batch, step))
          step += 1
      finally:
        for future in ahead:
          future.cancel()

  def _batch(self, step: int) -> Batch:
    """The batch of a step: a function of the seed and the step alone."""
    options = self._options
    size = options.batch_size
    rows = self._parts.training
    epoch, turn = divmod(step, len(rows) // size)
    order = np.random.default_rng((options.seed, 0, epoch)).permutation(
      len(rows)
    )
    chosen = order[turn * size : (turn + 1) * size]
    rng = np.random.default_rng((options.seed, 1, step))
    mirrored = rng.integers(0, 2, size)
    template, output = self._template, self._size
    if self._whole:
      template, output = geometry.CROP, self._faces.crops.shape[1]
    images = [
      views.augmented(self._faces.crops[row], template, output, rng)
      for row in rows[chosen]
    ]
    return Batch(
      images=np.stack(
        [
          image[:, ::-1] if mirror else image
          for image, mirror in zip(images, mirrored, strict=True)
        ]
      ),
      targets={
        name: array[mirrored, rows[chosen]]
        for name, array in self._targets.items()
        if not self._whole
      },
      labels=self._labels[chosen].astype(np.int32),
    )

  def _place(self, batch: Batch) -> dict[str, Any]:
    """The batch on the devices, an equal part on each."""
    return jax.device_put(
      vars(batch), NamedSharding(self._mesh, mesh_lib.FACES)
    )

  # The step.

  def _losses(
    self,
    params: Any,
    stats: Any,
    images: jax.Array,
    batch: dict[str, Any],
    frozen: dict[str, Any],
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
    """The whole loss, its parts, and the new statistics."""
    del frozen  # The teachers have looked already.
    options = self._options
    embeddings, updates = self._module.apply(
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

  def _attacked(
    self,
    params: Any,
    stats: Any,
    images: jax.Array,
    batch: dict[str, Any],
    bound: jax.Array,
    key: jax.Array,
  ) -> jax.Array:
    """Images changed within the bound so that the loss is large.

    Projected gradient ascent from a random start ("Towards Deep Learning
    Models Resistant to Adversarial Attacks", Madry et al., 2017).
    """
    steps = self._options.adversarial_steps
    size = 1.25 * bound if steps == 1 else 2 * bound / steps
    gradient = jax.grad(
      lambda change: self._losses(
        params, stats, jnp.clip(images + change, 0, 255), batch, {}
      )[0]
    )
    change = bound * jax.random.uniform(key, images.shape, minval=-1)
    for _ in range(steps):
      change = change + size * jnp.sign(gradient(change))
      change = jnp.clip(change, -bound, bound)
    return jnp.clip(images + change, 0, 255)

  def _cloaked(
    self,
    state: dict[str, Any],
    batch: dict[str, Any],
    frozen: dict[str, Any],
    bound: jax.Array,
    step: jax.Array,
  ) -> dict[str, Any]:
    """The batch with mixed and cloaked faces, as the teachers embed them."""
    options = self._options
    key = jax.random.fold_in(jax.random.key(options.seed + 1), step)
    mixing, making = jax.random.split(key)
    student = {
      "params": state["params"]["student"],
      "batch_stats": state["stats"],
    }

    def embed(crops):
      view = cloaks.still(crops, self._template, self._size)
      return self._module.apply(student, view)

    crops = cloaks.cloaked(
      cloaks.mixed(batch["images"].astype(jnp.float32), mixing),
      embed,
      bound=bound,
      steps=options.cloaking_steps,
      key=making,
    )
    return batch | {"images": crops, "targets": self._shown(crops, frozen)}

  def _shown(
    self, crops: jax.Array, frozen: dict[str, Any]
  ) -> dict[str, jax.Array]:
    """What each teacher says of whole crops."""
    targets = {}
    for teacher in self._teachers:
      known, looking = frozen[teacher.name], teacher.looking
      view = cloaks.still(
        crops.astype(jnp.float32), looking.template, looking.input_size
      )
      raw = looking.apply(known["weights"], view)
      targets[teacher.name] = losses.normalised(raw - known["centre"])
    return targets

  def _advance(
    self,
    state: dict[str, Any],
    batch: dict[str, Any],
    frozen: dict[str, Any],
    rate: jax.Array,
    bound: jax.Array,
    step: jax.Array,
    loss: Callable[..., Any] | None = None,
  ) -> tuple[dict[str, Any], dict[str, jax.Array]]:
    """One step of the optimiser and of the moving average."""
    options = self._options
    params, stats = state["params"], state["stats"]
    images = batch["images"].astype(jnp.float32)
    key = jax.random.fold_in(jax.random.key(options.seed), step)
    if options.adversarial:
      images = self._attacked(params, stats, images, batch, bound, key)
    elif self._whole:
      images = cloaks.moved(images, self._template, self._size, key)
    gradients, (parts, stats) = jax.grad(loss or self._losses, has_aux=True)(
      params, stats, images, batch, frozen
    )
    updates, optimiser = self._optimiser.update(
      gradients, state["optimiser"], params
    )
    params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
    keep = jnp.minimum(options.ema, (1 + step) / (10 + step))
    average = jax.tree.map(
      lambda old, new: keep * old + (1 - keep) * new,
      state["average"],
      {"params": params, "stats": stats},
    )
    return {
      "params": params,
      "stats": stats,
      "average": average,
      "optimiser": optimiser,
    }, parts

  # The state.

  def _begin(self) -> tuple[dict[str, Any], int, float]:
    """The state to start with, steps done and seconds used."""
    options = self._options
    if options.initial is None:
      student = self._drawn()
    else:
      student = _initial(options.initial, self._architecture)
    params: dict[str, Any] = {
      "student": student["params"],
      "heads": self._heads(student),
    }
    if options.identities:
      count = int(self._labels.max()) + 1
      draw = jax.nn.initializers.lecun_normal()
      key = jax.random.key(options.seed + 1)
      params["centres"] = draw(key, (count, students.EMBEDDING_SIZE))
    both = {"params": params, "stats": student.get("batch_stats", {})}
    state = {
      **both,
      "average": jax.tree.map(jnp.copy, both),
      "optimiser": self._optimiser.init(params),
    }
    step, seconds = 0, 0.0
    path = options.output / _STATE
    if path.exists():
      state, step, seconds = _read_state(path, state, self._fingerprint())
      self._console.print(
        f"continues {path} at step {step}, {seconds / 60:.1f} minutes"
      )
    return mesh_lib.replicate(self._mesh, state), step, seconds

  def _drawn(self) -> dict[str, Any]:
    """Random variables of the student."""
    return students.initialise(self._module, self._options.seed)

  def _heads(self, student: dict[str, Any]) -> dict[str, np.ndarray]:
    """The linear maps to the teachers that suit a student as it is."""
    rows = self._parts.training[:_FITTED]
    known = self._embeddings(student, rows)
    products = known.T @ known
    ridge = 0.01 * np.trace(products) / len(products)
    products += ridge * np.eye(len(products), dtype=np.float32)
    return {
      name: np.linalg.solve(products, known.T @ array[0, rows])
      for name, array in self._targets.items()
    }

  def _fingerprint(self) -> dict[str, str]:
    """What a state must have begun with to be continued."""
    values = dataclasses.asdict(self._options)
    return {
      **{k: str(v) for k, v in values.items() if k not in _MAY_CHANGE},
      "data": self._faces.digest,
      "teachers": ",".join(t.name for t in self._teachers),
    }

  def _save(self, state: dict[str, Any], step: int, seconds: float) -> None:
    """Writes the state; the file is whole at all times.

    Raises:
      FawkesError: training has diverged, or the file cannot be written.
    """
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)):
      raise types.FawkesError(
        "--learning_rate must be small enough for finite weights, got"
        f" {self._options.learning_rate:g}"
      )
    arrays = {
      **{k: np.asarray(v) for k, v in _leaves(state).items()},
      "step": np.int64(step).reshape(1),
      "seconds": np.float64(seconds).reshape(1),
    }
    text = json.dumps(self._fingerprint(), sort_keys=True)
    files.write_atomically(
      self._options.output / _STATE,
      safetensors.numpy.save(arrays, {"run": text}),
    )

  # Measuring.

  def _student(self, state: dict[str, Any]) -> dict[str, Any]:
    """The averaged variables of the student."""
    average = state["average"]
    stats = average["stats"]
    student = {"params": average["params"]["student"]}
    return {**student, "batch_stats": stats} if stats else student

  def _measure(
    self, state: dict[str, Any]
  ) -> tuple[dict[str, float], dict[str, tuple[float, int]]]:
    """Cosines to the teachers and accuracies on faces never trained on."""
    rows = np.concatenate([self._parts.validation, self._parts.held_out])
    if not len(rows):
      return {}, {}
    student = self._student(state)
    embeddings = self._embeddings(student, rows)
    count = len(self._parts.validation)
    cosines = {}
    for name, targets in self._targets.items():
      target = targets[0, rows[:count]]
      predicted = self._predicted(state, name, embeddings[:count])
      cosines[name] = float((np.asarray(predicted) * target).sum(-1).mean())
    moved = embeddings - embeddings.mean(axis=0)
    unit = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    place = np.full(len(self._faces), -1)
    place[rows] = np.arange(len(rows))
    accuracies = {}
    for name, pairs in self._pairs.items():
      same = pairs[:, 0] == 1
      if len(pairs) < verification.FOLDS or same.all() or not same.any():
        continue
      one, other = unit[place[pairs[:, 1]]], unit[place[pairs[:, 2]]]
      value = verification.accuracy((one * other).sum(-1), same)
      accuracies[name] = value, len(pairs)
    return (cosines if count else {}), accuracies

  def _predicted(
    self, state: dict[str, Any], teacher: str, embeddings: np.ndarray
  ) -> jax.Array:
    """What embeddings of the student say of a teacher's, of length one."""
    head = state["average"]["params"]["heads"][teacher]
    return losses.normalised(jnp.asarray(embeddings) @ head)

  def _embeddings(
    self, student: dict[str, Any], rows: Int[np.ndarray, " k"]
  ) -> Float32[np.ndarray, "k d"]:
    """The student's embeddings of crops, plain and exactly aligned."""
    chunks = []
    for start in range(0, len(rows), _EVALUATION_BATCH):
      wanted = rows[start : start + _EVALUATION_BATCH]
      padded = np.resize(wanted, _EVALUATION_BATCH)  # One shape for all.
      images = np.stack(
        [
          views.still(self._faces.crops[i], self._template, self._size)
          for i in padded
        ]
      )
      result = self._embed(student, images)
      chunks.append(np.asarray(result)[: len(wanted)])
    return np.concatenate(chunks)

  # Saying.

  def _say(
    self,
    step: int,
    seconds: float,
    rate: float,
    done: list[dict[str, jax.Array]],
    elapsed: float,
  ) -> None:
    means = {k: np.mean([float(d[k]) for d in done]) for k in done[0]}
    speed = len(done) * self._options.batch_size / elapsed
    parts = ", ".join(f"{k} {v:.4f}" for k, v in means.items())
    self._console.print(
      f"step {step}, {seconds / 60:.1f} min, {speed:.0f} crops/s, rate"
      f" {rate:.1e}: {parts}"
    )

  def _say_measured(
    self,
    cosines: dict[str, float],
    accuracies: dict[str, tuple[float, int]],
  ) -> None:
    said = [f"cosine to {k} {v:.4f}" for k, v in cosines.items()]
    said += [
      f"verification of {count} {k} pairs {value:.4f}"
      for k, (value, count) in accuracies.items()
    ]
    if said:
      self._console.print(f"validation: {', '.join(said)}")


class _TwinTrainer(_Trainer):
  """Teaches a network block by block what a teacher of its shape does.

  One that an earlier run has taught begins where blocks learn together.
  """

  def _prepare(self) -> None:
    (teacher,) = self._teachers
    looking = teacher.looking
    architecture = architectures.architecture_of(looking.module)
    if architecture is None or not twins.has_blocks(
      looking.module, looking.variables, looking.input_size
    ):
      raise types.FawkesError(
        "--teachers must be of an architecture of the package that has blocks,"
        f" with --student={TWIN}; got {teacher.name}"
      )
    self._architecture = architecture
    self._module = looking.module.clone(dtype=jnp.dtype(self._options.dtype))
    self._template, self._size = looking.template, looking.input_size
    rows = self._parts.training[: self._options.batch_size]
    crops = jnp.asarray(self._faces.crops[rows], jnp.float32)
    images = cloaks.still(crops, self._template, self._size)
    self._weights, sizes = twins.fresh(
      looking.module,
      looking.variables,
      images,
      jax.random.key(self._options.seed),
    )
    self._optimiser = optax.chain(
      optax.scale_by_adam(b2=0.99),
      optax.stateless(
        lambda updates, _: jax.tree.map(
          lambda update, size: _TWIN_RATE * size * update,
          updates,
          {"student": sizes, "heads": {}},
        )
      ),
    )
    self._step_apart = compiler.jit(self._advance_apart, donate_argnums=0)

  @property
  def _whole(self) -> bool:
    return True

  def _drawn(self) -> dict[str, Any]:
    return self._weights

  def _heads(self, student: dict[str, Any]) -> dict[str, np.ndarray]:
    return {}

  def _shown(
    self, crops: jax.Array, frozen: dict[str, Any]
  ) -> dict[str, jax.Array]:
    return {}  # The teacher looks at every view.

  def _learn(
    self,
    state: dict[str, Any],
    batch: dict[str, Any],
    step: int,
    seconds: float,
  ) -> tuple[dict[str, Any], dict[str, jax.Array], float]:
    progress, share = self._progress(step, seconds), 1.0
    if self._options.initial is None:  # Blocks that know nothing yet.
      share = min(1.0, (progress - _APART) / (_JOINED - _APART))
    if share >= 0:
      batch = batch | {"share": jnp.float32(share)}
      return super()._learn(state, batch, step, seconds)
    rate, _ = self._schedule(step, seconds)
    state, values = self._step_apart(
      state, batch, self._frozen, jnp.float32(rate), jnp.uint32(step)
    )
    return state, values, rate

  def _advance_apart(
    self,
    state: dict[str, Any],
    batch: dict[str, Any],
    frozen: dict[str, Any],
    rate: jax.Array,
    step: jax.Array,
  ) -> tuple[dict[str, Any], dict[str, jax.Array]]:
    """One step in which no block depends on another."""
    key = jax.random.fold_in(jax.random.key(self._options.seed + 1), step)
    mixed = cloaks.mixed(batch["images"].astype(jnp.float32), key)
    batch = batch | {"images": mixed}
    draw = step * self._options.repeats
    return self._advance(
      state, batch, frozen, rate, jnp.float32(0), draw, self._losses_apart
    )

  def _losses(
    self,
    params: Any,
    stats: Any,
    images: jax.Array,
    batch: dict[str, Any],
    frozen: dict[str, Any],
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
    together = functools.partial(twins.together, share=batch["share"])
    return self._errors(together, params, images, frozen)

  def _losses_apart(
    self,
    params: Any,
    stats: Any,
    images: jax.Array,
    batch: dict[str, Any],
    frozen: dict[str, Any],
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
    return self._errors(twins.apart, params, images, frozen)

  def _errors(
    self,
    compare: Callable[..., dict[str, jax.Array]],
    params: Any,
    images: jax.Array,
    frozen: dict[str, Any],
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
    """The sum of the errors of all blocks, as `_Trainer._losses`.

    Of what is far off, the logarithm: one block must not drown the others.
    """
    (teacher,) = self._teachers
    weights = frozen[teacher.name]["weights"]
    shown = twins.look(self._module, weights, images)
    parts = compare(self._module, {"params": params["student"]}, images, *shown)
    blocks = jnp.stack([v for k, v in parts.items() if k != twins.EMBEDDING])
    said = {"blocks": blocks.mean(), "embedding": parts[twins.EMBEDDING]}
    return jnp.log1p(jnp.stack(list(parts.values()))).sum(), (said, {})

  def _predicted(
    self, state: dict[str, Any], teacher: str, embeddings: np.ndarray
  ) -> jax.Array:
    centre = self._frozen[teacher]["centre"]
    return losses.normalised(jnp.asarray(embeddings) - centre)


def _initial(path: Path, student: str) -> dict[str, Any]:
  """The variables that another training has written."""
  architecture, trained = variables.load(path)
  if architecture != student:
    raise types.FawkesError(
      f"--initial must be weights of {student}, got {path} of {architecture}"
    )
  return trained


def _leaves(tree: Any) -> dict[str, Any]:
  """The leaves of a tree by their paths."""
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _read_state(
  path: Path, like: dict[str, Any], expected: dict[str, str]
) -> tuple[dict[str, Any], int, float]:
  """Reads what `_Trainer._save` wrote into a tree of the same structure."""
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      begun = json.loads((file.metadata() or {})["run"])
      arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for name, value in expected.items():
      if begun.get(name) != value:
        raise types.FawkesError(
          f"--{name} must stay what {path} was begun with, {begun.get(name)},"
          f" got {value}; take another --output to begin anew"
        )
    step, seconds = int(arrays["step"][0]), float(arrays["seconds"][0])
    leaves = []
    for name, leaf in _leaves(like).items():
      if arrays[name].shape != leaf.shape:
        raise ValueError(f"{name} must be {leaf.shape}")
      leaves.append(arrays[name].astype(leaf.dtype))
    return jax.tree.unflatten(jax.tree.structure(like), leaves), step, seconds
  except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
    raise types.FawkesError(
      f"the state {path} must be whole; delete it to begin anew: {error}"
    ) from error


def save_student(
  student: dict[str, Any],
  path: Path,
  *,
  name: str,
  teachers: Sequence[str] = (),
) -> None:
  """Writes a student's weights in half precision.

  Args:
    student: its variables.
    path: the safetensors file; replaced.
    name: the architecture.
    teachers: who taught it, see `extractors.identity`.

  Raises:
    FawkesError: it cannot be written.
  """
  flat = flax.traverse_util.flatten_dict(student, sep="/")
  tensors = {k: np.asarray(v, np.float16) for k, v in flat.items()}
  files.write_atomically(
    path,
    safetensors.numpy.save(tensors, variables.metadata(name, teachers)),
  )


_README = b"""The state of a training that is not over, or could go on.
The command that wrote it goes on from it. It may be deleted.
"""
