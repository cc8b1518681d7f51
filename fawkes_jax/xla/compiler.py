"""How XLA compiles this package's programs.

On an accelerator as JAX does it. On a CPU XLA gives convolutions and matrix
products to YNNPACK, whose convolutions of few channels take up to three times
as long as XLA's own (docs/performance.md); it is told not to.
"""

import functools
import glob
import logging
import os
import re
import resource
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from fawkes_jax import types

_LEAST, _ENOUGH = 1_500_000_000, 4_000_000_000
"""Bytes of address space: one small photo takes the one (measured on a CPU with
compiled programs; with less XLA ends the process), any run the other."""
_SHORT = 0.1
"""Seconds: what took longer to compile is kept. JAX's own limit of one second
leaves out the detector's programs, one for each size of its canvases."""
_NVIDIA = "/dev/nvidiactl"
"""Is there where the driver of an NVIDIA GPU is."""
_DAMAGED = "Error reading persistent compilation cache entry for '([^']+)'"
_UNWRITTEN = "Error writing persistent compilation cache entry"


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


@functools.cache  # Says so once.
def check_memory() -> None:
  """Looks at the limit on the process's memory, before it is met.

  Where memory runs out within XLA, the process ends without a word.

  Raises:
    types.FawkesError: it is too small for anything.
  """
  limit, _ = resource.getrlimit(resource.RLIMIT_AS)
  if limit == resource.RLIM_INFINITY:
    return
  said = f"{limit / 1e9:.1f} GB (ulimit -v {limit // 1024})"
  if limit < _LEAST:
    raise types.FawkesError(
      f"the limit on memory must be {_LEAST / 1e9:.1f} GB or more, got {said}"
    )
  if limit < _ENOUGH:
    logging.getLogger("fawkes_jax").warning(
      "the limit on memory is %s; a run may need %.0f GB, and ends"
      " at once where there is less",
      said,
      _ENOUGH / 1e9,
    )


@functools.cache  # Says so once.
def require_devices() -> None:
  """Makes sure that JAX finds the devices that it is told to take.

  A GPU that JAX is not installed for is pointed out.

  Raises:
    types.FawkesError: it finds none.
  """
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:
    wanted = os.environ.get("JAX_PLATFORMS", "")
    why = str(error).partition("\n")[0] or "none is here"
    told = f" with JAX_PLATFORMS={wanted}; unset it" if wanted else ""
    raise types.FawkesError(f"JAX finds no device{told}: {why}") from error
  unused = jax.default_backend() == "cpu" and os.path.exists(_NVIDIA)
  if unused and not os.environ.get("JAX_PLATFORMS"):
    logging.getLogger("fawkes_jax").warning(
      "an NVIDIA GPU is here, but JAX is installed for the CPU only: the extra"
      " cuda is for GPUs (pip install 'fawkes-jax[cuda]')"
    )


def keep_programs(folder: Path) -> None:
  """Compiles a program once for all runs, as far as a folder can be used.

  A damaged file of a program is removed and the program compiled anew. Where
  the folder cannot be written, that is said once, and what it holds is used.

  Args:
    folder: the folder of the compiled programs; made where it is missing.
  """
  if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
    return
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    logging.getLogger("fawkes_jax").warning(
      "%s cannot be written (%s), so programs are compiled in every run;"
      " FAWKES_JAX_CACHE names another folder",
      folder,
      error.strerror,
    )
    if not folder.is_dir():
      return
  jax.config.update("jax_compilation_cache_dir", str(folder))
  limit = "jax_persistent_cache_min_compile_time_secs"
  jax.config.update(limit, min(_SHORT, getattr(jax.config, limit)))
  warnings.filterwarnings("ignore", message=_UNWRITTEN)
  warnings.filterwarnings("always", message=_DAMAGED)
  shown = warnings.showwarning

  def show(message: Any, *arguments: Any, **options: Any) -> None:
    # JAX says which program it is, goes on, and would not replace the file.
    if damaged := re.match(_DAMAGED, str(message)):
      for path in folder.glob(f"{glob.escape(damaged[1])}-*"):
        path.unlink(missing_ok=True)
    else:
      shown(message, *arguments, **options)

  warnings.showwarning = show
