"""Measures the peak performance of a device, to compare programs with."""

import os
import platform
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from fawkes_jax.benchmarking import rounds
from fawkes_jax.xla import compiler

# How often something is done at a time, the side of the matrices, and how many
# numbers are copied: so much that starting the work does not count.
_REPEATS = 8
_SIDE, _SIDE_CPU = 8192, 1024
_NUMBERS = 1 << 26


def ceilings() -> Iterator[rounds.Subject]:
  """What one device can compute and copy, each measured as the programs are.

  Products of matrices have JAX's default precision, as the solver's have.
  """
  backend = jax.default_backend()
  side = _SIDE_CPU if backend == "cpu" else _SIDE
  kinds = ("float32",) if backend == "cpu" else ("float32", "bfloat16")
  for kind in kinds:
    yield rounds.Work(
      part="device",
      title={"what": f"{kind} product"},
      call=_product(side, kind),
      amounts={"GFLOP": _REPEATS * 2 * side**3 / 1e9},
    )
  yield rounds.Work(
    part="device",
    title={"what": "copy"},
    call=_copy(),
    amounts={"GB": _REPEATS * 2 * 4 * _NUMBERS / 1e9},
  )


def _product(side: int, kind: str) -> Callable[[], None]:
  """Multiplies two matrices."""
  program = compiler.jit(jnp.matmul)
  matrix = jnp.full((side, side), 1 / side, kind)

  def call() -> None:
    product = matrix
    for _ in range(_REPEATS):
      product = program(product, matrix)
    product.block_until_ready()

  return call


def _copy() -> Callable[[], None]:
  """Reads and writes float32 numbers."""
  program = compiler.jit(lambda x: x + 1, donate_argnums=0)
  array = jnp.zeros(_NUMBERS, jnp.float32)

  def call() -> None:
    nonlocal array
    for _ in range(_REPEATS):
      array = program(array)
    array.block_until_ready()

  return call


def host() -> dict[str, Any]:
  """What this machine is, and how busy it was just now."""
  devices = jax.local_devices()
  return {
    "backend": jax.default_backend(),
    "device": devices[0].device_kind,
    "devices": len(devices),
    "cores": len(os.sched_getaffinity(0)),
    "machine": platform.machine(),
    "system": platform.system(),
    "load": os.getloadavg()[0],
  }


def peak_bytes() -> int | None:
  """The most memory of a device so far; None where it does not say."""
  return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
