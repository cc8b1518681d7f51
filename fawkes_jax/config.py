"""Options of a run: frozen, validated where they are built.

Each error names the flag, the rule and the value.
"""

import dataclasses
import hashlib
import json
import math
from typing import Any

from fawkes_jax import types


def _require(flag: str, rule: str, value: Any, valid: bool) -> None:
  """Raises a FawkesError unless the value keeps the rule."""
  if not valid:
    raise types.FawkesError(f"--{flag} must be {rule}, got {value}")


def _require_number(
  flag: str, value: float, low: float, high: float, *, open_low: bool = False
) -> None:
  """Requires a number in [low, high], or in (low, high]."""
  rule = f"in {'(' if open_low else '['}{low:g}, {high:g}]"
  valid = math.isfinite(value) and low <= value <= high
  _require(flag, rule, value, valid and not (open_low and value == low))


@dataclasses.dataclass(frozen=True, kw_only=True)
class SolverOptions:
  """How a cloak is computed.

  Attributes:
    rho: the budget of structural dissimilarity (DSSIM) of a face, in (0, 0.5].
    steps: optimisation steps of a face at most.
    learning_rate: Adam's first step size, in units of 0..255; it decays to
      zero along a cosine.
    linf: the largest change of a pixel's channel, in units of 0..255.
    own_weight: weight of the penalty on what is left of the own identity,
      beside the distance to the target.
    jitter: by how much the alignment is moved and scaled at random in each
      step, as a fraction of the extractor's field of view.
    patience: a face ends early when this many steps brought no improvement
      of its loss beyond one percent; 0 never ends early.
    seed: of the random views.
  """

  rho: float = 0.012
  steps: int = 40
  learning_rate: float = 2.0
  linf: float = 24.0
  own_weight: float = 1.0
  jitter: float = 0.01
  patience: int = 0
  seed: int = 0

  def __post_init__(self):
    _require_number("rho", self.rho, 0, 0.5, open_low=True)
    _require_number("steps", self.steps, 1, 100_000)
    _require_number("learning_rate", self.learning_rate, 0, 255, open_low=True)
    _require_number("linf", self.linf, 1, 255)
    _require_number("own_weight", self.own_weight, 0, 100)
    _require_number("jitter", self.jitter, 0, 0.2)
    _require_number("patience", self.patience, 0, 100_000)
    _require_number("seed", self.seed, 0, 2**32 - 1)


def fingerprint(options: Any) -> str:
  """A short digest of everything in some options that changes the output.

  Args:
    options: a dataclass or a tree of dictionaries with JSON leaves.

  Returns:
    Twelve hexadecimal digits.
  """
  if dataclasses.is_dataclass(options) and not isinstance(options, type):
    options = dataclasses.asdict(options)
  text = json.dumps(options, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]
