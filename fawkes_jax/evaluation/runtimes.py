"""Packages that only an evaluation needs."""

import importlib
from typing import Any

from fawkes_jax import types

PACKAGES = {
  "dlib": "dlib-bin",
  "matplotlib": "matplotlib",
  "onnxruntime": "onnxruntime",
  "openvino": "openvino",
  "skimage": "scikit-image",
  "sklearn": "scikit-learn",
}
"""What they are called where they are installed from."""


def load(module: str) -> Any:
  """Imports a module, such as "skimage.metrics".

  Raises:
    FawkesError: it is not installed; the message says how to.
  """
  try:
    return importlib.import_module(module)
  except ImportError as error:
    package = PACKAGES[module.partition(".")[0]]
    raise types.FawkesError(
      f"{package} must be installed for this evaluation: pip install"
      f" 'fawkes-jax[evaluate]' ({error})"
    ) from error
