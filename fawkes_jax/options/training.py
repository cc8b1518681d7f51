"""Options that all kinds of training share.

Functions, since a training's card and its state have its options in the order
in which its class declares them.
"""

from typing import Any

from fawkes_jax.options import rules
from fawkes_jax.options.declared import option


def output() -> Any:
  """Where the results go."""
  return option(
    "folder for the results",
    more="It gets the weights, a model card and the state",
  )


def data_note() -> Any:
  """What the model card says of the data."""
  return option(
    "source and licence of the data, for the model card",
    default="source and licence not stated",
    rare=True,
  )


def minutes() -> Any:
  """How long it may take."""
  return option(
    "longest training time, in minutes",
    rules.within(0, 100_000, open_low=True),
    default=60.0,
    more="They count over all runs that continue one another",
  )


def steps() -> Any:
  """How many steps there may be."""
  return option(
    "largest number of training steps",
    rules.within(1, 10**9),
    default=None,
    shown="as many as the minutes allow",
    more="The learning rate falls towards the last step, without one towards"
    " the end of the minutes",
  )


def apart() -> Any:
  """How long a twin's blocks learn apart."""
  return option(
    "share of the run in which a twin's blocks learn apart",
    rules.within(0, 1),
    default=None,
    shown="0.5; 0 with --initial",
    more="Then they learn together, each given what the ones before have made",
    rare=True,
  )


def share_apart(apart: float | None, initial: object) -> float:
  """The share of the run in which a twin's blocks learn apart.

  Random blocks need that; what an earlier run has taught can do without.

  Args:
    apart: the option.
    initial: the option, None for random blocks.
  """
  if apart is not None:
    return apart
  return 0.5 if initial is None else 0.0
