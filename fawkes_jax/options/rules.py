"""Rules for the values of options, and the error for values that break them."""

import dataclasses
import math
import re
from collections.abc import Callable, Collection
from typing import Any

from fawkes_jax import types
from fawkes_jax.options import values


class OptionError(types.FawkesError):
  """The value of an option breaks its rule.

  Attributes:
    kind: the class of the options.
    name: the name of the option.
    rule: what the value must be; other options' names stand in braces.
    value: as it is shown.
  """

  def __init__(self, kind: type, name: str, rule: str, value: str):
    super().__init__(kind, name, rule, value)
    self.kind, self.name, self.rule, self.value = kind, name, rule, value

  def __str__(self) -> str:
    return self.spelled(str)

  def spelled(self, spell: Callable[[str], str]) -> str:
    """The message.

    Args:
      spell: how options are written, from their names: as they are, or as
        flags.
    """
    rule = re.sub(r"\{(\w+)\}", lambda match: spell(match[1]), self.rule)
    return f"{spell(self.name)} must be {rule}, got {self.value}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
  """What a value must be; None, for what is left out, keeps every rule.

  Attributes:
    says: the rule, as it follows "must be".
    keeps: whether a value keeps it.
    each: whether it is each item of the value that must.
    choices: all values that there are, where they are few.
  """

  says: str
  keeps: Callable[[Any], bool]
  each: bool = False
  choices: tuple[str, ...] | None = None


def within(low: float, high: float, *, open_low: bool = False) -> Rule:
  """Requires a number in [low, high], or in (low, high]."""
  return Rule(
    says=f"in {'(' if open_low else '['}{low:g}, {high:g}]",
    keeps=lambda value: (
      math.isfinite(value)
      and low <= value <= high
      and not (open_low and value == low)
    ),
  )


def one_of(*known: str) -> Rule:
  """Requires one of the known values."""
  *most, last = known
  return Rule(
    says=f"{', '.join(most)} or {last}",
    keeps=lambda value: value in known,
    choices=known,
  )


def several(what: str) -> Rule:
  """Requires one or more of what is named, each once."""
  return Rule(says=f"one or more {what}, each once", keeps=_each_once)


def some_of(*known: str) -> Rule:
  """Requires one or more of the known values, each once."""
  return Rule(
    says=f"of {', '.join(known)}, each once",
    choices=known,
    keeps=lambda value: _each_once(value) and set(value) <= set(known),
  )


def each(rule: Rule) -> Rule:
  """Requires of each item of a value what the rule says."""
  return dataclasses.replace(rule, each=True)


def _each_once(value: Collection[Any]) -> bool:
  return 0 < len(value) == len(set(value))


def check(options: Any, name: str, *rules: Rule) -> None:
  """Checks the value of an option.

  Raises:
    OptionError: it breaks a rule.
  """
  value = getattr(options, name)
  if value is None:
    return
  for rule in rules:
    for item in value if rule.each else (value,):
      require(options, name, rule.says, rule.keeps(item), value=item)


def require(
  options: Any, name: str, rule: str, valid: bool, *, value: Any = None
) -> None:
  """Requires what one option must be for the sake of others.

  Args:
    options: that are checked.
    name: the name of the option that the error names.
    rule: as in `OptionError`.
    valid: whether the rule is kept.
    value: what breaks it, where this is not the option's value.

  Raises:
    OptionError: the rule is broken.
  """
  if not valid:
    value = getattr(options, name) if value is None else value
    raise OptionError(type(options), name, rule, values.typed(value) or "none")
