"""Trains a student: from the data to what was reached in the end."""

import dataclasses
import time
from typing import Any

import jax
import rich.console

from fawkes_jax import types
from fawkes_jax.engine import mesh as mesh_lib
from fawkes_jax.imaging import geometry
from fawkes_jax.models import students
from fawkes_jax.options import TWIN, TrainOptions
from fawkes_jax.training import data, material, teachers
from fawkes_jax.training import state as state_lib
from fawkes_jax.training.distillation import Distillation
from fawkes_jax.training.learning import Learning
from fawkes_jax.training.lines import Lines
from fawkes_jax.training.material import Material
from fawkes_jax.training.measuring import Measuring
from fawkes_jax.training.schedule import Schedule
from fawkes_jax.training.state import Checkpoint, State
from fawkes_jax.training.twin import Twin


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Result:
  """What a run has reached.

  Attributes:
    student: the averaged weights: "params" and perhaps "batch_stats".
    architecture: of the student, a key of `architectures.ARCHITECTURES`.
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
    options: the options of the run.
    console: where progress is shown.

  Returns:
    What was reached when the time or the steps were used up.

  Raises:
    FawkesError: data, teachers or the state cannot be used, or the output
      cannot be written.
  """
  clock = time.monotonic()
  state_lib.prepare(options)
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
  taught = material.load(options, console=console)
  faces, split = taught.faces, taught.split
  console.print(
    f"{len(faces)} crops ({len(faces.missing)} photos without one),"
    f" {len(split.training)} to train on, {len(split.validation)} for"
    f" validation, {len(split.held_out)} held out;"
    f" {mesh.size} x {jax.devices()[0].device_kind};"
    f" prepared in {time.monotonic() - clock:.0f} s"
  )
  way = Twin if options.student == TWIN else Distillation
  return _Loop(options, taught, way(options, taught, mesh), mesh, console).run()


# Errors are relative to what is wanted: about 1 where nothing was learned.
_EXPLODED = 1e4


class _Loop:
  """One run: batches go to what learns, and what it learned to a file."""

  def __init__(
    self,
    options: TrainOptions,
    taught: Material,
    learning: Learning,
    mesh: jax.sharding.Mesh,
    console: rich.console.Console,
  ):
    self._options = options
    self._material = taught
    self._learning = learning
    self._mesh = mesh
    self._console = console
    self._schedule = Schedule(options)
    self._measuring = Measuring(options, taught, learning)
    self._checkpoint = Checkpoint(
      options,
      data=taught.faces.digest,
      teachers=[teacher.name for teacher in taught.teachers],
    )

  def run(self) -> Result:
    """Trains until time or steps are used up."""
    state, step, seconds = self._begin()
    begun = time.monotonic() - seconds
    batches = self._learning.batches.ahead(step)
    lines = Lines(self._console, self._options.batch_size)
    values: dict[str, jax.Array] = {}
    saved = time.monotonic()
    while self._schedule.progress(step, time.monotonic() - begun) < 1:
      batch = next(batches).placed(self._mesh)
      moment = self._schedule.at(step, time.monotonic() - begun)
      before = values
      state, values = self._learning.learn(state, batch, moment)
      step += 1
      # Draw one step ahead of the device, not more.
      jax.block_until_ready(before)
      now = time.monotonic()
      lines.add(values, step=step, seconds=now - begun, rate=moment.rate)
      if now - saved > 60 * self._options.report_minutes:
        self._save(state, values, step, now - begun)
        self._say(self._measuring.measure(state).text())
        saved = time.monotonic()
        lines.restart()
    batches.close()
    return self._end(state, values, step, time.monotonic() - begun)

  def _begin(self) -> tuple[State, int, float]:
    """The state to start with, steps done and seconds used."""
    learning, checkpoint = self._learning, self._checkpoint
    if self._options.initial is None:
      student = learning.drawn()
    else:
      student = learning.network.load(self._options.initial)
    state = State.begin(
      learning.learned(student),
      student.get("batch_stats", {}),
      learning.optimiser,
    )
    step, seconds = 0, 0.0
    if checkpoint.path.exists():
      state, step, seconds = checkpoint.restore(state)
      self._console.print(
        f"continues {checkpoint.path} at step {step},"
        f" {seconds / 60:.1f} minutes"
      )
    return mesh_lib.replicate(self._mesh, state), step, seconds

  def _save(
    self,
    state: State,
    values: dict[str, jax.Array],
    step: int,
    seconds: float,
  ) -> None:
    """Saves a state, unless its loss has exploded: the one before is better."""
    for name, value in values.items():
      if abs(value) > _EXPLODED:
        raise types.FawkesError(
          "--learning_rate must be small enough for the loss to fall, got"
          f" {self._options.learning_rate:g}: {name} is {float(value):.1e}"
          f" after {step} steps"
        )
    self._checkpoint.save(state, step, seconds)

  def _end(
    self,
    state: State,
    values: dict[str, jax.Array],
    step: int,
    seconds: float,
  ) -> Result:
    """Measures and saves what was reached."""
    self._save(state, values, step, seconds)
    measured = self._measuring.measure(state)
    self._say(measured.text())
    network, student = self._learning.network, state.student()
    embedding_size = network.embedding_size(student)
    self._console.print(f"{step} steps in {seconds / 60:.1f} minutes")
    return Result(
      student=jax.device_get(student),
      architecture=network.architecture,
      input_size=network.size,
      template=network.template,
      embedding_size=embedding_size,
      step=step,
      seconds=seconds,
      cosines=measured.cosines,
      accuracies=measured.accuracies,
      faces=self._material.faces,
      split=self._material.split,
      teachers=self._material.teachers,
    )

  def _say(self, measured: str) -> None:
    if measured:
      self._console.print(f"validation: {measured}")
