"""How the C library keeps memory, which decides half of the speed on a CPU.

XLA takes all memory of a program anew for each step and gives it back. glibc
then asks the kernel for it each time, in pages of 4 KB that are zeroed one by
one. Kept, and in huge pages, the same step is 1.1 to 1.7 times faster
(docs/performance.md).
"""

import os
import sys

_VARIABLE = "GLIBC_TUNABLES"

# Blocks of any size come from the heap, which keeps up to 16 GiB.
_TUNABLES = {
  "hugetlb": 1,  # madvise(MADV_HUGEPAGE)
  "mmap_threshold": 8 << 30,
  "trim_threshold": 16 << 30,
  "top_pad": 256 << 20,
}


def keep_memory() -> None:
  """Starts this process again with a heap that keeps its memory.

  glibc reads its options before any Python runs. Does nothing where the C
  library is another one, or its options are set already.
  """
  if _VARIABLE in os.environ or not _is_glibc():
    return
  os.environ[_VARIABLE] = ":".join(
    f"glibc.malloc.{name}={value}" for name, value in _TUNABLES.items()
  )
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _is_glibc() -> bool:
  try:
    return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
  except (AttributeError, OSError, ValueError):
    return False
