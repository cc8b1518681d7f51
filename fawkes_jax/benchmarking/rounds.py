"""Measures several things in turn, so that a disturbance affects all alike."""

import abc
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax


class Subject(abc.ABC):
  """Something whose speed is measured.

  Attributes:
    part: which table it belongs to.
    title: what it is, by column of that table.
  """

  part: str
  title: Mapping[str, Any]

  @abc.abstractmethod
  def prepare(self) -> Mapping[str, Any]:
    """Does everything once, compiling what is to be compiled.

    Returns:
      What is known afterwards, by name.
    """

  @abc.abstractmethod
  def measure(self, seconds: float) -> Mapping[str, float]:
    """Works for so many seconds, and at least once.

    Returns:
      By unit, how many a second, or other figures of the same work.
    """


@dataclasses.dataclass(kw_only=True, eq=False)
class Result:
  """What was measured of a subject.

  Attributes:
    subject: it.
    facts: what `prepare` returned.
    rounds: what `measure` returned in each round.
    problem: why there is nothing more, or None.
  """

  subject: Subject
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  rounds: list[Mapping[str, float]] = dataclasses.field(default_factory=list)
  problem: str | None = None

  def values(self, unit: str) -> list[float]:
    """The figures of all rounds; none where there was a problem."""
    rounds = [] if self.problem else self.rounds
    return [figures[unit] for figures in rounds if unit in figures]

  def spread(self, unit: str) -> dict[str, Any] | None:
    """The median, the extremes and all figures; None without any."""
    values = self.values(unit)
    if not values:
      return None
    return {
      "value": statistics.median(values),
      "low": min(values),
      "high": max(values),
      "rounds": values,
    }

  def median(self, unit: str) -> float | None:
    """The median over the rounds; None without any."""
    values = self.values(unit)
    return statistics.median(values) if values else None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Work(Subject):
  """A function that does the same work each time.

  Attributes:
    part: see `Subject`.
    title: see there.
    call: does the work and waits for its end.
    amounts: by unit, how much work that is.
  """

  part: str
  title: Mapping[str, Any]
  call: Callable[[], Any]
  amounts: Mapping[str, float]

  def prepare(self) -> Mapping[str, Any]:
    """Does the work once."""
    self.call()
    return {}

  def measure(self, seconds: float) -> Mapping[str, float]:
    """Does the work again and again."""
    calls, spent = repeat(self.call, seconds)
    return {
      f"{unit}/s": calls * amount / spent
      for unit, amount in self.amounts.items()
    }


def repeat(call: Callable[[], Any], seconds: float) -> tuple[int, float]:
  """Calls a function until so many seconds have passed, at least once.

  Returns:
    How many times, and the seconds that really passed.
  """
  calls, started = 0, time.perf_counter()
  while True:
    call()
    calls += 1
    spent = time.perf_counter() - started
    if spent >= seconds:
      return calls, spent


def run(
  subjects: Iterable[Subject],
  *,
  count: int,
  seconds: float,
  say: Callable[[str], None],
) -> list[Result]:
  """Prepares all subjects, then measures each once in each round.

  Args:
    subjects: what to measure; each is asked for when the ones before it are
      prepared.
    count: of the rounds.
    seconds: that each measurement takes at least.
    say: called with what is done next.

  Returns:
    The results, in the same order. A subject that needs more memory than
    there is has that as its problem, and the others go on.
  """
  results: list[Result] = []
  for subject in subjects:
    say(f"preparing {describe(subject)}")
    results.append(Result(subject=subject))
    _guarded(results[-1], _prepare)
  for index in range(count):
    say(f"round {index + 1} of {count}")
    for result in results:
      if result.problem is None:
        _guarded(result, lambda r: r.rounds.append(r.subject.measure(seconds)))
  return results


def describe(subject: Subject) -> str:
  """A subject in one line."""
  words = [subject.part]
  for name, value in subject.title.items():
    words.append(value if isinstance(value, str) else f"{name} {value}")
  return ", ".join(words)


def _prepare(result: Result) -> None:
  result.facts = result.subject.prepare()


def _guarded(result: Result, function: Callable[[Result], None]) -> None:
  """Turns a lack of memory into the result's problem."""
  try:
    function(result)
  except (MemoryError, jax.errors.JaxRuntimeError) as error:
    lack = isinstance(error, MemoryError)
    if not lack and "RESOURCE_EXHAUSTED" not in str(error):
      raise
    first = (str(error).splitlines() or [""])[0]
    result.problem = f"out of memory: {first}"


def best(results: Sequence[Result], unit: str, **title: Any) -> float | None:
  """The highest figure of the results with some title; None without any."""
  values = [
    value
    for result in results
    if title.items() <= result.subject.title.items()
    for value in result.values(unit)
  ]
  return max(values, default=None)
