"""Keeps a fixed number of slots busy with faces until no face is left.

A slot holds the solver's state of one face. When the face has met its
stopping rule its result is taken out and the next face put in, without
recompiling anything and without waiting for the other slots.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32

from fawkes_jax import config
from fawkes_jax.cloaking import solver
from fawkes_jax.engine import mesh as mesh_lib
from fawkes_jax.models import registry

Key = TypeVar("Key")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
  """What the solver found for one face.

  Attributes:
    change: float32 [size, size, 3], whole numbers, to be added to the crop;
      zero where no change within the budget came nearer to the target.
    dssim: of the change, at most the budget.
    steps: how many were done.
  """

  change: Float32[np.ndarray, "size size 3"]
  dssim: float
  steps: int


class Executor(Generic[Key]):
  """Solves a stream of problems on all devices of the host.

  Attributes:
    steps_per_call: steps between two looks at which faces have ended.
  """

  def __init__(
    self,
    extractors: Sequence[registry.Extractor],
    centres: Mapping[str, np.ndarray],
    options: config.SolverOptions,
    *,
    slots: int,
    mesh: Mesh,
    steps_per_call: int | None = None,
    group: int | None = None,
  ):
    """Compiles nothing yet.

    Args:
      extractors: whom the cloaks are computed against.
      centres: by extractor, its mean embedding.
      options: the solver's.
      slots: how many faces at once; rounded up to a multiple of the number of
        devices.
      mesh: the devices.
      steps_per_call: steps between two looks at which faces have ended; None
        for 1 on a CPU and 10 elsewhere. A compiled loop over steps keeps a GPU
        or TPU busy; XLA runs it several times slower than single steps on a
        CPU.
      group: faces that go to a device, or come back, at once; None for 1 on a
        CPU and 16 elsewhere, where each transfer has its price.
    """
    on_cpu = jax.default_backend() == "cpu"
    if steps_per_call is None:
      steps_per_call = 1 if on_cpu else 10
    self.steps_per_call = steps_per_call
    self._group = group or (1 if on_cpu else 16)
    self._mesh = mesh
    self._per_device = -(-slots // mesh.size)
    self._options = options
    self._variables = mesh_lib.replicate(
      mesh,
      {
        e.name: {"weights": e.variables, "centre": centres[e.name]}
        for e in extractors
      },
    )
    faces, everywhere = mesh_lib.FACES, mesh_lib.EVERYWHERE

    def fill(problems):
      return jax.vmap(lambda p: solver.start(p, options))(problems)

    def insert(states, slots, problems):
      fresh = fill(problems)
      return jax.tree.map(
        lambda old, new: old.at[slots].set(new, mode="drop"), states, fresh
      )

    def advance(states, variables):
      one = jax.vmap(
        lambda state: solver.step(state, variables, extractors, options)
      )
      if steps_per_call == 1:
        states = one(states)
      else:
        states = jax.lax.fori_loop(
          0, steps_per_call, lambda _, s: one(s), states
        )
      return states, jax.vmap(lambda s: solver.finished(s, options))(states)

    def take(states, slots):
      # Whole numbers.
      change = states.best_change[slots].astype(jnp.int16)
      return change, states.best_dssim[slots], states.steps[slots]

    self._fill = mesh_lib.over_faces(fill, mesh, specs=(faces,))
    self._insert = mesh_lib.over_faces(
      insert, mesh, specs=(faces, faces, faces), donate=(0,)
    )
    self._advance = mesh_lib.over_faces(
      advance, mesh, specs=(faces, everywhere), donate=(0,)
    )
    self._take = mesh_lib.over_faces(take, mesh, specs=(faces, faces))

  def solve(
    self, problems: Iterable[tuple[Key, solver.Problem]]
  ) -> Iterator[tuple[Key, Solution]]:
    """Solves problems as they come.

    Args:
      problems: a key that comes back with the solution, and a problem with
        numpy leaves. It is asked for the next one only when a slot is free.

    Yields:
      Keys and solutions, in the order in which the faces end.
    """
    source = iter(problems)
    devices = self._mesh.size
    keys: list[Key | None] = [None] * self.slots
    states, exhausted = None, False
    while True:
      # Each round gives every device at most a group of new faces.
      free = self._free(keys)
      while not exhausted and any(free):
        slots = np.full((devices, self._group), self._per_device, np.int32)
        rows: dict[tuple[int, int], solver.Problem] = {}
        for column, device in np.ndindex(self._group, devices):
          if exhausted or not free[device]:
            continue
          item = next(source, None)
          if item is None:
            exhausted = True
            continue
          name, problem = item
          rows[device, column] = problem
          slot = slots[device, column] = free[device].pop(0)
          keys[device * self._per_device + slot] = name
        if not rows:
          break
        filler = next(iter(rows.values()))
        if states is None:
          states = self._empty(filler)
        all_rows = [
          rows.get(at, filler) for at in np.ndindex(devices, self._group)
        ]
        states = self._insert(states, slots.ravel(), _stack(all_rows))
      if states is None or not any(key is not None for key in keys):
        return
      states, ended = self._advance(states, self._variables)
      done = [
        index
        for index in np.flatnonzero(np.asarray(ended)).tolist()
        if keys[index] is not None
      ]
      for index, solution in self._solutions(states, done):
        key = keys[index]
        assert key is not None
        keys[index] = None
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

  def lower(self, states: solver.State) -> jax.stages.Lowered:
    """The program of `advance`, to be compiled and looked at."""
    return self._advance.lower(states, self._variables)

  def advance(
    self, states: solver.State, program: jax.stages.Compiled
  ) -> solver.State:
    """Takes `steps_per_call` steps, as `solve` does, and waits for them.

    Args:
      states: of all slots; given away.
      program: from `lower`, compiled.

    Returns:
      The states afterwards.
    """
    states, ended = program(states, self._variables)
    np.asarray(ended)
    return states

  def _free(self, keys: list[Any]) -> list[list[int]]:
    """By device, the slots without a face."""
    return [
      [
        slot
        for slot in range(self._per_device)
        if keys[device * self._per_device + slot] is None
      ]
      for device in range(self._mesh.size)
    ]

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
      change, dssim, steps = map(np.asarray, self._take(states, slots.ravel()))
      for device, members in enumerate(group):
        for column, index in enumerate(members):
          row = device * self._group + column
          yield (
            index,
            Solution(
              change=change[row].astype(np.float32),
              dssim=float(dssim[row]),
              steps=int(steps[row]),
            ),
          )


def _stack(problems: Sequence[solver.Problem]) -> solver.Problem:
  return jax.tree.map(lambda *leaves: np.stack(leaves), *problems)
