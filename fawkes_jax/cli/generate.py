"""Flags from the declarations of options."""

import dataclasses
import typing
from collections.abc import Callable, Iterator
from typing import Any

from fawkes_jax.cli import parser as parsers
from fawkes_jax.options import declared, values


def declarations(
  kind: type[declared.Options],
) -> Iterator[tuple[dataclasses.Field, declared.Option]]:
  """Fields and what is declared of them, as help shows them.

  What must be given is before the rest, what people need before what is rare,
  and what has no title before the groups.
  """
  pairs = [(field, declared.of(field)) for field in dataclasses.fields(kind)]
  yield from sorted(
    pairs,
    key=lambda pair: (
      pair[1].group is not None,
      pair[1].rare,
      pair[0].default is not dataclasses.MISSING,
    ),
  )


def add_flag(
  parser: parsers.Parser,
  kind: type[declared.Options],
  field: dataclasses.Field,
  *,
  required: bool = True,
  default: Any = dataclasses.MISSING,
  shown: str | None = None,
) -> None:
  """Adds the flag of an option.

  Args:
    parser: that gets it.
    kind: the options.
    field: of them.
    required: whether it must be given if the option must.
    default: what the parser says where it is not given, instead of the
      option's default.
    shown: the default in words, instead of what the option says of it.
  """
  option = declared.of(field)
  hint = field.type
  said = default_of(field) if shown is None else shown
  text = f"{option.help} ({said})" if said else option.help
  details: dict[str, Any] = {
    **_reading(hint, option),
    "help": text.replace("%", "%%"),
  }
  if option.positional is not None:
    names = (field.name,)
    details["metavar"] = option.positional
    if typing.get_origin(hint) is tuple:
      details |= {"nargs": "+", "type": str}
  else:
    names = (declared.flag(kind, field.name),)
    details["dest"] = field.name
    if field.default is dataclasses.MISSING:
      details["required"] = required
    else:
      details["default"] = (
        field.default if default is dataclasses.MISSING else default
      )
  parser.add(*names, group=option.group, rare=option.rare, **details)


def default_of(field: dataclasses.Field) -> str | None:
  """The default as help shows it; None for what goes without saying."""
  option = declared.of(field)
  if option.shown is not None:
    return option.shown
  if any(field.default is none for none in (None, dataclasses.MISSING, False)):
    return None
  return values.typed(field.default, word)


def word(value: Any) -> str:
  """A value that is no tuple, as help shows it."""
  return f"{value:g}" if isinstance(value, float) else str(value)


def _reading(hint: Any, option: declared.Option) -> dict[str, Any]:
  """How argparse gets an option's value of what is typed."""
  kinds = _kinds(hint)
  if bool in kinds:
    return {"action": "store_true"}
  if option.read is not None:
    return {"type": option.read}
  if str in kinds:
    several = any(typing.get_origin(kind) is tuple for kind in kinds)
    return {"action": "append"} if several else {"type": str} | _choices(option)
  [kind] = kinds
  return {"type": _reader(kind)}


def _choices(option: declared.Option) -> dict[str, Any]:
  found = [rule.choices for rule in option.checks if rule.choices]
  return {"choices": found[0]} if found else {}


def _kinds(hint: Any) -> list[Any]:
  """The types of a union without None, or the one that it is."""
  if typing.get_origin(hint) is tuple or not typing.get_args(hint):
    return [hint]
  return [kind for kind in typing.get_args(hint) if kind is not type(None)]


def _reader(kind: Any) -> Callable[[str], Any]:
  """What makes a value of a text: numbers, paths, and tuples with commas.

  Tuples of tuples have semicolons between them.
  """
  if typing.get_origin(kind) is not tuple:
    return kind
  item = typing.get_args(kind)[0]
  if typing.get_origin(item) is tuple:
    read = _reader(item)
    return lambda text: tuple(map(read, text.split(";")))
  return values.words if item is str else values.numbers(item)
