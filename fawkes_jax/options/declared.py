"""How an option is declared, once: its docstring, flag and rules follow.

    class NapOptions(Options):
      "A run of `fawkes-jax nap`."

      minutes: float = option(
        "that a nap takes at most",
        rules.within(0, 90, open_low=True),
        default=20.0,
      )

is a frozen dataclass. `NapOptions(minutes=0)` raises an error that names the
option, its rule and the value; `help(NapOptions)` shows what it is; and a
command of these options has a flag `--minutes` (`fawkes_jax.cli`).
"""

import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Callable
from typing import Any, ClassVar

from fawkes_jax.options import rules

_KEY = "option"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
  """What is declared of an option beside its name, type and default.

  Attributes:
    help: what it is, with its unit, as `--help` and the docstring say it.
    checks: the rules that its value must keep.
    more: what there is to say beyond a line of `--help`.
    flag: the name of its flag, without dashes; None for the option's.
    positional: how help names it, if it is given without a flag.
    hidden: whether it has no flag of its own, but is made from others.
    shown: the default in words, where the value does not tell.
    group: the title under which help shows the flag; None for no title.
    rare: whether only `--help_all` shows it.
    read: makes a value of a flag's text, where the type does not tell how.
  """

  help: str
  checks: tuple[rules.Rule, ...] = ()
  more: str = ""
  flag: str | None = None
  positional: str | None = None
  hidden: bool = False
  shown: str | None = None
  group: str | None = None
  rare: bool = False
  read: Callable[[str], Any] | None = None

  @property
  def doc(self) -> str:
    """What it is, its range where `help` does not tell, and what is more."""
    ranges = ", ".join(
      rule.says
      for rule in self.checks
      if not rule.choices or any(word not in self.help for word in rule.choices)
    )
    told = f"{self.help}; {ranges}" if ranges else self.help
    return f"{told}. {self.more}" if self.more else told


def option(
  help: str,
  *checks: rules.Rule,
  default: Any = dataclasses.MISSING,
  **details: Any,
) -> Any:
  """Declares an option.

  Args:
    help: what it is.
    *checks: what its value must be.
    default: its value where none is given; without one it must be given.
    **details: the rest of an `Option`.

  Returns:
    The field of an `Options`.
  """
  declaration = Option(help=help, checks=checks, **details)
  return dataclasses.field(default=default, metadata={_KEY: declaration})


def of(field: dataclasses.Field) -> Option:
  """What is declared of a field of `Options`."""
  return field.metadata[_KEY]


def flag(kind: type, name: str) -> str:
  """The flag of an option, with its dashes, from the option's name."""
  named = {field.name: field for field in dataclasses.fields(kind)}
  return f"--{of(named[name]).flag or name}"


@typing.dataclass_transform(
  kw_only_default=True, frozen_default=True, field_specifiers=(option,)
)
class Options:
  """Options of a run: each subclass is a frozen dataclass of `option`s.

  A subclass may say `group` or `rare` for all options that it declares.
  """

  __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

  def __init_subclass__(
    cls, *, group: str | None = None, rare: bool = False
  ) -> None:
    """Makes a dataclass of the class and documents its options."""
    for field in vars(cls).values():
      if isinstance(field, dataclasses.Field):
        own = of(field)
        own = dataclasses.replace(
          own, group=own.group or group, rare=own.rare or rare
        )
        field.metadata = types.MappingProxyType({_KEY: own})
    dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    fields = dataclasses.fields(cls)
    lines = [
      textwrap.fill(
        f"{field.name}: {of(field).doc}.",
        width=78,
        initial_indent="  ",
        subsequent_indent="    ",
        break_on_hyphens=False,
      )
      for field in fields
    ]
    if lines:
      about = inspect.cleandoc(cls.__doc__ or "")
      cls.__doc__ = "\n".join((about, "", "Attributes:", *lines))

  def __post_init__(self) -> None:
    """Checks each option by its rules; subclasses check more.

    Raises:
      OptionError: a value breaks a rule.
    """
    for field in dataclasses.fields(self):
      rules.check(self, field.name, *of(field).checks)
