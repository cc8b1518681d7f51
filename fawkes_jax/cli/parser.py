"""The parser of flags: errors of one line, help of two levels."""

import argparse
import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl.flags import argparse_flags

from fawkes_jax.archive import files


class Parser(argparse_flags.ArgumentParser):
  """Says in a line what is wrong, and shows rare flags only when asked to."""

  def __init__(self, **options: Any):
    super().__init__(
      **options,
      add_help=False,
      allow_abbrev=False,
      inherited_absl_flags=None,
    )
    self._rare: list[argparse.Action] = []
    self._groups: dict[str | None, Any] = {None: self}
    for names, what in (
      (("-h", "--help"), "the flags that people need"),
      (("--help_all",), "all flags"),
    ):
      self.add_argument(
        *names,
        action=_Help,
        nargs=0,
        dest=argparse.SUPPRESS,
        default=argparse.SUPPRESS,
        help=f"show {what} and exit",
      )

  def add(
    self, *names: str, group: str | None, rare: bool, **options: Any
  ) -> None:
    """Adds a flag.

    Args:
      *names: its spelling, or the name of a positional argument.
      group: the title under which help shows it; None for no title.
      rare: whether only `--help_all` shows it.
      **options: of `argparse.ArgumentParser.add_argument`.
    """
    if group not in self._groups:
      self._groups[group] = self.add_argument_group(group)
    action = self._groups[group].add_argument(*names, **options)
    if rare:
      self._rare.append(action)

  def error(self, message: str) -> NoReturn:
    """Ends the program, without thirty lines of flags."""
    self.exit(2, f"{self.prog}: {message} ({self.prog} --help)\n")

  def flags(self) -> list[str]:
    """All that it knows."""
    return [name for name in self._option_string_actions if name[1] == "-"]

  def commands(self) -> dict[str, "Parser"]:
    """The parsers of its subcommands, by their names."""
    kinds = (argparse._SubParsersAction,)
    found = (a.choices for a in self._actions if isinstance(a, kinds))
    return dict(next(found, {}))

  def show(self, *, everything: bool) -> None:
    """Prints the help: all flags, or those that people need."""
    rare = [] if everything else self._rare
    texts = [action.help for action in rare]
    for action in rare:
      action.help = argparse.SUPPRESS
    if rare:
      self.epilog = f"{self.prog} --help_all shows {len(rare)} flags more."
    self.print_help()
    self.epilog = None
    for action, text in zip(rare, texts, strict=True):
      action.help = text

  def read(
    self, words: Sequence[str]
  ) -> tuple[argparse.Namespace, "Parser", list[str]]:
    """Reads a command line; says what is wrong with a flag, and exits.

    Returns:
      The arguments, the parser of the subcommand, and the words that are left.
    """
    words = list(map(_spelled, words))
    chosen = self
    for word in words:
      if word in chosen.commands():
        chosen = chosen.commands()[word]
      elif word == "--":
        break
      elif word.startswith("--"):
        chosen._require_known(word.partition("=")[0])
    arguments, rest = self.parse_known_args(words)
    return arguments, chosen, rest

  def _require_known(self, flag: str) -> None:
    """Names the flag that was probably meant, where there is no such flag."""
    known = self.flags()
    if flag not in known:
      near = difflib.get_close_matches(flag, known, n=1)
      meant = f"; did you mean {near[0]}?" if near else ""
      self.error(f"there is no flag {flag}{meant}")


class _Help(argparse.Action):
  """Shows a parser's help."""

  def __call__(
    self, parser: Any, namespace: Any, values: Any, option: str | None = None
  ) -> None:
    parser.show(everything=option == "--help_all")
    parser.exit()


def _spelled(word: str) -> str:
  """A flag with dashes in its name as it is spelled here."""
  if not word.startswith("--"):
    return word
  name, equals, value = word[2:].partition("=")
  return f"--{name.replace('-', '_')}{equals}{value}"


def expanded(value: Any) -> Any:
  """A flag's value: paths with ~, or as file:// URLs, as paths.

  Lists become tuples. Shells expand ~ at the start of a word only, not in
  --input=~/photos.
  """
  if isinstance(value, list | tuple):
    return tuple(map(expanded, value))
  if isinstance(value, Path):
    return Path(expanded(str(value)))
  if not isinstance(value, str):
    return value
  return os.path.expanduser(files.from_url(value))
