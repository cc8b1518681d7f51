"""Trains a detector: a twin of YuNet, which learns layer by layer.

See `training.blocks`: each separable convolution learns what the teacher's
makes of the teacher's features, first apart, where channels that get stuck are
drawn anew, then together, where what the grids say counts as well, more and
more, corrected by what the annotations tell beyond the teacher.
"""

import concurrent.futures
import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import rich.console

from fawkes_jax.faces import annotations
from fawkes_jax.models import yunet
from fawkes_jax.options import TrainDetectorOptions
from fawkes_jax.training import blocks
from fawkes_jax.training import state as state_lib
from fawkes_jax.training.detection import losses, scenes
from fawkes_jax.training.state import Checkpoint, State
from fawkes_jax.weights import detectors
from fawkes_jax.xla import compiler

_WARM_UP = 100
_WEIGHTS = {"score": 1.0, "box": 1.2, "points": 1.2}
"""Of what the grids say, beside the errors of blocks."""

_SMALL = 0.1
"""Of errors that are larger, the logarithm counts."""

_LEAK = 0.02
"""Of the gradients of ReLUs. Without, a quarter of the first channels died."""

_PARTS = 10
"""Into so many parts the time is divided in which blocks learn apart."""

_REDRAWN = 3, 6
"""At the ends of the parts from the first to the second of these, channels that
have not been learned are drawn anew."""

_BLOCKS = blocks.Blocks(
  yunet.YuNet(leak=_LEAK), yunet.YuNet(), yunet.ends_block
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Result:
  """What a run has reached.

  Attributes:
    variables: of `yunet.YuNet`, averaged.
    step: steps done, over all runs.
    seconds: of training, over all runs.
    photos: how many were trained on.
    singles: photos of one face that were pasted.
  """

  variables: dict[str, Any]
  step: int
  seconds: float
  photos: int
  singles: int


class Loop:
  """One run."""

  def __init__(
    self, options: TrainDetectorOptions, console: rich.console.Console
  ):
    """Reads the tables, and draws or reads the weights.

    Raises:
      FawkesError: data, teacher, weights or output cannot be used.
    """
    self._options, self._console = options, console
    state_lib.prepare(options)
    self._teacher = detectors.load_yunet()
    initial = None
    if options.initial is not None:
      initial = detectors.load_twin(options.initial)
    self._photos = annotations.photos(options.data)
    self._singles = [
      single
      for folder in options.single_faces
      for single in annotations.single_faces(Path(folder))
    ]
    self._studio = scenes.Studio(
      self._photos,
      self._singles,
      size=options.scene_size,
      seed=options.seed,
    )
    first = self._studio.draw(0, options.batch_size)
    self._first, sizes = _BLOCKS.fresh(
      self._teacher,
      jnp.asarray(first.images, jnp.float32),
      jax.random.key(options.seed),
    )
    if initial is not None:
      self._first = initial
    self._optimiser = blocks.optimiser(sizes)
    self._checkpoint = Checkpoint(
      options, data=str(len(self._photos)), teachers=[options.teacher]
    )
    self._step = compiler.jit(
      self._advance, static_argnames="apart", donate_argnums=0
    )

  def run(self) -> Result:
    """Trains until time or steps are used up; goes on from a state.

    Raises:
      FawkesError: training has diverged, or a file cannot be used.
    """
    options = self._options
    state, step, seconds = self._begin()
    begun = saved = time.monotonic() - seconds
    sums: dict[str, float] = {}
    shown, part = step, self._part(self._progress(step, seconds))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      drawn = pool.submit(self._studio.draw, step, options.batch_size)
      while (progress := self._progress(step, time.monotonic() - begun)) < 1:
        batch = drawn.result()
        drawn = pool.submit(self._studio.draw, step + 1, options.batch_size)
        if progress < options.share_apart and self._part(progress) > part:
          part = self._part(progress)
          state = self._redrawn(state, batch, step)
        state, parts = self._step(
          state,
          batch,
          self._teacher,
          jnp.float32(self._rate(step, progress)),
          jnp.float32(blocks.share(progress, options.share_apart)),
          jnp.float32(1 - progress),
          jnp.uint32(step),
          apart=progress < options.share_apart,
        )
        step += 1
        for name, value in parts.items():
          sums[name] = sums.get(name, 0.0) + float(value)
        now = time.monotonic()
        if now - saved > 60 * options.report_minutes:
          self._checkpoint.save(state, step, now - begun)
          said = ", ".join(
            f"{name} {value / (step - shown):.3f}"
            for name, value in sums.items()
          )
          self._console.print(
            f"step {step}, {(now - begun) / 60:.1f} minutes: {said}"
          )
          saved, shown, sums = now, step, {}
    seconds = time.monotonic() - begun
    self._checkpoint.save(state, step, seconds)
    self._console.print(f"{step} steps in {seconds / 60:.1f} minutes")
    return Result(
      variables=jax.device_get(state.student()),
      step=step,
      seconds=seconds,
      photos=len(self._photos),
      singles=len(self._singles),
    )

  def _begin(self) -> tuple[State, int, float]:
    state = State.begin({"student": self._first["params"]}, {}, self._optimiser)
    if not self._checkpoint.path.exists():
      return state, 0, 0.0
    state, step, seconds = self._checkpoint.restore(state)
    self._console.print(
      f"continues {self._checkpoint.path} at step {step},"
      f" {seconds / 60:.1f} minutes"
    )
    return state, step, seconds

  def _progress(self, step: int, seconds: float) -> float:
    options = self._options
    part = seconds / (60 * options.minutes)
    if options.steps is None or part >= 1:
      return part
    return step / options.steps

  def _part(self, progress: float) -> int:
    """How many parts have passed, where that tells when to draw anew."""
    apart = self._options.share_apart
    first, last = _REDRAWN
    passed = int(_PARTS * progress / apart) if apart else last
    return min(max(passed, first - 1), last)

  def _redrawn(self, state: State, batch: scenes.Scenes, step: int) -> State:
    """The state with other channels where they have not been learned."""
    student, count = _BLOCKS.redrawn(
      {"params": state.params["student"]},
      self._teacher,
      jnp.asarray(batch.images, jnp.float32),
      jax.random.fold_in(jax.random.key(self._options.seed), step),
    )
    self._console.print(f"step {step}: {count} channels are drawn anew")
    return dataclasses.replace(state, params={"student": student["params"]})

  def _rate(self, step: int, progress: float) -> float:
    fall = 0.5 * (1 + math.cos(math.pi * progress))
    return self._options.learning_rate * min(1.0, (step + 1) / _WARM_UP) * fall

  def _advance(
    self,
    state: State,
    batch: scenes.Scenes,
    teacher: dict[str, Any],
    rate: jax.Array,
    share: jax.Array,
    hints: jax.Array,
    step: jax.Array,
    *,
    apart: bool,
  ) -> tuple[State, dict[str, jax.Array]]:
    images, boxes, known = map(jnp.asarray, batch)
    images = images.astype(jnp.float32)

    def loss(params, stats, images):
      taught, features = _BLOCKS.look(teacher, images)
      student = {"params": params["student"]}
      if apart:
        _, errors = _BLOCKS.apart(student, images, features)
        parts = {}
      else:
        grids, errors = _BLOCKS.together(student, images, features, share)
        believed = losses.corrected(taught, boxes, known)
        parts = losses.imitation(grids, taught, believed)
      said = jnp.stack(list(errors.values()))
      whole = hints * _SMALL * jnp.log1p(said / _SMALL).sum()
      whole += sum(_WEIGHTS[name] * value for name, value in parts.items())
      return whole, ({"blocks": said.mean(), **parts}, stats)

    return state.advanced(
      loss,
      images,
      optimiser=self._optimiser,
      rate=rate,
      ema=self._options.ema,
      step=step,
    )
