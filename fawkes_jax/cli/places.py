"""Inputs and the output without flags, as in `fawkes-jax cloak IN OUT`."""

import argparse

from fawkes_jax.cli import parser as parsers


def add(parser: parsers.Parser) -> None:
  """Adds the positional arguments."""
  parser.add(
    "places",
    nargs="*",
    metavar="IN ... OUT",
    help="what --input and --output say, without their names",
    group=None,
    rare=False,
  )


def take(
  arguments: argparse.Namespace, parser: parsers.Parser, *, input_needed: bool
) -> None:
  """Makes inputs and the output of what came without the name of a flag.

  Args:
    arguments: that were read; `places` goes, `input` and `output` are set.
    parser: that says what is wrong, and exits.
    input_needed: whether the command has nothing to do without an input.
  """
  places = arguments.places
  del arguments.places
  inputs = arguments.input or []
  if places and inputs and (arguments.output is not None or len(places) > 1):
    parser.error(f"unrecognized arguments: {' '.join(places)}")
  if places and arguments.output is None:
    arguments.output = places.pop()
  inputs = inputs or places
  if input_needed and not inputs:
    parser.error("the following arguments are required: --input, --output")
  if arguments.output is None:
    parser.error("the following arguments are required: --output")
  arguments.input = inputs[0] if len(inputs) == 1 else tuple(inputs) or None
