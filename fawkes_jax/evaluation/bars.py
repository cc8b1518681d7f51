"""Progress of an evaluation: bars in a terminal, lines elsewhere."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import rich.console
import rich.progress

from fawkes_jax.runs import outcomes

Item = TypeVar("Item")


class Bars:
  """Shows how many photos are done."""

  def __init__(self, console: rich.console.Console):
    self._console = console

  def track(self, todo: Sequence[Item], title: str) -> Iterable[Item]:
    """The items, with a bar where there is something to do."""
    if not todo:
      return todo
    if not self._console.is_terminal:
      self._console.print(f"{title}: {len(todo)} photos")
      return todo
    return rich.progress.track(todo, title, console=self._console)

  @contextlib.contextmanager
  def cloaking(self, title: str, photos: int) -> Iterator[outcomes.Tally]:
    """A bar of a run of the pipeline.

    Args:
      title: the title of the bar.
      photos: how many are cloaked.

    Yields:
      The run's watcher.
    """
    if not self._console.is_terminal:
      self._console.print(f"{title}: {photos} photos")
    with rich.progress.Progress(
      rich.progress.TextColumn("{task.description}"),
      rich.progress.BarColumn(),
      rich.progress.MofNCompleteColumn(),
      rich.progress.TimeElapsedColumn(),
      rich.progress.TimeRemainingColumn(),
      console=self._console,
    ) as progress:
      yield _Advancing(progress, progress.add_task(title, total=photos))


class _Advancing(outcomes.Tally):
  """Moves a bar with each photo."""

  def __init__(
    self, progress: rich.progress.Progress, task: rich.progress.TaskID
  ):
    super().__init__()
    self._progress = progress
    self._task = task

  def settled(self, outcome: outcomes.Outcome) -> None:
    """See `outcomes.Watcher`."""
    super().settled(outcome)
    self._progress.advance(self._task)
