"""How XLA compiles this package's programs.

On an accelerator as JAX does it. On a CPU XLA gives convolutions and matrix
products to YNNPACK, whose convolutions of few channels take up to three times
as long as XLA's own (docs/performance.md); it is told not to.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax


def jit(function: Callable[..., Any], **options: Any) -> jax.stages.Wrapped:
  """`jax.jit` of a program that is not part of another one.

  Args:
    function: what to compile.
    **options: of `jax.jit`.

  Returns:
    The compiled function.
  """
  return jax.jit(function, compiler_options=_compiler_options(), **options)


@functools.cache
def _compiler_options() -> dict[str, str] | None:
  if jax.default_backend() != "cpu":
    return None
  options = {"xla_cpu_experimental_ynn_fusion_type": ""}
  try:
    jax.jit(lambda: 0, compiler_options=options).lower().compile()
  except jax.errors.JaxRuntimeError:
    # This jaxlib has no YNNPACK.
    return None
  return options
