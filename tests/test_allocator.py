import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
from fawkes_jax import allocator
print("begun", flush=True)
allocator.keep_memory()
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), *sys.argv[1:])
"""

pytestmark = pytest.mark.skipif(
  platform.libc_ver()[0] != "glibc", reason="the C library is not glibc"
)


def run(**variables):
  environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
  child = subprocess.Popen(
    [sys.executable, "-c", SCRIPT, "one", "t w o"],
    env=environment | variables,
    stdout=subprocess.PIPE,
    text=True,
  )
  said, _ = child.communicate(timeout=60)
  assert child.returncode == 0
  return child.pid, said.splitlines()


def test_the_process_starts_again_once_with_its_arguments():
  process, said = run()
  assert said[:-1] == ["begun", "begun"]
  pid, options, *arguments = said[-1].split(" ")
  assert int(pid) == process
  assert "glibc.malloc.hugetlb=1" in options.split(":")
  assert arguments == ["one", "t", "w", "o"]


def test_options_of_ones_own_are_kept():
  _, said = run(GLIBC_TUNABLES="glibc.malloc.hugetlb=0")
  assert said[0] == "begun"
  assert said[1].split(" ")[1] == "glibc.malloc.hugetlb=0"
