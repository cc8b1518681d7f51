"""Cloaks the faces in photos against unauthorised face recognition.

The public API:

* `load_extractor(name)`: a face feature extractor with its weights.
* `load_detector()`, `load_landmark_model()`: what finds faces.
* `CloakOptions`, `SolverOptions`, `MODES`: the options of a run.
* `cloak_archive(options)`: cloaks an archive of photos; a `Watcher` is told
  what becomes of each.
"""

import os
from typing import TYPE_CHECKING, Any

if os.name == "nt":
  raise ImportError(
    "fawkes_jax runs on Linux and macOS; on Windows, install it in the Windows"
    " Subsystem for Linux (WSL)"
  )

from fawkes_jax.options import MODES, CloakOptions, SolverOptions
from fawkes_jax.types import FawkesError, PhotoError
from fawkes_jax.version import __version__

if TYPE_CHECKING:
  from fawkes_jax.runs.outcomes import Watcher
  from fawkes_jax.runs.pipeline import cloak_archive
  from fawkes_jax.weights.builtin import load_detector, load_landmark_model
  from fawkes_jax.weights.extractors import load_extractor

__all__ = [
  "MODES",
  "CloakOptions",
  "FawkesError",
  "PhotoError",
  "SolverOptions",
  "Watcher",
  "__version__",
  "cloak_archive",
  "load_detector",
  "load_extractor",
  "load_landmark_model",
]

# These need JAX, which takes a second to import: only when asked for.
_LAZY = {
  "Watcher": "fawkes_jax.runs.outcomes",
  "cloak_archive": "fawkes_jax.runs.pipeline",
  "load_detector": "fawkes_jax.weights.builtin",
  "load_extractor": "fawkes_jax.weights.extractors",
  "load_landmark_model": "fawkes_jax.weights.builtin",
}


def __getattr__(name: str) -> Any:
  if name not in _LAZY:
    raise AttributeError(f"module 'fawkes_jax' has no attribute {name!r}")
  import importlib

  return getattr(importlib.import_module(_LAZY[name]), name)
