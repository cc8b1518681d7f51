"""Values of options as they are typed, with commas and semicolons, and back."""

from collections.abc import Callable
from typing import Any


def words(text: str) -> tuple[str, ...]:
  """Words between commas."""
  return tuple(part for part in text.split(",") if part)


def numbers(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
  """What reads numbers between commas, each by `kind`."""

  def numbers(text: str) -> tuple[Any, ...]:
    return tuple(map(kind, words(text)))

  return numbers


def changes(text: str) -> tuple[tuple[tuple[str, float], ...], ...]:
  """Changes of solver options, as in "jpeg=0,blur=0;own_weight=0"."""
  return tuple(
    tuple(
      (name, float(value))
      for name, _, value in (part.partition("=") for part in words(change))
    )
    for change in text.split(";")
  )


def typed(value: Any, word: Callable[[Any], str] = str) -> str:
  """A value as it would be typed.

  Args:
    value: of an option: also a tuple, or a tuple of tuples.
    word: writes what is no tuple.
  """
  if _is_change(value):
    return f"{value[0]}={value[1]:g}"
  if isinstance(value, tuple):
    nested = any(isinstance(v, tuple) and not _is_change(v) for v in value)
    return (";" if nested else ",").join(typed(v, word) for v in value)
  return word(value)


def _is_change(value: Any) -> bool:
  """Whether it is an option of the solver and its value."""
  return (
    isinstance(value, tuple)
    and len(value) == 2
    and isinstance(value[0], str)
    and isinstance(value[1], int | float)
  )
