"""The learning rate and other values that follow the progress of a run."""

import dataclasses
import math

from fawkes_jax.options import TrainOptions

_WARM_UP = 200
"""Steps in which the learning rate rises, or a tenth of --steps if fewer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moment:
  """Where a run is when a batch is learned from.

  Attributes:
    step: how many steps are done.
    progress: how much of the run is behind, 0..1.
    rate: the learning rate.
    bound: of the changes to the input, L-infinity, in units of 0..255.
  """

  step: int
  progress: float
  rate: float
  bound: float


class Schedule:
  """When a run ends, and what changes on the way.

  The learning rate goes up along a line and down along a cosine; the bound of
  adversarial changes grows in the first third, as nothing is learned from
  changes that are too large.
  """

  def __init__(self, options: TrainOptions):
    self._options = options

  def progress(self, step: int, seconds: float) -> float:
    """How much of the run is behind; it ends at 1.

    Args:
      step: steps done.
      seconds: of training.
    """
    options = self._options
    if options.steps is None:
      return seconds / (60 * options.minutes)
    late = seconds >= 60 * options.minutes
    return 1.0 if late else step / options.steps

  def at(self, step: int, seconds: float) -> Moment:
    """The moment after so many steps and seconds."""
    options = self._options
    warm = min(_WARM_UP, (options.steps or 10 * _WARM_UP) // 10 + 1)
    if options.cloaking:
      warm = warm // options.repeats + 1
    progress = min(1.0, self.progress(step, seconds))
    fall = 0.5 * (1 + math.cos(math.pi * progress))
    return Moment(
      step=step,
      progress=progress,
      rate=options.learning_rate * min(1.0, (step + 1) / warm) * fall,
      bound=options.cloaking or options.adversarial * min(1.0, 3 * progress),
    )
