"""Writes down what becomes of files, as rows of the manifest."""

import datetime
import logging
from typing import Any

from fawkes_jax import types
from fawkes_jax.archive import manifest
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.runs import outcomes

_log = logging.getLogger(__name__)


class Ledger:
  """Makes the outcomes of a run; threads may use it."""

  def __init__(self, config: str):
    """Begins with nothing.

    Args:
      config: the fingerprint of the run's options.
    """
    self._config = config
    self._redone: dict[str, str] = {}

  def redo(self, source: SourceFile, why: str) -> None:
    """Notes why the result of an earlier run is not kept."""
    self._redone[source.name] = why

  def entry(
    self,
    source: SourceFile,
    status: str,
    reason: str | None,
    **fields: Any,
  ) -> outcomes.Outcome:
    """An outcome of this run.

    Args:
      source: the file.
      status: see `manifest.Row`.
      reason: the reason of the status, in words.
      **fields: others of the row.

    Returns:
      The outcome, as of now.
    """
    row = manifest.Row(
      path=source.name,
      status=status,
      reason=reason,
      config=self._config,
      finished=datetime.datetime.now(datetime.UTC).isoformat(
        timespec="seconds"
      ),
      **fields,
    )
    return outcomes.Outcome(
      row=row, fresh=True, redone=self._redone.get(source.name)
    )

  def failure(
    self, source: SourceFile, error: types.PhotoError, **fields: Any
  ) -> outcomes.Outcome:
    """The outcome of a photo that could not be cloaked."""
    if isinstance(error, types.UnexpectedError):
      _log.error("%s: %s", source.name, error, exc_info=error.__cause__)
    return self.entry(source, "failed", str(error), **fields)


def renamed(source: SourceFile, suffix: str) -> str | None:
  """The name of a result for its row, where it is not the source's.

  Args:
    source: the file.
    suffix: what its name gets, see `Photo.suffix`.
  """
  return source.name + suffix if suffix else None
