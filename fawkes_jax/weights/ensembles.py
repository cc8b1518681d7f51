"""Names that stand for several recognisers."""

import dataclasses
from collections.abc import Iterable
from typing import TypeVar

from fawkes_jax.options import FaceOptions
from fawkes_jax.weights import catalogue

FREE = "free"
"""All free recognisers that are here, see `free`."""

_Options = TypeVar("_Options", bound=FaceOptions)


def fetchable() -> list[str]:
  """What `fawkes-jax weights fetch free` gets.

  Returns:
    The public recognisers that can be fetched, have a free licence and are not
    heavy.
  """
  return [
    name
    for name, record in catalogue.public().items()
    if record.fetchable and not record.built_in and _is_wanted(record)
  ]


def free() -> tuple[str, ...]:
  """What "free" stands for on this machine.

  Returns:
    Those that are built in, those of `catalogue.public` that were fetched or
    imported, have a free licence and are not heavy, and the package's students
    of all others.
  """
  kept = catalogue.kept()
  public = [
    name
    for name, record in catalogue.public().items()
    if record.built_in or (name in kept and _is_wanted(record))
  ]
  students = [
    name
    for name in catalogue.students()
    if not set(catalogue.teachers(name)) & set(public)
  ]
  return (*public, *students)


def expanded(names: Iterable[str]) -> tuple[str, ...]:
  """Names of recognisers, with those that "free" stands for in its place.

  Args:
    names: what --surrogates takes.

  Returns:
    Each name once, in their order.
  """
  parts = [free() if name == FREE else (name,) for name in names]
  return tuple(dict.fromkeys(name for part in parts for name in part))


def resolved(options: _Options) -> _Options:
  """Options that name each recogniser, as a run must be able to go on.

  Args:
    options: of any command that loads recognisers.

  Returns:
    The same, but for `extractors`, see `expanded`.
  """
  return dataclasses.replace(options, extractors=expanded(options.extractors))


def _is_wanted(record: catalogue.Recogniser) -> bool:
  return not (record.research_only or record.heavy or record.finds_faces)
