"""Measures the solver: the engine's own program on random faces."""

import dataclasses
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from fawkes_jax import types
from fawkes_jax.benchmarking import device, rounds
from fawkes_jax.engine import executor
from fawkes_jax.engine import mesh as mesh_lib
from fawkes_jax.faces import cloaker
from fawkes_jax.models import architectures
from fawkes_jax.options import PRECISIONS, BenchmarkOptions
from fawkes_jax.weights import extractors

_TRACED_CALLS = 3


class Solver(rounds.Subject):
  """The steps of some faces at once on some devices."""

  part = "solver"

  def __init__(
    self,
    ensemble: Sequence[architectures.Extractor],
    options: BenchmarkOptions,
    *,
    batch_size: int,
    devices: int,
    precision: str,
  ):
    """Compiles nothing yet."""
    self._ensemble = ensemble
    self._options = options
    self._devices = devices
    # As the executor rounds it.
    slots = -(-batch_size // devices) * devices
    self.title = {
      "surrogates": "+".join(e.name for e in ensemble),
      "precision": precision,
      "devices": devices,
      "batch size": slots,
    }

  def prepare(self) -> Mapping[str, Any]:
    """Compiles the program, runs it once and looks at what it is."""
    size, options = self._options.crop_size, self._options
    before = device.peak_bytes()
    own, target, centre = (
      {e.name: _embedding(e, seed) for e in self._ensemble} for seed in range(3)
    )
    self._problem = cloaker.random_problem(size, own=own, target=target)
    self._executor: executor.Executor[int] = executor.Executor(
      self._ensemble,
      {name: 0.1 * e for name, e in centre.items()},
      dataclasses.replace(options.solver, precision=self.title["precision"]),
      slots=self.title["batch size"],
      mesh=mesh_lib.local_mesh(self._devices),
    )
    states = self._executor.states(self._problem)
    started = time.perf_counter()
    programs = self._executor.compile(states)
    compiling = time.perf_counter() - started
    self._executor.advance(states)
    after = device.peak_bytes()
    lowered = self._executor.lower(self._executor.states(self._problem))
    return {
      "compile s": compiling,
      # XLA counts what one device does; turns cost differently.
      "GFLOP": self._devices * _mean_cost(lowered, "flops") / 1e9,
      "GB": self._devices * _mean_cost(programs, "bytes accessed") / 1e9,
      "program bytes": _bytes(programs),
      # Where an earlier program took more, this one's peak is not known.
      "device bytes": after if before != after else None,
    }

  def measure(self, seconds: float) -> Mapping[str, float]:
    """Solves fresh faces."""
    solve = self._executor
    states = jax.block_until_ready(solve.states(self._problem))

    def call() -> None:
      nonlocal states
      states = solve.advance(states)

    calls, spent = rounds.repeat(call, seconds)
    steps = calls * solve.steps_per_call * solve.slots
    return {"face-steps/s": steps / spent}

  def profile(self, folder: Path) -> None:
    """Writes a trace of a few calls of the program."""
    states = jax.block_until_ready(self._executor.states(self._problem))
    with jax.profiler.trace(str(folder)):
      for _ in range(_TRACED_CALLS):
        states = self._executor.advance(states)


def subjects(options: BenchmarkOptions) -> Iterator[Solver]:
  """All combinations of ensembles, numbers of devices and batch sizes.

  Raises:
    FawkesError: an extractor cannot be loaded, or there are fewer devices.
  """
  there = len(jax.local_devices())
  for count in options.devices or ():
    if count > there:
      raise types.FawkesError(
        f"--devices must be in [1, {there}] on this host, got {count}"
      )
  sizes = options.batch_sizes or (
    (1, 8, 32) if jax.default_backend() == "cpu" else (32, 128, 256, 512, 1024)
  )
  precisions = options.precisions or (
    ("float32",) if jax.default_backend() == "cpu" else PRECISIONS
  )
  loaded: dict[str, architectures.Extractor] = {}
  for ensemble in options.ensembles:
    for name in ensemble:
      if name not in loaded:
        loaded[name] = extractors.load_extractor(name)
    for precision, devices in itertools.product(
      precisions, options.devices or sorted({1, there})
    ):
      # Small ones first: the peak of a device's memory only ever grows.
      for batch_size in sorted(sizes):
        yield Solver(
          [loaded[name] for name in ensemble],
          options,
          batch_size=batch_size,
          devices=devices,
          precision=precision,
        )


def _embedding(
  extractor: architectures.Extractor, seed: int
) -> Float32[np.ndarray, " d"]:
  """A random direction in an extractor's space."""
  size = extractor.input_size
  image = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
  shape = jax.eval_shape(extractor.apply, extractor.variables, image).shape
  vector = np.random.default_rng(seed).normal(size=shape[1])
  return (vector / np.linalg.norm(vector)).astype(np.float32)


def _bytes(programs: Sequence[jax.stages.Compiled]) -> int | None:
  """What the largest of some programs needs; None where XLA does not say."""
  needed = [
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
    for program in programs
    if (memory := program.memory_analysis())
  ]
  return max(needed, default=None)


def _mean_cost(programs: Sequence[Any], name: str) -> float:
  return sum(_cost(program, name) for program in programs) / len(programs)


def _cost(program: Any, name: str) -> float:
  """What XLA's cost analysis says; not a number where it says nothing."""
  analysis = program.cost_analysis() or {}
  return analysis.get(name, float("nan"))
