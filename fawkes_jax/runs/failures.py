"""Confines an error to the photo that caused it."""

import contextlib
import errno
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from fawkes_jax import types

# What a run cannot go on without: a photo that meets it is not to blame.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT)
_NO_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory")

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextlib.contextmanager
def one_photo(what: str) -> Iterator[None]:
  """What goes wrong inside costs one photo and not the run.

  Args:
    what: is done with it, in words.

  Raises:
    UnexpectedError: instead of any exception but ours, and but those of a
      full disk or memory, which the next photo would meet as well.
  """
  try:
    yield
  except (types.FawkesError, MemoryError):
    raise
  except Exception as error:
    is_full = isinstance(error, OSError) and error.errno in _DISK_ERRORS
    if is_full or any(sign in str(error) for sign in _NO_MEMORY):
      raise
    raise types.UnexpectedError(
      f"unexpected {type(error).__name__} while {what}: {error}"
    ) from error


def each(
  act: Callable[[Sequence[Item]], Sequence[Result]],
  items: Sequence[Item | types.PhotoError],
  what: str,
) -> list[Result | types.PhotoError]:
  """Does something with photos together, or one by one where that fails.

  Args:
    act: gives a result for each item, whatever the others are.
    items: of photos; a PhotoError is its own result.
    what: is done with them, in words.

  Returns:
    The result of each, or why there is none.
  """
  good = [item for item in items if not isinstance(item, types.PhotoError)]
  try:
    with one_photo(what):
      results: list[Result | types.PhotoError] = [*act(good)]
  except types.PhotoError as error:
    results = [error]
    if len(good) > 1:
      results = [each(act, [item], what)[0] for item in good]
  rest = iter(results)
  return [i if isinstance(i, types.PhotoError) else next(rest) for i in items]
