"""What a peer's process says to the one that measures it.

Needs nothing but numpy, since each peer runs in an environment of its own.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def serve(
  prepare: Callable[[dict[str, np.ndarray]], Any],
  run: Callable[[Any, int], np.ndarray],
) -> None:
  """Answers requests until standard input ends.

  The first argument of the program is an .npz file with the task. A request is
  a line with a number of steps and a name; the answer is the seconds they
  took, as the clock on the wall and the processor's have them, and the cloaked
  faces, float32 [n, 150, 150, 3], lie in the file of that name (none for the
  name "-").

  Args:
    prepare: makes of the task what `run` needs.
    run: solves the faces from the start with so many steps.
  """
  answers, sys.stdout = sys.stdout, sys.stderr
  with np.load(sys.argv[1]) as task:
    ready = prepare(dict(task))
  print(json.dumps("ready"), file=answers, flush=True)
  for line in sys.stdin:
    steps, name = line.split()
    started = time.perf_counter(), time.process_time()
    faces = run(ready, int(steps))
    ended = time.perf_counter(), time.process_time()
    if name != "-":
      np.save(name, faces)
    seconds = [b - a for a, b in zip(started, ended, strict=True)]
    print(json.dumps(seconds), file=answers, flush=True)
