"""The processes of a run, and how they know of each other.

They share nothing but the output folder. Each keeps a small file there,
`.manifest/process-0003.json`, and writes it again every few seconds: which run
it takes part in, and how far it is. Nobody looks at a clock but its own: a
process is alive as long as its file changes.
"""

import contextlib
import dataclasses
import datetime
import json
import socket
import threading
import time
from collections.abc import Callable

from fawkes_jax import types, version
from fawkes_jax.archive import files, manifest, storage

BEAT_SECONDS = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
  """What a process says of itself.

  Attributes:
    process: its number, from 0.
    processes: how many there are in its run.
    config: the fingerprint of its configuration.
    version: of the package.
    state: "running", "done" with its share, or "stopped" by an error.
    host: the machine that it runs on.
    beat: how often it has said so.
    time: when, UTC, in ISO 8601, by its own clock.
    counts: how far it is.
    shares: whose shares it does: its own, and those of processes that gave no
      sign of life.
    phase: how many phases of these it has done.
    left: how many photos of these it is to cloak, as far as it knows.
  """

  process: int
  processes: int
  config: str
  version: str = version.__version__
  state: str = "running"
  host: str = ""
  beat: int = 0
  time: str = ""
  counts: dict[str, int] = dataclasses.field(default_factory=dict)
  shares: tuple[int, ...] = ()
  phase: int = 0
  left: int = 0

  def run(self) -> tuple[int, str, str]:
    """What all processes of a run have in common."""
    return self.processes, self.config, self.version


def read(store: storage.Store) -> list[State]:
  """What the processes of an output folder have said last, by their number.

  Raises:
    OSError: it cannot be read.
  """
  states = []
  for name in store.names(manifest.FOLDER):
    if name.startswith("process-") and name.endswith(".json"):
      try:
        fields = json.loads(store.read(f"{manifest.FOLDER}/{name}"))
        fields["shares"] = tuple(fields.get("shares", ()))
        states.append(State(**fields))
      except (FileNotFoundError, ValueError, TypeError):
        continue  # It has just left, or is of another version.
  return states


class Team:
  """This process among those of its run; use it in a `with` statement."""

  def __init__(
    self,
    store: storage.Store,
    *,
    process: int,
    processes: int,
    config: str,
    wait_seconds: float,
    counts: Callable[[], dict[str, int]],
    watch: Callable[[list[State]], None] = lambda states: None,
    warn: Callable[[str], None] = lambda message: None,
  ):
    """Describes a process.

    Args:
      store: the output folder.
      process: its number, from 0.
      processes: how many there are.
      config: the fingerprint of its configuration.
      wait_seconds: for another process that gives no sign of life.
      counts: gives how far this process is; called from a thread.
      watch: called on process 0 of several with what all of them say: now and
        then from a thread, and when all are done.
      warn: is told, in words, whose share this process takes over.
    """
    self._store = store
    self._state = State(
      process=process,
      processes=processes,
      config=config,
      host=socket.gethostname(),
      shares=(process,),
    )
    self._warn = warn
    self._first: dict[int, int] = {}
    self._seen: set[int] = {process}
    self._done: set[int] = set()
    self._patience: dict[int, _Patience] = {}
    self._wait_seconds = wait_seconds
    self._counts = counts
    self._watch = watch
    self._ended = threading.Event()
    self._lock = threading.Lock()
    self._thread = threading.Thread(target=self._beat, daemon=True)

  def __enter__(self) -> "Team":
    try:
      self._say()
    except OSError as error:
      raise self._failure(error) from error
    self._thread.start()
    return self

  def __exit__(self, *error: object) -> None:
    self._fall_silent()
    if error[0] is not None:
      self._state = dataclasses.replace(self._state, state="stopped")
      with contextlib.suppress(OSError):
        self._say()

  def meet(self) -> None:
    """Waits for process 0, and makes sure that it is in the same run.

    Raises:
      types.FawkesError: it is in another run, or never arrives.
    """
    mine = self._state
    if mine.process == 0:
      return
    patience = _Patience(self._wait_seconds)
    before = None
    while True:
      first = next((s for s in self._read() if s.process == 0), None)
      if first is not None and first.run() == mine.run():
        return
      # One that is left over from an earlier run does not change.
      lives = first and before and first.beat != before.beat
      if lives or patience.ended():
        if first is None:
          raise types.FawkesError(
            f"process 0 of {mine.processes} never arrived: no sign of it in"
            f" {self._store.address} for {self._wait_seconds / 60:.2g} minutes"
          )
        raise types.FawkesError(
          "all processes of a run must have the same flags and version:"
          f" process 0 has {_shown(first)}, process {mine.process} has"
          f" {_shown(mine)}"
        )
      before = first
      time.sleep(BEAT_SECONDS / 4)

  def left(self, count: int) -> None:
    """Notes how many photos of its shares this process is to cloak."""
    with self._lock:
      self._state = dataclasses.replace(self._state, left=count)

  @property
  def shares(self) -> tuple[int, ...]:
    """Whose shares this process does."""
    return self._state.shares

  def leads(self) -> bool:
    """Whether what one process does for all is done by this one."""
    return 0 in self._state.shares

  def reach(
    self,
    phase: int,
    take: Callable[[int], None],
    *,
    leader: bool = False,
  ) -> int:
    """Ends a phase, and waits until the others have ended it.

    What they have done of it must last when they say so. The share of a
    process that gives no sign of life for too long is taken over by the first
    of those that wait.

    Args:
      phase: that this process has done, from 1.
      take: does all phases up to this one for another process's share.
      leader: whether only the process that leads is waited for.

    Returns:
      How many photos all processes together are to cloak.

    Raises:
      types.FawkesError: the folder cannot be used.
    """
    self._enter(phase)
    while True:
      states = self._living()
      done = [s for s in states.values() if s.phase >= phase]
      covered = {share for state in done for share in state.shares}
      needed = {0} if leader else set(range(self._state.processes))
      if needed <= covered:
        return sum(state.left for state in done)
      for number in sorted(needed - covered):
        if self._is_silent(number) and self._is_first_of(states):
          self._take(number, phase, take)
      time.sleep(BEAT_SECONDS / 4)

  def done(self) -> None:
    """Says that this process has done its share.

    Raises:
      types.FawkesError: that cannot be written.
    """
    if self._state.process:
      # Nothing may be said any more when process 0 has removed it all.
      self._fall_silent()
    with self._lock:
      self._state = dataclasses.replace(self._state, state="done")
    try:
      self._say()
    except OSError as error:
      raise self._failure(error) from error

  def wait(
    self,
    missing: Callable[[], dict[int, int]],
    take: Callable[[int], None] = lambda share: None,
  ) -> None:
    """Waits on process 0 until every process has done its share.

    Args:
      missing: by process, how many photos still have no outcome.
      take: does the share of a process that gives no sign of life for too
        long.

    Raises:
      types.FawkesError: photos are left that nobody does; it names who is
        missing and what.
    """
    mine = self._state
    while True:
      states = self._living()
      covered = {
        share
        for state in states.values()
        if state.state == "done" or state.process == mine.process
        for share in state.shares
      }
      absent = sorted(set(range(mine.processes)) - covered)
      for number in absent:
        if self._is_silent(number):
          self._take(number, mine.phase, take)
      if not absent:
        if left := missing():
          raise types.FawkesError(self._why(left))
        self._watch(list(states.values()))
        return
      time.sleep(BEAT_SECONDS / 4)

  def _enter(self, phase: int) -> None:
    with self._lock:
      self._state = dataclasses.replace(self._state, phase=phase)
    try:
      self._say()
    except OSError as error:
      raise self._failure(error) from error

  def _living(self) -> dict[int, State]:
    """The processes of this run that have given a sign of life in it.

    What an earlier run has left does not change.
    """
    states = {
      s.process: s for s in self._read() if s.run() == self._state.run()
    }
    states[self._state.process] = self._state
    for number, state in states.items():
      if self._first.setdefault(number, state.beat) != state.beat:
        self._seen.add(number)
    self._done = {n for n, s in states.items() if s.state == "done"}
    for number in range(self._state.processes):
      beat = states[number].beat if number in states else None
      self._patience.setdefault(number, _Patience(self._wait_seconds)).look(
        beat
      )
    return {n: s for n, s in states.items() if n in self._seen}

  def _is_silent(self, number: int) -> bool:
    """Whether a process gives no sign of life any more.

    Of one that has done its share none is to be expected.
    """
    if number == self._state.process:
      return False
    patience = self._patience[number]
    if number in self._done:
      return patience.seconds() > min(self._wait_seconds, 4 * BEAT_SECONDS)
    return patience.ended()

  def _is_first_of(self, states: dict[int, State]) -> bool:
    """Whether this process is the first of those that live."""
    living = (n for n in states if not self._is_silent(n))
    return min(living, default=0) == self._state.process

  def _take(self, number: int, phase: int, take: Callable[[int], None]) -> None:
    """Does the share of a process that is gone."""
    mine = self._state.process
    self._warn(
      f"process {number} of {self._state.processes} gave no sign of life for"
      f" {self._wait_seconds / 60:.2g} minutes: process {mine} does its share"
    )
    self._enter(phase - 1)
    take(number)
    with self._lock:
      self._state = dataclasses.replace(
        self._state, shares=(*self._state.shares, number)
      )
    self._enter(phase)

  def wait_for_first(self) -> None:
    """Waits until process 0 has left, or gives no sign of life any more."""
    patience = _Patience(self._wait_seconds)
    while True:
      first = next((s for s in self._read() if s.process == 0), None)
      if first is None or patience.ended(first.beat):
        return
      time.sleep(BEAT_SECONDS / 4)

  def dissolve(self) -> None:
    """Removes what the processes have said, in the end.

    Raises:
      types.FawkesError: that cannot be done.
    """
    self._fall_silent()
    try:
      for state in reversed(read(self._store)):
        self._store.remove(_name(state.process))
    except OSError as error:
      raise self._failure(error) from error

  def _fall_silent(self) -> None:
    self._ended.set()
    self._thread.join()

  def _why(self, left: dict[int, int]) -> str:
    """What to say when photos have no outcome in the end."""
    return (
      f"{sum(left.values())} photos have no outcome: the input has changed; the"
      " same command continues, with any number of processes"
    )

  def _beat(self) -> None:
    while not self._ended.wait(BEAT_SECONDS):
      try:
        self._say()
        if self._state.process == 0 and self._state.processes > 1:
          self._watch(
            [s for s in read(self._store) if s.run() == self._state.run()]
          )
      except OSError:
        continue  # What matters is said where it matters.

  def _say(self) -> None:
    with self._lock:
      self._state = dataclasses.replace(
        self._state,
        beat=self._state.beat + 1,
        counts=dict(self._counts()),
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
      )
      text = json.dumps(dataclasses.asdict(self._state))
      self._store.write(_name(self._state.process), text.encode())

  def _read(self) -> list[State]:
    try:
      return read(self._store)
    except OSError as error:
      raise self._failure(error) from error

  def _failure(self, error: OSError) -> types.FawkesError:
    return types.FawkesError(
      f"{self._store.address}/{manifest.FOLDER} cannot be used:"
      f" {files.reason(error)}"
    )


class _Patience:
  """How long nothing has changed."""

  def __init__(self, seconds: float):
    self._seconds = seconds
    self._seen: object = None
    self._since = time.monotonic()

  def look(self, seen: object) -> None:
    """Notes what is seen now."""
    if seen != self._seen:
      self._seen, self._since = seen, time.monotonic()

  def ended(self, seen: object = None) -> bool:
    """Whether what is seen has been the same for too long."""
    if seen is not None:
      self.look(seen)
    return self.seconds() > self._seconds

  def seconds(self) -> float:
    """Since when nothing has changed."""
    return time.monotonic() - self._since


def _name(process: int) -> str:
  return f"{manifest.FOLDER}/process-{process:04}.json"


def _shown(state: State) -> str:
  return (
    f"configuration {state.config}, {state.processes} processes, version"
    f" {state.version}"
  )
