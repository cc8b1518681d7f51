"""Keeps a fixed number of slots busy with faces until no face is left.

A slot holds the solver's state of one face. When the face has had all
of its steps its result is taken out and the next face put in, without
recompiling anything and without waiting for the other slots.

Where extractors take turns, each group of them has a program of its own. All
faces that are under way are at the same turn: a face begins with the first one,
so that its result does not depend on when it begins.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
from collections.abc import (
  Callable,
  Container,
  Iterable,
  Iterator,
  Mapping,
  Sequence,
)
from typing import Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32

from fawkes_jax import types
from fawkes_jax.cloaking import objective, solver
from fawkes_jax.engine import mesh as mesh_lib
from fawkes_jax.models import architectures
from fawkes_jax.options import SolverOptions
from fawkes_jax.xla import memory

Key = TypeVar("Key")

# Of a device's free memory; finding and embedding faces need some, too.
_SHARE = 0.75

# In the error of a program; a CPU's says the second.
_NO_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
  """What the solver found for one face.

  Attributes:
    change: float32 [size, size, 3], whole numbers, to be added to the crop;
      zero where no step's change was within the budget.
    dssim: of the change, or what another budget measures; at most the budget.
    budget: that it had.
    steps: how many were done.
  """

  change: Float32[np.ndarray, "size size 3"]
  dssim: float
  budget: float
  steps: int


class Executor(Generic[Key]):
  """Solves a stream of problems on all devices of the host.

  Attributes:
    steps_per_call: steps between two looks at which faces have ended.
  """

  def __init__(
    self,
    extractors: Sequence[architectures.Extractor],
    centres: Mapping[str, np.ndarray],
    options: SolverOptions,
    *,
    slots: int,
    mesh: Mesh,
    steps_per_call: int | None = None,
    group: int | None = None,
    memory: int | None = None,
    goal: objective.Goal = objective.OWN_GOAL,
  ):
    """Compiles nothing yet.

    Args:
      extractors: that the cloaks are made against.
      centres: by extractor, its mean embedding.
      options: the solver's.
      slots: how many faces at once; rounded up to a multiple of the number of
        devices, and lowered to what fits into their memory.
      mesh: the devices.
      steps_per_call: steps between two looks at which faces have ended; None
        for 1 on a CPU and 10 elsewhere, where a look keeps the device waiting.
        Rounded up to whole rounds of turns where it is more than 1.
      group: faces that go to a device, or come back, at once; None for 1 on a
        CPU and 16 elsewhere, where each transfer has its price.
      memory: that the program may use on each device beside the states, in
        bytes; None for most of what is free, where the device says so.
      goal: what is minimised, within which budget.
    """
    on_cpu = jax.default_backend() == "cpu"
    precision = options.precision
    if precision == "auto":
      precision = "float32" if on_cpu else "bfloat16"
    extractors = [e.in_type(jnp.dtype(precision)) for e in extractors]
    turns = solver.turns(extractors, options)
    if steps_per_call is None:
      steps_per_call = 1 if on_cpu else 10
    if steps_per_call > 1:
      steps_per_call = -(-steps_per_call // len(turns)) * len(turns)
    self.steps_per_call = steps_per_call
    self._turn = 0
    self._group = group or (1 if on_cpu else 16)
    self._mesh = mesh
    self._per_device = -(-slots // mesh.size)
    self._options = options
    self._memory = memory
    self._programs: list[jax.stages.Compiled] | None = None
    self._variables = [
      mesh_lib.replicate(
        mesh,
        {
          e.name: {"weights": e.variables, "centre": centres[e.name]}
          for e in group
        },
      )
      for group in turns
    ]
    faces, everywhere = mesh_lib.FACES, mesh_lib.EVERYWHERE

    def fill(problems):
      return jax.vmap(lambda p: solver.start(p, options))(problems)

    def insert(states, slots, problems):
      fresh = fill(problems)
      return jax.tree.map(
        lambda old, new: old.at[slots].set(new, mode="drop"), states, fresh
      )

    def advance(group, states, variables):
      states = jax.vmap(
        lambda state: solver.step(state, variables, group, options, goal)
      )(states)
      return states, jax.vmap(lambda s: solver.finished(s, options))(states)

    def take(states, slots):
      # Whole numbers.
      change = states.result[slots].astype(jnp.int16)
      budget = states.problem.budget[slots]
      return change, states.result_dssim[slots], budget, states.steps[slots]

    self._fill = mesh_lib.over_faces(fill, mesh, specs=(faces,))
    self._insert = mesh_lib.over_faces(
      insert, mesh, specs=(faces, faces, faces), donate=(0,)
    )
    self._advance = [
      mesh_lib.over_faces(
        functools.partial(advance, group),
        mesh,
        specs=(faces, everywhere),
        donate=(0,),
      )
      for group in turns
    ]
    self._take = mesh_lib.over_faces(take, mesh, specs=(faces, faces))

  def solve(
    self,
    problems: Iterable[tuple[Key, solver.Problem] | None],
    *,
    warn: Callable[[str], None] = lambda message: None,
    prepares: Callable[[bool], None] = lambda begins: None,
    step: Callable[
      [], contextlib.AbstractContextManager[None]
    ] = contextlib.nullcontext,
    stopped: Callable[[], bool] = lambda: False,
  ) -> Iterator[tuple[Key, Solution]]:
    """Solves problems as they come.

    Where the devices have no memory for so many slots, there are fewer from
    then on, and what was on its way begins again.

    Args:
      problems: a key that comes back with the solution, and a problem with
        numpy leaves. It is asked for the next one only when a slot is free;
        while others are on their way it may give None instead of waiting.
      warn: called with what the user should know.
      prepares: called with True before the program is compiled, and with False
        afterwards.
      step: entered while steps are computed, which takes memory; it may wait.
      stopped: asked between steps whether to give up.

    Yields:
      Keys and solutions, in the order in which the faces end.

    Raises:
      FawkesError: the memory is too small for one face.
    """
    source = _Source(problems)
    busy: dict[int, tuple[Key, solver.Problem]] = {}
    states = None
    while not stopped():
      if states is None:
        if (first := source.peek()) is None:
          return
        like = first[1]
        fresh: dict[int, tuple[Key, solver.Problem]] = {}
      else:
        fresh = {}
        if not busy:
          self._turn = 0
        if self._turn == 0:
          fresh = source.take(self._free(busy))
          busy |= fresh
      try:
        if states is None:
          states = self._begin(like, warn, prepares)
          continue
        if fresh:
          states = self._put(states, {i: p for i, (_, p) in fresh.items()})
          continue
        if not busy:
          return
        with step():
          states, ended = self._call(states)
          indices = np.flatnonzero(np.asarray(ended)).tolist()
        solutions = dict(
          self._solutions(states, [i for i in indices if i in busy])
        )
      except jax.errors.JaxRuntimeError as error:
        states = None
        self._shrink(error, warn)
        source.give_back(busy.values())
        busy.clear()
        continue
      for index, solution in solutions.items():
        key, _ = busy.pop(index)
        yield key, solution

  @property
  def slots(self) -> int:
    """How many faces are solved at once, on all devices together."""
    return self._mesh.size * self._per_device

  def states(self, problem: solver.Problem) -> solver.State:
    """The states before the first step of one face in all slots."""
    return self._fill(
      jax.tree.map(lambda x: np.stack([x] * self.slots), problem)
    )

  def lower(self, states: solver.State) -> list[jax.stages.Lowered]:
    """The program of each turn, to be compiled and looked at."""
    return [
      advance.lower(states, variables)
      for advance, variables in zip(self._advance, self._variables, strict=True)
    ]

  def compile(self, states: solver.State) -> list[jax.stages.Compiled]:
    """Compiles the programs, all at once, for `advance` and `solve`."""
    lowered = self.lower(states)
    with concurrent.futures.ThreadPoolExecutor(len(lowered)) as pool:
      self._programs = list(pool.map(lambda one: one.compile(), lowered))
    return self._programs

  def advance(self, states: solver.State) -> solver.State:
    """Takes `steps_per_call` steps, as `solve` does, and waits for them.

    Args:
      states: of all slots; given away. `compile` was called with such.

    Returns:
      The states afterwards.
    """
    states, ended = self._call(states)
    np.asarray(ended)
    return states

  def _call(self, states: solver.State) -> tuple[solver.State, jax.Array]:
    """Takes `steps_per_call` steps; which slots have ended then."""
    assert self._programs is not None
    for _ in range(self.steps_per_call):
      program = self._programs[self._turn]
      states, ended = program(states, self._variables[self._turn])
      self._turn = (self._turn + 1) % len(self._programs)
    return states, ended

  def _free(self, busy: Container[int]) -> list[int]:
    """Free slots for the next faces, at most a group on each device."""
    devices = self._mesh.size
    free = [
      [
        slot
        for slot in range(first, first + self._per_device)
        if slot not in busy
      ][: self._group]
      for first in range(0, self.slots, self._per_device)
    ]
    # One to each device in turn.
    return [
      slots[column]
      for column, device in np.ndindex(self._group, devices)
      if column < len(slots := free[device])
    ]

  def _begin(
    self,
    like: solver.Problem,
    warn: Callable[[str], None],
    prepares: Callable[[bool], None],
  ) -> solver.State:
    """Idle states in as many slots as fit, once programs are compiled."""
    while True:
      states = self._empty(like)
      if self._programs is not None:
        return states
      prepares(True)
      programs = self.compile(states)
      memory.give_back_freed()  # Compiling, or loading, takes much for a while.
      prepares(False)
      most = min(map(self._most, programs))
      if most >= self._per_device:
        return states
      self._resize(most, warn)

  def _most(self, program: jax.stages.Compiled) -> int:
    """How many slots of each device the program has memory for."""
    needs, room = program.memory_analysis(), self._room()
    if needs is None or room is None:
      return self._per_device
    new = needs.output_size_in_bytes - needs.alias_size_in_bytes
    share = room / max(needs.temp_size_in_bytes + new, 1)
    return max(1, int(min(share, 1) * self._per_device))

  def _room(self) -> float | None:
    """The free memory that the program may use on each device, in bytes."""
    if self._memory is not None:
      return self._memory
    stats = [device.memory_stats() or {} for device in self._mesh.local_devices]
    free = [
      s["bytes_limit"] - s["bytes_in_use"] for s in stats if "bytes_limit" in s
    ]
    return _SHARE * min(free) if free else None

  def _shrink(
    self, error: jax.errors.JaxRuntimeError, warn: Callable[[str], None]
  ) -> None:
    """Half as many slots after an error, if memory was its reason."""
    if not any(reason in str(error) for reason in _NO_MEMORY):
      raise error
    if self._per_device == 1:
      raise types.FawkesError(
        "a device must have memory for one face, got too little for these"
        " extractors and this crop size"
      ) from error
    self._resize(self._per_device // 2, warn)

  def _resize(self, per_device: int, warn: Callable[[str], None]) -> None:
    before = self.slots
    self._per_device, self._programs, self._turn = per_device, None, 0
    warn(
      f"{before} faces at once do not fit into the memory of the devices:"
      f" {self.slots} from now on"
    )

  def _put(
    self, states: solver.State, fresh: Mapping[int, solver.Problem]
  ) -> solver.State:
    """Puts new faces into slots, at most a group on each device."""
    devices = self._mesh.size
    # What lies beyond the last slot is dropped.
    slots = np.full((devices, self._group), self._per_device, np.int32)
    rows = [next(iter(fresh.values()))] * slots.size
    column = [0] * devices
    for index, problem in fresh.items():
      device, slot = divmod(index, self._per_device)
      slots[device, column[device]] = slot
      rows[device * self._group + column[device]] = problem
      column[device] += 1
    return self._insert(states, slots.ravel(), _stack(rows))

  def _empty(self, like: solver.Problem) -> solver.State:
    """States of idle slots: a blank face that has already ended."""
    states = self.states(jax.tree.map(np.ones_like, like))
    return states._replace(
      steps=jnp.full_like(states.steps, self._options.steps)
    )

  def _solutions(
    self, states: solver.State, indices: Sequence[int]
  ) -> Iterator[tuple[int, Solution]]:
    """The results in some slots, a group of each device at once."""
    waiting: list[collections.deque[int]] = [
      collections.deque() for _ in range(self._mesh.size)
    ]
    for index in indices:
      waiting[index // self._per_device].append(index)
    while any(waiting):
      group = [
        [queue.popleft() for _ in range(min(self._group, len(queue)))]
        for queue in waiting
      ]
      slots = np.zeros((self._mesh.size, self._group), np.int32)
      for device, members in enumerate(group):
        slots[device, : len(members)] = np.array(members) % self._per_device
      change, dssim, budget, steps = map(
        np.asarray, self._take(states, slots.ravel())
      )
      for device, members in enumerate(group):
        for column, index in enumerate(members):
          row = device * self._group + column
          yield (
            index,
            Solution(
              change=change[row].astype(np.float32),
              dssim=float(dssim[row]),
              budget=float(budget[row]),
              steps=int(steps[row]),
            ),
          )


class _Source(Generic[Key]):
  """Problems to come, and those that have to begin again."""

  def __init__(self, problems: Iterable[tuple[Key, solver.Problem] | None]):
    self._new = iter(problems)
    self._again: collections.deque[tuple[Key, solver.Problem]] = (
      collections.deque()
    )

  def peek(self) -> tuple[Key, solver.Problem] | None:
    """The next problem, which remains the next; None at the end."""
    item = self._next()
    if item is not None:
      self._again.appendleft(item)
    return item

  def take(self, slots: Iterable[int]) -> dict[int, tuple[Key, solver.Problem]]:
    """Problems for slots, as far as there are some just now."""
    taken: dict[int, tuple[Key, solver.Problem]] = {}
    for slot in slots:
      item = self._next()
      if item is None:
        break
      taken[slot] = item
    return taken

  def give_back(self, items: Iterable[tuple[Key, solver.Problem]]) -> None:
    """Has problems begin again."""
    self._again.extend(items)

  def _next(self) -> tuple[Key, solver.Problem] | None:
    return self._again.popleft() if self._again else next(self._new, None)


def _stack(problems: Sequence[solver.Problem]) -> solver.Problem:
  return jax.tree.map(lambda *leaves: np.stack(leaves), *problems)
