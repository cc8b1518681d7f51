"""Options of the solver, and the modes that set them."""

import dataclasses
from typing import Any

from fawkes_jax.options import rules
from fawkes_jax.options.declared import Options, option

PRECISIONS = ("float32", "bfloat16")
"""In which the solver's extractors can compute."""


class SolverOptions(
  Options, group="solver (the mode sets what is left out)", rare=True
):
  """How a cloak is computed; the defaults are those of the mode "mid"."""

  rho: float = option(
    "largest structural dissimilarity (DSSIM) of a face",
    rules.within(0, 0.5, open_low=True),
    default=0.0135,
  )
  steps: int = option(
    "largest number of optimisation steps for a face",
    rules.within(1, 100_000),
    default=80,
  )
  learning_rate: float = option(
    "first step size, in units of 0..255",
    rules.within(0, 255, open_low=True),
    default=4.0,
    more="It is Adam's, and decays to zero along a cosine; fewer than 60 steps"
    " begin with a shorter one, at least two thirds of it",
  )
  linf: float = option(
    "largest change of a pixel's channel, in units of 0..255",
    rules.within(1, 255),
    default=48.0,
  )
  chroma: float = option(
    "largest change of a channel beyond the change of the pixel's brightness",
    rules.within(0, 255),
    default=12.0,
    more="That is from the pixel's mean change of all three, in the same"
    " units; 0 for changes of brightness alone",
  )
  own_weight: float = option(
    "weight of moving away from the person, relative to reaching a target that"
    " is a stranger",
    rules.within(0, 100),
    default=12.0,
  )
  exchange_weight: float = option(
    "the same where people approach each other",
    rules.within(0, 100),
    default=2.0,
    more="Reaching the target counts more there: a decoy protects whom it is"
    " like",
  )
  jitter: float = option(
    "random shift, scale and turn of the alignment in each step, times the"
    " spread between recognisers",
    rules.within(0, 4),
    default=1.0,
    more="Half of the views are mirrored, too, unless this is 0",
  )
  jpeg: float = option(
    "random JPEG quantisation in each step, times the photo's tables",
    rules.within(0, 4),
    default=1.0,
    more="Each step puts the change through up to this multiple of them",
  )
  jpeg_step: int = option(
    "coarsest quantisation step of a cloaked JPEG; coarser steps are"
    " subdivided, and the file grows; 0 keeps them",
    rules.within(0, 255),
    default=4,
    more="Coarser steps cannot hold the cloak; a whole number divides them",
  )
  blur: float = option(
    "random blur in each step, in pixels of the extractor's input",
    rules.within(0, 8),
    default=1.2,
    more="It is at most the half width of a triangle beyond one pixel",
  )
  extractors_per_step: int = option(
    "recognisers per step, which take turns; 0 for all",
    rules.within(0, 1000),
    default=3,
  )
  precision: str = option(
    "type in which recognisers compute: float32, bfloat16, or auto for"
    " bfloat16 on accelerators",
    rules.one_of("auto", *PRECISIONS),
    default="auto",
    more="Images, embeddings, loss and DSSIM are float32 in any case",
  )
  seed: int = option(
    "seed of the random views; the same seed gives the same bytes",
    rules.within(0, 2**31 - 1),
    default=0,
  )


# Budgets with which the mean DSSIM of the saved faces, in the box of dlib's
# detector, comes to those of Fawkes 1.0's modes: 0.004, 0.012 and 0.017. The
# change within the small budget of low is smaller, and so are its steps.
MODES = {
  "low": SolverOptions(rho=0.0045, steps=100, learning_rate=2.3),
  "mid": SolverOptions(rho=0.0135),
  "high": SolverOptions(rho=0.0192),
}


class ModeOptions(Options):
  """Which of the modes it is."""

  mode: str = option(
    "strength, and visibility, of cloaks; sets the flags of the solver",
    rules.one_of(*MODES),
    default="mid",
  )


def changed(mode: str, *changes: tuple[str, Any]) -> SolverOptions:
  """The solver of a mode with some options set otherwise.

  Raises:
    OptionError: a value breaks its rule.
  """
  base = MODES[mode]
  return dataclasses.replace(
    base, **{k: type(getattr(base, k))(v) for k, v in dict(changes).items()}
  )
