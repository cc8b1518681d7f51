"""Cloaks the faces in photos against unauthorised face recognition.

The public API:

* `Cloaker(mode="mid")`: cloaks the faces of images in memory; what it gives
  are `Cloaked` images with their `Face`s.
* `cloak_archive(options)`: cloaks an archive of photos; a `Watcher` is told
  what becomes of each.
* `CloakerOptions`, `CloakOptions`, `SolverOptions`, `MODES`: their options.
* `load_extractor(name)`: a face feature extractor with its weights;
  `Extractor.from_apply` makes one of any function in JAX.
* `load_detector()`: what finds faces; `load_landmark_model()` finds the
  landmarks in the boxes of `load_detector("dlib")`.
"""

import os
from typing import TYPE_CHECKING, Any

if os.name == "nt":
  raise ImportError(
    "fawkes_jax runs on Linux and macOS; on Windows, install it in the Windows"
    " Subsystem for Linux (WSL)"
  )

from fawkes_jax.options import (
  MODES,
  CloakerOptions,
  CloakOptions,
  SolverOptions,
)
from fawkes_jax.types import FawkesError, PhotoError
from fawkes_jax.version import __version__

if TYPE_CHECKING:
  from fawkes_jax.faces.arrays import Cloaked, Face
  from fawkes_jax.faces.cloaker import Cloaker
  from fawkes_jax.models.architectures import Extractor
  from fawkes_jax.runs.outcomes import Watcher
  from fawkes_jax.runs.pipeline import cloak_archive
  from fawkes_jax.weights.builtin import load_landmark_model
  from fawkes_jax.weights.detectors import load_detector
  from fawkes_jax.weights.extractors import load_extractor

__all__ = [
  "MODES",
  "CloakOptions",
  "Cloaked",
  "Cloaker",
  "CloakerOptions",
  "Extractor",
  "Face",
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
  "Cloaked": "fawkes_jax.faces.arrays",
  "Cloaker": "fawkes_jax.faces.cloaker",
  "Extractor": "fawkes_jax.models.architectures",
  "Face": "fawkes_jax.faces.arrays",
  "Watcher": "fawkes_jax.runs.outcomes",
  "cloak_archive": "fawkes_jax.runs.pipeline",
  "load_detector": "fawkes_jax.weights.detectors",
  "load_extractor": "fawkes_jax.weights.extractors",
  "load_landmark_model": "fawkes_jax.weights.builtin",
}


def __getattr__(name: str) -> Any:
  if name not in _LAZY:
    raise AttributeError(f"module 'fawkes_jax' has no attribute {name!r}")
  import importlib

  return getattr(importlib.import_module(_LAZY[name]), name)
