"""Prints the progress of a training run."""

import time

import jax
import numpy as np
import rich.console

SECONDS = 20.0
"""Between two lines."""


class Lines:
  """Gathers what steps say, and prints the means."""

  def __init__(self, console: rich.console.Console, batch_size: int):
    self._console = console
    self._batch_size = batch_size
    self.restart()

  def restart(self) -> None:
    """Forgets all steps: what comes now does not count as their time."""
    self._steps: list[dict[str, jax.Array]] = []
    self._since = time.monotonic()

  def add(
    self,
    values: dict[str, jax.Array],
    *,
    step: int,
    seconds: float,
    rate: float,
  ) -> None:
    """Adds a step, and prints a line where it is time.

    Args:
      values: what the step says, by name.
      step: how many steps are done.
      seconds: of training.
      rate: the learning rate.
    """
    self._steps.append(values)
    elapsed = time.monotonic() - self._since
    if elapsed <= SECONDS:
      return
    means = {k: np.mean([float(v[k]) for v in self._steps]) for k in values}
    speed = len(self._steps) * self._batch_size / elapsed
    parts = ", ".join(f"{k} {v:.4f}" for k, v in means.items())
    self._console.print(
      f"step {step}, {seconds / 60:.1f} min, {speed:.0f} crops/s, rate"
      f" {rate:.1e}: {parts}"
    )
    self.restart()
