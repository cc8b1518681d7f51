"""What `compiler` changes on a CPU."""

import os
import resource
import subprocess
import sys

import jax
import numpy as np
import pytest

from fawkes_jax.xla import compiler

pytestmark = pytest.mark.skipif(
  jax.default_backend() != "cpu", reason="changes nothing on an accelerator"
)


def _convolve(x, kernel):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def test_convolutions_are_left_to_xla():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 20, 20, 16)).astype(np.float32)
  kernel = rng.normal(size=(3, 3, 16, 16)).astype(np.float32)
  program = compiler.jit(_convolve)
  assert "ynn" not in program.lower(x, kernel).compile().as_text()
  np.testing.assert_allclose(
    program(x, kernel), jax.jit(_convolve)(x, kernel), rtol=1e-4, atol=1e-4
  )


def run(script, *arguments, **environment):
  """What a script that begins with `compiler` says: output, and errors."""
  start = (
    "import logging, pathlib, sys, jax\n"
    "from fawkes_jax import types\nfrom fawkes_jax.xla import compiler\n"
    "logging.basicConfig(format='%(message)s')\n"
    "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", start + script, *map(str, arguments)],
    env={**os.environ, **environment},
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout, done.stderr


PROGRAM = (
  "compiler.keep_programs(pathlib.Path(sys.argv[1]))\n"
  "def product(x): return x @ x.T\n"
  "print(compiler.jit(product)(jax.numpy.ones((3, 2)))[0, 0])\n"
)


def programs(folder):
  return {path.name: path.read_bytes() for path in folder.glob("jit_product-*")}


@pytest.mark.slow
def test_the_detector_is_compiled_once_for_all_runs(tmp_path):
  script = (
    "import pathlib, sys, numpy\n"
    "from fawkes_jax.weights import detectors\n"
    "from fawkes_jax.xla import compiler\n"
    "compiler.keep_programs(pathlib.Path(sys.argv[1]))\n"
    "detectors.load_detector().look([numpy.zeros((99, 99, 3), 'uint8')])\n"
  )
  subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
  assert list(tmp_path.glob("jit_look-*"))


@pytest.mark.slow
@pytest.mark.parametrize("damage", [b"", b"x" * 100])
def test_a_damaged_program_is_compiled_anew_once_and_quietly(tmp_path, damage):
  assert run(PROGRAM, tmp_path) == ("2.0\n", "")
  whole = programs(tmp_path)
  assert whole
  for name in whole:
    (tmp_path / name).write_bytes(damage)
  assert run(PROGRAM, tmp_path) == ("2.0\n", "")
  mended = programs(tmp_path)
  assert set(mended) == set(whole)
  assert all(len(data) > len(damage) for data in mended.values())
  assert run(PROGRAM, tmp_path) == ("2.0\n", "")
  assert programs(tmp_path) == mended


def test_a_cache_that_cannot_be_written_is_said_in_a_line(tmp_path):
  (tmp_path / "file").touch()
  said, errors = run(PROGRAM, tmp_path / "file" / "xla")
  assert said == "2.0\n"
  assert errors.count("\n") == 1
  assert f"{tmp_path}/file/xla cannot be written (Not a directory)" in errors


@pytest.mark.slow
def test_devices_that_are_not_here():
  script = (
    "try: compiler.require_devices()\n"
    "except types.FawkesError as error: print(error)\n"
  )
  for name in ("cuda", "nothing"):
    said, errors = run(script, JAX_PLATFORMS=name)
    start = f"JAX finds no device with JAX_PLATFORMS={name}; unset it: "
    assert said.startswith(start)
    assert said.count("\n") == 1
    assert "Traceback" not in errors
  assert run(script, JAX_PLATFORMS="cpu") == ("", "")


@pytest.mark.slow
def test_a_gpu_that_jax_is_not_installed_for_is_pointed_out(tmp_path):
  script = (
    "compiler._NVIDIA = sys.argv[1]\n"
    "compiler.require_devices()\n"
    "compiler.require_devices()\n"
  )
  here = "an NVIDIA GPU is here, but JAX is installed for the CPU only"
  _, errors = run(script, tmp_path, JAX_PLATFORMS="")
  assert errors.startswith(here)
  assert errors.count("\n") == 1
  assert run(script, tmp_path / "none", JAX_PLATFORMS="") == ("", "")
  assert run(script, tmp_path, JAX_PLATFORMS="cpu") == ("", "")


@pytest.mark.parametrize(
  ("limit", "said", "errors"),
  [
    (1_400_000_000, "must be 1.5 GB or more, got 1.4 GB (ulimit -v", ""),
    (3_000_000_000, "", "the limit on memory is 3.0 GB (ulimit -v"),
    (resource.RLIM_INFINITY, "", ""),
  ],
)
def test_a_limit_on_memory_is_said_before_it_is_met(limit, said, errors):
  script = (
    "import resource\n"
    f"resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))\n"
    "try: compiler.check_memory()\n"
    "except types.FawkesError as error: print(error)\n"
  )
  found = run(script)
  for text, wanted in zip(found, (said, errors), strict=True):
    assert wanted in text
    assert text.count("\n") == bool(wanted)
