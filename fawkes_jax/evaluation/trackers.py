"""Recognisers as trackers run them: in their own runtimes.

They never use the package's networks, nor its detection: what they see of a
photo is found by an independent detector and aligned as they were trained to
see it.
"""

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from fawkes_jax import types
from fawkes_jax.evaluation import detectors, kept, runtimes
from fawkes_jax.weights import catalogue
from fawkes_jax.weights import preprocessing as preprocessing_lib
from fawkes_jax.weights.formats import dlib as dlib_files

Pixels = UInt8[np.ndarray, "height width 3"]

_DLIB = "dlib_resnet"
_CHIP_SIZE = 150
_CHIP_PADDING = 0.25


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Tracker:
  """A recogniser with the detector whose faces it takes.

  Attributes:
    name: in the results.
    key: differs when any of its features could.
    identity: the identity of the recogniser, see `identity`.
    detector: finds the faces.
    embed: the features of a face in a photo; dlib's as they are, others of
      length one; None where the face cannot be aligned.
  """

  name: str
  key: str
  identity: str
  detector: detectors.Detector
  embed: Callable[[Pixels, detectors.Face], Float[np.ndarray, " d"] | None]


def load(
  name: str, dlib: detectors.Dlib, detector: detectors.Detector
) -> Tracker:
  """Loads a tracker.

  Args:
    name: "dlib", or a recogniser in a file, ONNX (.onnx) or OpenVINO (.xml),
      or the name of one that `fawkes-jax weights` has fetched or imported.
      Public ones are known; any other file needs its preprocessing in a TOML
      file of the same name beside it, see
      `weights.extractors.load_extractor`.
    dlib: the detector of dlib's own chain.
    detector: the detector of all other recognisers.

  Raises:
    FawkesError: the file is missing or damaged, or its runtime is missing.
  """
  if name == "dlib":
    return _dlib_tracker(dlib)
  path = catalogue.file_of(name)
  if path is None or not has_runtime(name):
    raise types.FawkesError(
      "--trackers must be dlib, or files that end in .onnx or .xml, or their"
      f" names in `fawkes-jax weights list`, got {name}"
    )
  try:
    sha256 = catalogue.file_digest(path)
    key = [sha256]
    if path.suffix == ".xml":
      key.append(catalogue.file_digest(path.with_suffix(".bin")))
  except OSError as error:
    raise types.FawkesError(
      f"--trackers must be readable, got {error.filename}: {error.strerror}"
    ) from error
  preprocessing = _preprocessing(path, sha256)
  size, network = (_onnx if path.suffix == ".onnx" else _openvino)(path)
  reference = detector.reference(preprocessing.square, size)
  mean = np.array(preprocessing.mean, np.float32)
  scale = np.array(preprocessing.scale, np.float32)

  def embed(
    pixels: Pixels, face: detectors.Face
  ) -> Float[np.ndarray, " d"] | None:
    chip = detectors.chip(pixels, face, reference, size)
    if chip is None:
      return None
    x = ((chip - mean) / scale).astype(np.float32)
    x = x[..., ::-1] if preprocessing.bgr else x
    y = network(np.ascontiguousarray(x.transpose(2, 0, 1)[None])).ravel()
    return y / max(float(np.linalg.norm(y)), 1e-12)

  return Tracker(
    name=path.stem,
    key=kept.digest(key, preprocessing.text, detector.key),
    identity=identity(name) or sha256,
    detector=detector,
    embed=embed,
  )


def has_runtime(name: str) -> bool:
  """Whether a recogniser runs somewhere else than in the package."""
  path = catalogue.file_of(name)
  return name == "dlib" or bool(path and path.suffix in (".onnx", ".xml"))


def identity(name: str) -> str | None:
  """What a recogniser is, see `catalogue.identity`.

  Args:
    name: "dlib", or what --surrogates takes.
  """
  return catalogue.identity(_DLIB if name == "dlib" else name)


def _dlib_tracker(detector: detectors.Dlib) -> Tracker:
  """The chain of dlib from a photo to a descriptor."""
  dlib = runtimes.load("dlib")
  [file] = catalogue.public()[_DLIB].files
  network = dlib.face_recognition_model_v1(
    str(dlib_files.package_file(file.name))
  )

  def embed(pixels: Pixels, face: detectors.Face) -> Float[np.ndarray, " d"]:
    shape = dlib.full_object_detection(
      dlib.rectangle(*(int(edge) for edge in face.box)),
      [dlib.point(int(x), int(y)) for x, y in face.points],
    )
    chip = dlib.get_face_chip(pixels, shape, _CHIP_SIZE, _CHIP_PADDING)
    return np.array(network.compute_face_descriptor(chip))

  return Tracker(
    name="dlib",
    key=kept.digest(file.sha256, detector.key),
    identity=_DLIB,
    detector=detector,
    embed=embed,
  )


def _preprocessing(path: Path, sha256: str) -> preprocessing_lib.Preprocessing:
  """What a recogniser expects to see."""
  record = catalogue.by_sha256(sha256)
  if record is not None and record.preprocessing is not None:
    return record.preprocessing
  return preprocessing_lib.read(path.with_suffix(".toml"))


Network = Callable[
  [Float32[np.ndarray, "1 3 size size"]], Float32[np.ndarray, "1 d"]
]


def _onnx(path: Path) -> tuple[int, Network]:
  """A recogniser in onnxruntime, and the size of its input."""
  session = detectors.onnx_session(path, "trackers")
  [source, *more] = session.get_inputs()
  size = _square(path, list(source.shape) if not more else [])

  def network(x: Any) -> Any:
    return session.run(None, {source.name: x})[0]

  return size, network


def _openvino(path: Path) -> tuple[int, Network]:
  """A recogniser in OpenVINO, and the size of its input."""
  openvino = runtimes.load("openvino")
  try:
    # It starts another process, which is fine: nothing of JAX runs there.
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      model = openvino.Core().compile_model(
        str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
      )
  except RuntimeError as error:
    raise types.FawkesError(
      f"--trackers must be an OpenVINO model, got {path}:"
      f" {str(error).strip().splitlines()[-1]}"
    ) from error
  shape = [
    d.get_length() if d.is_static else "?"
    for d in model.inputs[0].partial_shape
  ]
  size = _square(path, shape if len(model.inputs) == 1 else [])
  return size, lambda x: model(x)[0]


def _square(path: Path, shape: list[Any]) -> int:
  """The size of a recogniser's input, [n, 3, size, size]."""
  if (
    len(shape) != 4
    or shape[1] != 3
    or shape[2] != shape[3]
    or not isinstance(shape[2], int)
  ):
    raise types.FawkesError(
      f"--trackers must take one image [1, 3, size, size], got {path} with"
      f" {shape}"
    )
  return shape[2]
