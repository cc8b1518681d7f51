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
