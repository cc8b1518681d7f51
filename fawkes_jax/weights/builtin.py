"""The files of a plain install: checkpoints, and dlib's face detector."""

import importlib.resources
from pathlib import Path

from fawkes_jax.models import landmarks, mmod
from fawkes_jax.weights import cache
from fawkes_jax.weights.formats import dlib


def checkpoint(name: str) -> Path:
  """Where a file that travels with the package lies, there or not.

  Args:
    name: the name of a file in `checkpoints/`, of the installed package or of a
      checkout; "" for the folder itself.
  """
  package = Path(str(importlib.resources.files("fawkes_jax")))
  installed = package / "checkpoints"
  folder = installed if installed.is_dir() else package.parent / "checkpoints"
  return folder / name


def load_landmark_model() -> landmarks.LandmarkModel:
  """Loads dlib's five-point shape predictor.

  Raises:
    FawkesError: the package face_recognition_models, or its file, is missing
      or not the pinned one.
  """
  return landmarks.LandmarkModel(
    **cache.load(
      "dlib_landmarks",
      dlib.SHA256[dlib.LANDMARK_FILE],
      lambda: dlib.read_shape_predictor(dlib.package_file(dlib.LANDMARK_FILE)),
    )
  )


def load_mmod() -> mmod.Detector:
  """Loads dlib's CNN face detector.

  Raises:
    FawkesError: the package face_recognition_models, or its file, is missing
      or not the pinned one.
  """
  loaded = cache.load(
    "dlib_mmod",
    dlib.SHA256[dlib.MMOD_FILE],
    lambda: dlib.read_mmod(dlib.package_file(dlib.MMOD_FILE)),
  )
  width, height = (int(side) for side in loaded["window"])
  shared, covered = (float(fraction) for fraction in loaded["overlap"])
  return mmod.Detector(
    name="dlib_mmod",
    module=mmod.MmodNet(),
    variables=loaded["variables"],
    window=(width, height),
    overlap=(shared, covered),
  )
