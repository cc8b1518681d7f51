"""How the process allocates memory.

A compiled program on a CPU takes its temporary memory anew in every call. By
default glibc gives blocks of that size back to the system, which has to hand
them out again, page by page and cleared, in the next call.
"""

import ctypes
import sys
from collections.abc import Callable

# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed() -> None:
  """Lets this process keep the memory it has freed, to be used again.

  For programs that own their process, before JAX starts its threads: a thread
  that has its own heap by then goes on with it. Without this, a step of the
  solver on a CPU spends up to a third of its time in page faults. Only glibc
  is asked; other systems are left as they are.
  """
  mallopt = _of_glibc("mallopt")
  if mallopt is not None:
    mallopt(_MMAP_MAX, 0)  # All blocks come from the heap,
    mallopt(_ARENA_MAX, 1)  # of which all threads share one,
    mallopt(_TRIM_THRESHOLD, -1)  # and which never shrinks.


def give_back_freed() -> None:
  """Gives the system what this process has freed and kept until now.

  For the moment at which a program goes on with something else, whose memory
  would not fit into the gaps. Only glibc is asked.
  """
  malloc_trim = _of_glibc("malloc_trim")
  if malloc_trim is not None:
    malloc_trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
  """A function of glibc; None on other systems."""
  if sys.platform != "linux":
    return None
  return getattr(ctypes.CDLL(None), name, None)
