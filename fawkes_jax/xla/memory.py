"""How the process allocates memory.

A compiled program on a CPU takes its temporary memory anew in every call. By
default glibc gives blocks of that size back to the system, which has to hand
them out again, page by page and cleared, in the next call.
"""

import ctypes
import sys

# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed() -> None:
  """Lets this process keep the memory it has freed, to be used again.

  For programs that own their process, before JAX starts its threads: a thread
  that has its own heap by then goes on with it. Without this, a step of the
  solver on a CPU spends up to a third of its time in page faults. Only glibc
  is asked; other systems are left as they are.
  """
  if sys.platform != "linux":
    return
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt is not None:
    mallopt(_MMAP_MAX, 0)  # All blocks come from the heap,
    mallopt(_ARENA_MAX, 1)  # of which all threads share one,
    mallopt(_TRIM_THRESHOLD, -1)  # and which never shrinks.
