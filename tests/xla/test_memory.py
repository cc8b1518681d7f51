"""The process keeps the memory it has freed."""

import os
import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys
from fawkes_jax.xla import memory
if sys.argv[1] == "keep":
  memory.keep_freed()
import jax, jax.numpy as jnp

program = jax.jit(lambda x: x * 2 + 1)
x = jnp.arange(16_000_000, dtype=jnp.float32)
def faults():
  program(x).block_until_ready()
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(60):
  before = faults()
for _ in range(40):
  after = faults()
print(after - before)
"""


def _faults(how):
  # A heap that a thread already has stays its own, hence a fresh process. The
  # heap grows for its first calls, more of them beside other work: small blocks
  # may take a freed block's edge, and the next array then needs another place.
  # That stops after 4 to 12 arrays, most of them in the first 35 calls, while
  # by default each call is handed its pages anew.
  done = subprocess.run(
    [sys.executable, "-c", _FAULTS, how],
    env=dict(os.environ, JAX_PLATFORMS="cpu"),
    capture_output=True,
    text=True,
    check=True,
  )
  return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's switches")
def test_memory_of_a_call_serves_the_next():
  assert _faults("keep") < 0.25 * _faults("default")
