"""Changes are scaled to use the budget, whatever saving adds or takes."""

import dataclasses

import numpy as np
import pytest

from fawkes_jax.engine import executor
from fawkes_jax.faces import fitting

RHO = 0.0135


@dataclasses.dataclass
class Saved:
  dssim: np.ndarray


def solution(dssim=0.99 * RHO):
  return executor.Solution(
    change=np.ones((2, 2, 3), np.float32), dssim=dssim, budget=RHO, steps=1
  )


class Format:
  """Costs something by itself where a face is changed, and more with it."""

  def __init__(self, rounding, change):
    self._rounding = np.array(rounding)
    self._change = np.array(change)
    self.tries = 0

  def __call__(self, scales):
    self.tries += 1
    dssim = self._rounding + self._change * scales**2
    return Saved(np.where(scales > 0, dssim, 0))


@pytest.mark.parametrize(
  ("rounding", "change"),
  [
    (0.0, 0.99),  # Nothing is added.
    (0.0, 0.75),  # A part of the change gets lost.
    (0.22, 1.0),  # As measured with JPEG of quality 75.
    (0.28, 1.1),
    (0.6, 1.2),
    (0.5, 1.8),
  ],
)
def test_the_budget_is_used_in_few_tries(rounding, change):
  carry = Format([rounding * RHO], [change * RHO])
  [used] = fitting.fit(carry, [solution()], RHO).dssim / RHO
  assert 0.98 < used <= 1
  assert carry.tries <= 4


def test_each_face_has_a_scale_of_its_own():
  carry = Format([0, 0.3 * RHO, 0], [0.99 * RHO, 1.1 * RHO, 0.4 * RHO])
  solutions = [solution(), solution(), solution(0.4 * RHO)]
  used = fitting.fit(carry, solutions, RHO).dssim / RHO
  assert (used[:2] > 0.98).all() and (used <= 1).all()
  # A cloak that was small before is not made larger.
  assert used[2] == pytest.approx(0.4, abs=0.01)


def test_what_costs_more_than_the_budget_by_itself_is_left_out():
  carry = Format([1.1 * RHO, 0], [RHO, 0.99 * RHO])
  used = fitting.fit(carry, [solution(), solution()], RHO).dssim / RHO
  assert used[0] == 0
  assert 0.9 < used[1] <= 1


@pytest.mark.parametrize("rho", [0.0045, RHO, 0.0192])
def test_the_solver_leaves_what_saving_uses_up(rho):
  """More of a small budget, of a JPEG, and where a crop is not reduced."""
  png = fitting.budget(rho, 1, jpeg=False) / rho
  large = fitting.budget(rho, 2, jpeg=True) / rho
  small = fitting.budget(rho, 1, jpeg=True) / rho
  assert 0.3 < small < large < png < 1
  assert small < fitting.budget(rho, 1.2, jpeg=True) / rho < large
  assert fitting.budget(2 * rho, 1, jpeg=True) / (2 * rho) > small
