"""Cloaks an archive on a Ray cluster whose machines come and go.

This process lists the archive and records what becomes of each file. A worker
on each accelerator holds the compiled engine, takes some files at a time, reads
and writes the photos itself, and sends rows back as soon as they are known.
When a worker is lost, what it had not finished goes to another one; when a
machine joins, it gets workers. All files are surveyed before the first is
cloaked, see `phases`. In between one worker finds out who is who, and has the
machines of all search for neighbours.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from fawkes_jax import types
from fawkes_jax.archive import manifest, membership, scan, stores
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.faces import cloaker, grouping
from fawkes_jax.options import CloakOptions
from fawkes_jax.runs import (
  choosing,
  leaks,
  outcomes,
  people,
  phases,
  pipeline,
)
from fawkes_jax.weights import ensembles
from fawkes_jax.xla import memory

# Files of a task: what an accelerator is kept busy with, and a lost machine
# loses at most.
_TASK_FILES = {"CPU": 32, "GPU": 1024, "TPU": 1024}
_LOOK_SECONDS = 2.0
_WAIT_SECONDS = 0.5
_NOTICE_SECONDS = 15.0
# A machine that stays while its workers die did not come and go: it is ill, or
# a photo is.
_MOST_DEATHS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Surveyed:
  """What is left to do for files that were surveyed, see `Phases`."""

  left: set[str]
  unknown: set[str]


@dataclasses.dataclass(frozen=True)
class _Warning:
  """What the user should know."""

  message: str


_Told = outcomes.Outcome | _Surveyed | _Warning


class _Telling(outcomes.Watcher):
  """Hands on what is to be told to the user."""

  def __init__(self, tell: Callable[[_Warning], None]):
    self._tell = tell

  def warned(self, message: str) -> None:
    """See `Watcher`."""
    self._tell(_Warning(message))


@dataclasses.dataclass(kw_only=True, eq=False)
class _Task:
  """What one worker does for some files.

  Attributes:
    phase: a method of `_Engine`.
    sources: the files.
    settled: the names of files whose outcome is known.
    deaths: how many workers it has seen die, on machines that live.
  """

  phase: str
  sources: list[SourceFile]
  settled: set[str] = dataclasses.field(default_factory=set)
  deaths: int = 0

  def rest(self) -> list[SourceFile]:
    """The files that have no outcome yet."""
    return [s for s in self.sources if s.name not in self.settled]


@dataclasses.dataclass(kw_only=True, eq=False)
class _Worker:
  """A worker, as this process sees it.

  Attributes:
    node: the machine that it is on.
    slot: which accelerator of that machine.
    actor: Ray's handle.
    starting: until it is ready, what says so.
    task: what it does.
    outcomes: of the task, as they come.
  """

  node: str
  slot: int
  actor: Any
  starting: Any
  task: _Task | None = None
  outcomes: Any = None


class _Engine:
  """What runs on an accelerator."""

  def __init__(self, options: CloakOptions):
    self._options = options
    self._people: people.People | None = None
    self._warnings: list[_Warning] = []

  def prepare(self) -> None:
    """Loads and compiles. Raises FawkesError, unlike a constructor."""
    memory.keep_freed()
    self._cloaker = cloaker.Cloaker(self._options)
    self._choice = choosing.of(self._options, self._cloaker)
    self._store = stores.open_store(self._options.output)
    self._index = pipeline.open_index(
      self._options, self._store, _Telling(self._warnings.append)
    )

  def survey(
    self, sources: list[SourceFile], known: dict[str, manifest.Row]
  ) -> Iterator[_Told]:
    """Yields what becomes of files that need no cloak, then the rest."""

    def act(run: phases.Phases) -> _Surveyed:
      run.survey(sources)
      return _Surveyed(left=run.left, unknown=run.unknown)

    yield from self._do(act, known)

  def look_again(
    self, sources: list[SourceFile], known: dict[str, manifest.Row]
  ) -> Iterator[_Told]:
    """Looks at finished photos; yields nothing."""

    def act(run: phases.Phases) -> None:
      run.unknown = {source.name for source in sources}
      run.look_again(sources)

    yield from self._do(act, known)

  def arrange(
    self, sources: list[SourceFile], known: dict[str, manifest.Row]
  ) -> Iterator[_Told]:
    """Finds out who is who; yields nothing."""
    _take_cores()
    self._index.refresh()
    rows = manifest.Rows()
    with contextlib.suppress(types.FawkesError):  # There is no manifest yet.
      rows, _, _ = manifest.peek(self._options.output)
    people.arrange(
      self._index,
      self._store,
      self._cloaker,
      rows,
      config=self._options.fingerprint(),
      choice=self._choice,
      mapping=everywhere,
    )
    self._index.tidy()
    yield from ()

  def cloak(
    self, sources: list[SourceFile], known: dict[str, manifest.Row]
  ) -> Iterator[_Told]:
    """Yields the outcome of each file as soon as it is known."""

    def act(run: phases.Phases) -> None:
      self._index.refresh()
      if self._people is None:
        self._people = pipeline.everybody(
          self._options, self._cloaker, self._store
        )
      run.left = {source.name for source in sources}
      run.cloak(sources, self._people)

    yield from self._do(act, known)

  def _do(
    self,
    act: Callable[[phases.Phases], _Surveyed | None],
    known: dict[str, manifest.Row],
  ) -> Iterator[_Told]:
    """Yields what a phase tells, as soon as it does."""
    told: queue.Queue[_Told | Exception | None] = queue.Queue()
    while self._warnings:
      told.put(self._warnings.pop())

    def run() -> None:
      options = self._options
      try:
        with concurrent.futures.ThreadPoolExecutor(options.threads) as pool:
          result = act(
            phases.Phases(
              options,
              self._cloaker,
              self._store,
              self._index,
              known.get,
              pool,
              told.put,
              _Telling(told.put),
              choice=self._choice,
            )
          )
        if result is not None:
          told.put(result)
        told.put(None)
      except Exception as error:
        told.put(error)

    threading.Thread(target=run, daemon=True).start()
    while (item := told.get()) is not None:
      if isinstance(item, Exception):
        raise item
      yield item


class _Hand:
  """Does a part of what one process has to do, on another machine."""

  def __init__(self, function: Callable[[grouping.Block], grouping.Block]):
    _take_cores()
    self._function = function

  def do(self, block: grouping.Block) -> grouping.Block:
    """Applies the function to a block."""
    return self._function(block)


def everywhere(
  function: Callable[[grouping.Block], grouping.Block],
  blocks: Iterator[grouping.Block],
) -> Iterator[grouping.Block]:
  """`map` on all machines of the cluster that this process is connected to.

  The workers there are idle meanwhile, but hold their machines' cores, so that
  none are asked for. What a lost machine was doing, Ray has another one do.

  Args:
    function: sent to each machine once.
    blocks: each is sent to whichever machine has nothing to do.

  Yields:
    What the function makes of each, in the order in which they are done.
  """
  import ray
  from ray import util

  shared = ray.put(function)
  hand = ray.remote(num_cpus=0, max_restarts=_MOST_DEATHS, max_task_retries=-1)(
    _Hand
  )
  _, machines = _machines(ray)
  pool = util.ActorPool(
    [
      hand.options(
        scheduling_strategy=_on(machine["NodeID"], soft=True)
      ).remote(shared)
      for machine in machines
    ]
  )
  for block in blocks:
    if not pool.has_free():
      yield pool.get_next_unordered()
    pool.submit(lambda actor, given: actor.do.remote(given), block)
  while pool.has_next():
    yield pool.get_next_unordered()


def _take_cores() -> None:
  """Lets this process search on all cores of its machine.

  Ray leaves one to whoever asks for none.
  """
  import ray

  here = ray.get_runtime_context().get_node_id()
  [cores] = [
    node["Resources"].get("CPU", 0)
    for node in ray.nodes()
    if node["NodeID"] == here
  ]
  grouping.use_cores(max(1, int(cores)))


def _on(node: str, *, soft: bool) -> Any:
  """Says on which machine something is to run, and if it may on another."""
  from ray.util import scheduling_strategies

  return scheduling_strategies.NodeAffinitySchedulingStrategy(
    node_id=node, soft=soft
  )


def cloak_archive(
  options: CloakOptions,
  watcher: outcomes.Watcher | None = None,
) -> None:
  """Cloaks all faces of an archive on a Ray cluster.

  Args:
    options: of the run; `ray_address` is that of the cluster, None starts one
      on this machine.
    watcher: is told what happens, without the stages.

  Raises:
    FawkesError: the run cannot begin or go on: Ray, the folders, the weights,
      the manifest, or no machine for too long. A single photo never raises.
  """
  options = ensembles.resolved(options)
  if pipeline.begin(options) is None:
    return
  options = choosing.resolved(options)
  watcher = watcher or outcomes.Watcher()
  counts: collections.Counter[str] = collections.Counter()
  with (
    manifest.Manifest(options.output) as record,
    pipeline.Listing(options, record, watcher),
    membership.Team(
      record.store,
      process=0,
      processes=1,
      config=options.fingerprint(),
      wait_seconds=0,
      counts=counts.copy,
    ) as processes,
    _connected(options) as ray,
  ):
    settle = pipeline.recording(record, counts, watcher)
    pool = _Pool(ray, options, record.rows.get, settle, watcher)
    pool.run("survey", scan.scan(options.input))
    record.sync()
    if pool.left:
      pool.run(
        "look_again",
        (s for s in scan.scan(options.input) if s.name in pool.unknown),
      )
      pool.run("arrange", itertools.islice(scan.scan(options.input), 1))
      pool.run(
        "cloak", (s for s in scan.scan(options.input) if s.name in pool.left)
      )
    watcher.risks(leaks.found(record.store, record.rows))
    pipeline.finish(options, record, processes)


@contextlib.contextmanager
def _connected(options: CloakOptions) -> Iterator[Any]:
  """Ray, connected to the cluster."""
  try:
    import ray
  except ImportError as error:
    raise types.FawkesError(
      "--engine=ray needs a package that is not installed:"
      " pip install 'fawkes-jax[ray]'"
    ) from error
  try:
    _reach(options.ray_address)
    ray.init(
      address=options.ray_address,
      log_to_driver=False,
      logging_level=logging.ERROR,
      include_dashboard=False if options.ray_address is None else None,
    )
  except Exception as error:  # Ray raises what it likes.
    raise types.FawkesError(
      f"--ray_address={options.ray_address} must be a Ray cluster that can be"
      f" reached: {error}"
    ) from error
  try:
    yield ray
  finally:
    ray.shutdown()


def _reach(address: str | None) -> None:
  """Raises OSError at once where Ray would try for minutes."""
  host, _, port = (address or "").rpartition(":")
  if host and port.isdigit():
    socket.create_connection((host, int(port)), timeout=10).close()


def _machines(ray: Any) -> tuple[str, list[dict[str, Any]]]:
  """What kind of device does the work, and the living machines that have it."""
  nodes = [node for node in ray.nodes() if node["Alive"]]
  kind = next(
    (
      kind
      for kind in ("GPU", "TPU")
      if any(node["Resources"].get(kind) for node in nodes)
    ),
    "CPU",
  )
  return kind, [n for n in nodes if n["Resources"].get(kind, 0) >= 1]


class _Pool:
  """The workers of a cluster, and what they do.

  Attributes:
    left: the names of photos that are to be cloaked, after the survey.
    unknown: of finished ones of which the index knows nothing.
  """

  def __init__(
    self,
    ray: Any,
    options: CloakOptions,
    known: Callable[[str], manifest.Row | None],
    settle: Callable[[outcomes.Outcome], None],
    watcher: outcomes.Watcher,
  ):
    self._ray = ray
    self._options = options
    self.left: set[str] = set()
    self.unknown: set[str] = set()
    self._phase = ""
    self._sources: Iterator[SourceFile] = iter(())
    self._known = known
    self._settle = settle
    self._watcher = watcher
    self._warned: set[_Warning] = set()
    self._again: collections.deque[_Task] = collections.deque()
    self._workers: list[_Worker] = []
    self._engine = ray.remote(_Engine)
    self._deaths: collections.Counter[str] = collections.Counter()

  def run(self, phase: str, sources: Iterator[SourceFile]) -> None:
    """Does a phase for files, and returns when it is done for all.

    Args:
      phase: a method of `_Engine`.
      sources: the files.
    """
    self._phase, self._sources = phase, sources
    looked = seen = time.monotonic()
    self._look()
    while True:
      if time.monotonic() - looked > _LOOK_SECONDS:
        looked = time.monotonic()
        self._look()
      for worker in self._workers:
        if worker.starting is None and worker.task is None:
          self._give(worker)
      if any(worker.starting is None for worker in self._workers):
        seen = time.monotonic()
      elif time.monotonic() - seen > 60 * self._options.wait_minutes:
        raise types.FawkesError(
          "the Ray cluster must have a machine that can work, none was ready"
          f" for {self._options.wait_minutes:g} minutes"
        )
      if not self._follow():
        return

  def _follow(self) -> bool:
    """Takes what the workers have; False when there is nothing left to do."""
    pending = {
      waited: worker
      for worker in self._workers
      if (waited := worker.starting or worker.outcomes) is not None
    }
    if all(worker.task is None for worker in self._workers):
      # Idle ones only: whoever is ready was offered something.
      idle = any(worker.starting is None for worker in self._workers)
      if idle and not self._again:
        return False
    if not pending:
      time.sleep(_WAIT_SECONDS)
      return True
    ready, _ = self._ray.wait(
      list(pending), num_returns=1, timeout=_WAIT_SECONDS
    )
    for waited in ready:
      worker = pending[waited]
      try:
        if worker.starting is not None:
          self._ray.get(worker.starting)
          worker.starting = None
        else:
          self._take(worker)
      except self._ray.exceptions.RayTaskError as error:
        raise types.FawkesError(str(error.cause)) from error
      except self._ray.exceptions.RayError:
        self._bury(worker)
    return True

  def _take(self, worker: _Worker) -> None:
    """Takes the next outcome of a worker."""
    task = worker.task
    assert task is not None
    try:
      outcome = self._ray.get(next(worker.outcomes))
    except StopIteration:
      worker.task = worker.outcomes = None
      return
    if isinstance(outcome, _Surveyed):
      self.left |= outcome.left
      self.unknown |= outcome.unknown
    elif isinstance(outcome, _Warning):
      if outcome not in self._warned:  # Several workers notice the same.
        self._warned.add(outcome)
        self._watcher.warned(outcome.message)
    elif outcome.row.path not in task.settled:
      task.settled.add(outcome.row.path)
      self._settle(outcome)

  def _give(self, worker: _Worker) -> None:
    """Gives a worker something to do, if there is anything."""
    if self._again:
      task = self._again.popleft()
    else:
      count = _TASK_FILES[self._kind]
      task = _Task(
        phase=self._phase,
        sources=list(itertools.islice(self._sources, count)),
      )
    rest = task.rest()
    if not rest:
      return
    known = {s.name: row for s in rest if (row := self._known(s.name))}
    worker.task = task
    method = getattr(worker.actor, task.phase)
    worker.outcomes = method.options(num_returns="streaming").remote(
      rest, known
    )

  def _bury(self, worker: _Worker) -> None:
    """A worker is lost: what it had not finished is for others."""
    self._workers.remove(worker)
    task = worker.task
    if self._stays(worker.node):
      self._deaths[worker.node] += 1
      if task is not None:
        task.deaths += 1
    if task is not None:
      if task.deaths >= _MOST_DEATHS:
        first, last = task.rest()[0], task.rest()[-1]
        raise types.FawkesError(
          f"{task.deaths} workers died while they looked at or cloaked"
          f" {first.name} to"
          f" {last.name}; Ray's logs say why"
        )
      self._again.append(task)

  def _stays(self, node: str) -> bool:
    """Whether a machine lives; Ray takes a while to notice that it does not."""
    until = time.monotonic() + _NOTICE_SECONDS
    while time.monotonic() < until:
      if not any(n["Alive"] for n in self._ray.nodes() if n["NodeID"] == node):
        return False
      time.sleep(_WAIT_SECONDS)
    return True

  def _look(self) -> None:
    """Starts workers on machines that have joined, or lost theirs."""
    self._kind, nodes = _machines(self._ray)
    there = {(worker.node, worker.slot) for worker in self._workers}
    for node in nodes:
      has = node["Resources"][self._kind]
      if self._deaths[node["NodeID"]] >= _MOST_DEATHS:
        continue
      slots = int(has) if self._kind == "GPU" else 1
      for slot in range(slots):
        if (node["NodeID"], slot) not in there:
          self._workers.append(self._start(node["NodeID"], slot, has))

  def _start(self, node: str, slot: int, has: float) -> _Worker:
    """A worker with a GPU, all TPU chips of a machine, or all its cores."""
    kinds: dict[str, dict[str, Any]] = {
      "GPU": {"num_gpus": 1, "num_cpus": 0},
      "TPU": {"resources": {"TPU": has}, "num_cpus": 0},
      "CPU": {"num_cpus": has},
    }
    actor = self._engine.options(
      scheduling_strategy=_on(node, soft=False), **kinds[self._kind]
    ).remote(self._options)
    return _Worker(
      node=node, slot=slot, actor=actor, starting=actor.prepare.remote()
    )
