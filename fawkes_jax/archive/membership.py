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
    """
    self._store = store
    self._state = State(
      process=process,
      processes=processes,
      config=config,
      host=socket.gethostname(),
    )
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

  def wait(self, missing: Callable[[], dict[int, int]]) -> None:
    """Waits on process 0 until every process has done its share.

    Args:
      missing: by process, how many photos still have no outcome.

    Raises:
      types.FawkesError: nothing has changed for too long; it names who is
        missing and what.
    """
    mine = self._state
    patience = _Patience(self._wait_seconds)
    looked = None
    while True:
      states = {s.process: s for s in self._read() if s.run() == mine.run()}
      absent = [
        number
        for number in range(mine.processes)
        if number not in states or states[number].state != "done"
      ]
      signs = [(n, states[n].beat) for n in absent if n in states]
      if not absent and signs != looked and not missing():
        self._watch(list(states.values()))
        return
      looked = signs
      if patience.ended(signs):
        raise types.FawkesError(self._why(states, absent, missing()))
      time.sleep(BEAT_SECONDS / 4)

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

  def _why(
    self, states: dict[int, State], absent: list[int], left: dict[int, int]
  ) -> str:
    """What to say when the others do not go on."""
    said = [
      f"process {number} of {self._state.processes}"
      + (" stopped" if number in states else " never arrived")
      + f" ({left.pop(number, 0)} photos have no outcome)"
      for number in absent
    ]
    if rest := sum(left.values()):
      said.append(f"{rest} photos more have no outcome: the input has changed")
    return (
      "; ".join(said) + "; the same command continues, with any number of"
      " processes"
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

  def ended(self, seen: object = None) -> bool:
    """Whether what is seen has been the same for too long."""
    now = time.monotonic()
    if seen != self._seen:
      self._seen, self._since = seen, now
    return now - self._since > self._seconds


def _name(process: int) -> str:
  return f"{manifest.FOLDER}/process-{process:04}.json"


def _shown(state: State) -> str:
  return (
    f"configuration {state.config}, {state.processes} processes, version"
    f" {state.version}"
  )
