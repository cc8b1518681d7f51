"""Trains a detector: from annotated photos to its weights."""

import concurrent.futures
import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import rich.console

from fawkes_jax.faces import annotations
from fawkes_jax.models import yunet
from fawkes_jax.options import TrainDetectorOptions
from fawkes_jax.training import state as state_lib
from fawkes_jax.training.detection import losses, scenes, teaching
from fawkes_jax.training.state import Checkpoint, State
from fawkes_jax.weights import detectors
from fawkes_jax.xla import compiler

_WARM_UP = 100
_WEIGHTS = {"score": 1.0, "box": 1.0, "points": 0.4, "features": 3.0}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Result:
  """What a run has reached.

  Attributes:
    variables: of `yunet.OURS`, averaged.
    step: steps done, over all runs.
    seconds: of training, over all runs.
    photos: how many were trained on.
    faces: annotated ones in them.
    singles: photos of one face that were pasted.
  """

  variables: dict[str, Any]
  step: int
  seconds: float
  photos: int
  faces: int
  singles: int


class Loop:
  """One run."""

  def __init__(
    self, options: TrainDetectorOptions, console: rich.console.Console
  ):
    """Reads the tables, and lets the teacher look at the photos.

    Raises:
      FawkesError: data, teacher or output cannot be used.
    """
    self._options, self._console = options, console
    state_lib.prepare(options)
    self._teacher = detectors.load_yunet()
    self._photos = teaching.with_landmarks(
      annotations.photos(options.data),
      self._teacher,
      kept=options.output / "state" / "teacher.safetensors",
    )
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
    self._optimiser = optax.chain(
      optax.clip_by_global_norm(10.0),
      optax.scale_by_adam(b2=0.99),
      optax.add_decayed_weights(options.weight_decay),
    )
    self._checkpoint = Checkpoint(
      options, data=str(len(self._photos)), teachers=[options.teacher]
    )
    self._step = compiler.jit(self._advance, donate_argnums=0)

  def run(self) -> Result:
    """Trains until time or steps are used up; goes on from a state.

    Raises:
      FawkesError: training has diverged, or a file cannot be used.
    """
    options = self._options
    state, step, seconds = self._begin()
    begun = saved = time.monotonic() - seconds
    sums: dict[str, float] = {}
    shown = step
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      drawn = pool.submit(self._studio.draw, step, options.batch_size)
      while (progress := self._progress(step, time.monotonic() - begun)) < 1:
        batch = drawn.result()
        drawn = pool.submit(self._studio.draw, step + 1, options.batch_size)
        state, parts = self._step(
          state,
          vars(batch),
          self._teacher,
          jnp.float32(self._rate(step, progress)),
          jnp.float32(self._imitated(progress)),
          jnp.uint32(step),
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
      faces=sum(int((~photo.ignored).sum()) for photo in self._photos),
      singles=len(self._singles),
    )

  def _begin(self) -> tuple[State, int, float]:
    size = yunet.MULTIPLE
    drawn = dict(
      jax.jit(yunet.OURS.init)(
        jax.random.key(self._options.seed), jnp.zeros((1, size, size, 3))
      )
    )
    # At first nearly no cell finds a face.
    params = drawn["params"]
    for i in range(len(yunet.STRIDES)):
      layer = params[f"head_{i}"]["depthwise"]
      layer["bias"] = layer["bias"].at[: yunet.OURS.scores].set(-4.0)
    state = State.begin(
      {"student": params}, drawn["batch_stats"], self._optimiser
    )
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

  def _rate(self, step: int, progress: float) -> float:
    fall = 0.5 * (1 + math.cos(math.pi * progress))
    return self._options.learning_rate * min(1.0, (step + 1) / _WARM_UP) * fall

  def _imitated(self, progress: float) -> float:
    share = self._options.imitation
    return max(0.0, 1 - progress / share) if share else 0.0

  def _advance(
    self,
    state: State,
    batch: dict[str, jax.Array],
    teacher: dict[str, Any],
    rate: jax.Array,
    imitated: jax.Array,
    step: jax.Array,
  ) -> tuple[State, dict[str, jax.Array]]:
    images = batch["images"].astype(jnp.float32)
    shared = [f"shared_{i}" for i in range(len(yunet.STRIDES))]

    def features(module, variables, images, **options):
      result, changed = module.apply(
        variables,
        images,
        capture_intermediates=lambda part, _: part.name in shared,
        **options,
      )
      kept = changed["intermediates"]
      return result, [kept[name]["__call__"][0] for name in shared], changed

    def imitation(student):
      _, taught, _ = features(
        yunet.YuNet(), teacher, images, mutable=["intermediates"]
      )
      parts = [
        jnp.square(own - theirs).mean() / theirs.var()
        for own, theirs in zip(student, taught, strict=True)
      ]
      return sum(parts) / len(parts)

    def loss(params, stats, images):
      grids, own, changed = features(
        yunet.OURS,
        {"params": params["student"], "batch_stats": stats},
        images,
        train=True,
        mutable=["batch_stats", "intermediates"],
      )
      parts = losses.detection(
        grids, batch["boxes"], batch["points"], batch["kinds"]
      )
      parts["features"] = jax.lax.cond(
        imitated > 0, imitation, lambda _: jnp.float32(0), own
      )
      weights = _WEIGHTS | {"features": _WEIGHTS["features"] * imitated}
      whole = sum(weights[name] * value for name, value in parts.items())
      return whole, (parts, changed["batch_stats"])

    return state.advanced(
      loss,
      images,
      optimiser=self._optimiser,
      rate=rate,
      ema=self._options.ema,
      step=step,
    )
