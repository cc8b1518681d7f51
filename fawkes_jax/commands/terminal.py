"""Output that the commands share."""

import collections
import contextlib
import os
import sys
import unicodedata
from typing import IO, Any

import rich.console

NAMES = 10
"""So many files are named; then it is said how to see all."""

# Characters that turn the direction of what follows.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
                     "\u2066\u2067\u2068\u2069")  # fmt: skip


def plain(text: str) -> str:
  r"""A text without what would command a terminal: that appears as \xNN."""
  if text.isprintable():
    return text
  return "".join(
    character.encode("unicode_escape").decode() if _commands(character)
    else character
    for character in text
  )  # fmt: skip


def _commands(character: str) -> bool:
  kinds = ("Cc", "Cs", "Zl", "Zp")
  return unicodedata.category(character) in kinds or character in _TURNING


class _Console(rich.console.Console):
  """Shows texts as they are, whatever names of files are in them."""

  def print(self, *objects: Any, **options: Any) -> None:
    """See `rich.console.Console.print`."""
    super().print(
      *(plain(o) if isinstance(o, str) else o for o in objects), **options
    )


class _Listener:
  """Standard output until nobody listens any more: then the work goes on."""

  def __init__(self, file: IO[str]):
    self._file = file

  def write(self, text: str) -> int:
    """See `io.TextIOBase.write`."""
    self._attempt("write", text)
    return len(text)

  def flush(self) -> None:
    """See `io.IOBase.flush`."""
    self._attempt("flush")

  def _attempt(self, method: str, *arguments: str) -> None:
    try:
      getattr(self._file, method)(*arguments)
    except (OSError, ValueError) as error:
      silence(self._file)
      if not isinstance(error, BrokenPipeError | ValueError):
        print(
          "fawkes-jax: standard output cannot be written"
          f" ({error.strerror}), and says no more",
          file=sys.stderr,
        )

  def __getattr__(self, name: str) -> Any:
    return getattr(self._file, name)


def silence(file: IO[str]) -> None:
  """Lets a stream that nobody reads end in nothing, for good."""
  with contextlib.suppress(OSError, ValueError):
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, file.fileno())
    os.close(nothing)


def console() -> rich.console.Console:
  """Standard output, for names of files that may hold anything."""
  return _Console(
    file=_Listener(sys.stdout),  # type: ignore[arg-type]
    emoji=False,
    highlight=False,
    markup=False,
    soft_wrap=True,
  )


def number(count: int, what: str) -> str:
  """A number of things, as in "1 file", "2 files"."""
  return f"{count} {what}" if count == 1 else f"{count} {what}s"


def duration(seconds: float) -> str:
  """Seconds as a person says them."""
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours} h {minutes} min"
  if minutes:
    return f"{minutes} min {rest} s"
  return f"{seconds:.1f} s"


def counted(counts: collections.Counter[str]) -> str:
  """Numbers and what they count, the largest first."""
  return ", ".join(f"{n} {what}" for what, n in counts.most_common()) or "none"


def show_metadata(
  console: rich.console.Console, counts: collections.Counter[str]
) -> None:
  """What results have lost, and whether they say who is on them.

  Args:
    console: where to.
    counts: see `outcomes.Outcome.count`.
  """
  start = "lost: "
  lost = {
    what.removeprefix(start): count
    for what, count in counts.items()
    if what.startswith(start)
  }
  if lost:
    console.print(
      f"  taken out or lost: {counted(collections.Counter(lost))}"
      " (`lost` in the manifest)"
    )
  if counts["named"]:
    console.print(
      f"  {number(counts['named'], 'result')} with names of people in the"
      " metadata; --strip_names takes them out"
    )


def show_counts(
  console: rich.console.Console, counts: collections.Counter[str]
) -> None:
  """A line for each of the 20 largest numbers."""
  for what, number in counts.most_common(20):
    console.print(f"  {number} {what}")
