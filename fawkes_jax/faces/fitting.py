"""Scales the changes of faces so that saved faces stay within the budget."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
from jaxtyping import Float

from fawkes_jax.engine import executor

# Saving costs or adds a little: the change is scaled until what is saved is
# between this fraction of what it aims at and the budget, in so many tries.
_BUDGET_BAND = 0.99
MAX_TRIES = 5
AIM = 0.995
# From one try to the next, the square of a scale changes by no more than this.
_LIMITS = 0.1, 1.5**2
_TINY = 1e-6
# What saving adds to a DSSIM of `_AT`, and the power of the DSSIM with which
# that grows: without loss, and in a JPEG by how much a crop is reduced.
_AT = 0.0135
_LOSSLESS = 0.00148, 0.85
_SCALES = 1.0, 1.4
_JPEG = (0.00473, 0.00202), (0.68, 0.45)
# A face whose embeddings keep this cosine, as the mean over the extractors, is
# known nearly as well as before; docs/cloaking.md has the measurement.
_NEARLY_THE_SAME = 0.95


class Measured(Protocol):
  """What becomes of faces, once their changes are scaled and carried."""

  @property
  def dssim(self) -> Any:
    """Of each face, float [n], or what another budget measures."""


Attempt = TypeVar("Attempt", bound=Measured)


def fit(
  attempt: Callable[[Float[np.ndarray, " n"]], Attempt],
  solutions: list[executor.Solution],
  rho: float,
) -> Attempt:
  """Scales changes until no face exceeds the budget.

  Resampling and quantisation take some of a change away or add to it, so each
  change is scaled by its own factor; to nothing where what carries it (lossy
  WebP, HEIC) uses up a very small budget. What is measured grows with the
  square of the scale, from what rounding costs by itself; at first by what the
  solver measured, then by what two tries tell.

  Args:
    attempt: carries the changes, times a scale for each face, and measures.
    solutions: the solutions of the faces.
    rho: the budget.

  Returns:
    The attempt within the budget that uses most of it.
  """
  solved = np.array([solution.dssim for solution in solutions])
  # Use all of the budget where the solver came close to its own, else as much
  # of it.
  used = solved / np.array([solution.budget for solution in solutions])
  wanted = np.where(used > 0.8, AIM, used) * rho
  scales = np.ones(len(solutions))
  best, most = None, -1.0
  before = np.zeros((2, len(solutions)))  # What rounding costs, at scale 0.
  for tried in range(1, 4 * MAX_TRIES):
    result = attempt(scales)
    dssim = np.asarray(result.dssim)
    over = dssim > rho
    if not over.any() and dssim.sum() > most:
      best, most = result, float(dssim.sum())
    settled = not over.any() and (dssim >= _BUDGET_BAND * wanted).all()
    if best is not None and (tried >= MAX_TRIES or settled):
      return best
    # Whoever goes over the budget again aims lower, in the end at nothing.
    lower = (1.0 if tried == 1 else AIM) if tried < MAX_TRIES else 0.5
    wanted = np.where(over, lower * wanted, wanted)
    wanted = np.where(wanted > 0.05 * rho, wanted, 0)
    squares = scales**2
    if tried == 1:
      before[0] = np.maximum(dssim - solved, 0)
    growth = _growth(dssim, squares, before)
    before = np.array([dssim, squares])
    ratio = 1 + (wanted - dssim) / (growth * np.maximum(squares, _TINY))
    ratio = np.sqrt(np.clip(ratio, *_LIMITS))
    scales = np.clip(np.where(wanted > 0, scales * ratio, 0), 0, 2)
  # What carries it costs more than the budget allows: no change at all.
  return attempt(np.zeros(len(solutions)))


def budget(rho: float, scale: float, *, jpeg: bool) -> float:
  """What the solver may use of a budget; saving uses up the rest.

  A cloak that is found within less of it is better than one that is scaled
  down (docs/cloaking.md).

  Args:
    rho: the budget.
    scale: pixels of the photo for one of the crop, at least about 1.
    jpeg: whether the photo is a JPEG, whose rounding costs more the less a
      crop is reduced.

  Returns:
    The solver's part, more than 0.
  """
  added, power = _LOSSLESS
  if jpeg:
    added, power = (float(np.interp(scale, _SCALES, y)) for y in _JPEG)

  def saved(dssim: float) -> float:
    return dssim + added * (dssim / _AT) ** power

  low, high = 0.0, rho
  for _ in range(30):
    middle = (low + high) / 2
    low, high = (middle, high) if saved(middle) < rho else (low, middle)
  return high


def _growth(
  dssim: Float[np.ndarray, " n"],
  squares: Float[np.ndarray, " n"],
  before: Float[np.ndarray, "2 n"],
) -> Float[np.ndarray, " n"]:
  """How fast what is measured grows with the squares of scales.

  Args:
    dssim: what is measured, or another budget's measure.
    squares: of the scales.
    before: both in another try.

  Returns:
    By face; where the tries are too near to each other to tell anything but
    rounding, as if nothing were measured at scale 0.
  """
  whole = np.maximum(dssim, _TINY) / np.maximum(squares, _TINY)
  rise, run = np.array([dssim, squares]) - before
  useful = (np.abs(run) > 0.01 * squares) & (rise * run > 0)
  found = rise / np.where(useful, run, 1)
  return np.where(useful, np.minimum(found, 2 * whole), whole)


def why_unprotected(
  solution: executor.Solution, carrier: str, cosine: float, *, changed: bool
) -> str | None:
  """Why a face is as it was for those that are to take it for another's.

  Args:
    solution: the solution of the solver.
    carrier: what the change is saved in, in words.
    cosine: between its embeddings before and after, as saved, as the mean over
      the extractors.
    changed: whether any of the solution was saved.

  Returns:
    None where it is protected.
  """
  if cosine <= _NEARLY_THE_SAME:
    return None
  if is_nothing(solution.change):
    return f"no cloak was found in {solution.steps} steps"
  if not changed:
    return f"{carrier} has no room for a cloak within the budget"
  return f"the cloak moves it by nearly nothing (cosine {cosine:.2f})"


def is_nothing(change: np.ndarray) -> bool:
  """Whether a change leaves a face as it is."""
  return not np.any(change)
