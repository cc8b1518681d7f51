"""What `compiler` changes on a CPU."""

import jax
import numpy as np
import pytest

from fawkes_jax import compiler

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
