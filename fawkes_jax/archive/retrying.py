"""Retries what fails for a moment, with growing pauses."""

from collections.abc import Callable
from typing import Any, TypeVar

import tenacity

_PERMANENT = (
  FileExistsError,
  FileNotFoundError,
  IsADirectoryError,
  NotADirectoryError,
  PermissionError,
)

Result = TypeVar("Result")


def call(function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
  """Calls what may fail for a moment.

  Args:
    function: of a file system.
    *args: of the function.
    **kwargs: of the function.

  Returns:
    What it gives.

  Raises:
    OSError: it fails for good; nothing else is raised.
  """
  try:
    return _RETRYING(function, *args, **kwargs)
  except OSError:
    raise
  except Exception as error:  # Each file system may raise what it likes.
    raise OSError(f"{type(error).__name__}: {error}") from error


def _may_pass(error: BaseException) -> bool:
  """Whether an error may be gone the next time."""
  if isinstance(error, _PERMANENT) or not isinstance(error, Exception):
    return False
  if "Credential" in type(error).__name__:
    return False
  code = getattr(error, "code", None)
  refused = isinstance(code, int) and 400 <= code < 500
  return not refused or code in (408, 429)


_RETRYING = tenacity.Retrying(
  retry=tenacity.retry_if_exception(_may_pass),
  stop=tenacity.stop_after_attempt(6),
  wait=tenacity.wait_random_exponential(multiplier=0.5, max=10),
  reraise=True,
)
