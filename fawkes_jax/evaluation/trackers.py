"""Recognisers as trackers run them: in their own runtimes.

They never use the package's networks, nor its detection: what they see of a
photo is found by an independent detector and aligned as they were trained to
see it.
"""

import dataclasses
import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from fawkes_jax import types
from fawkes_jax.evaluation import detectors, runtimes, store
from fawkes_jax.imaging import geometry
from fawkes_jax.models import registry
from fawkes_jax.weights import dlib as dlib_files
from fawkes_jax.weights import extractors

Pixels = UInt8[np.ndarray, "height width 3"]

_CHIP_SIZE = 150
_CHIP_PADDING = 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contract:
  """What a recogniser expects to see.

  Attributes:
    mean: subtracted from RGB in 0..255; a number or one for each channel.
    scale: what is divided by afterwards.
    bgr: whether it takes blue, green, red.
    template: the square of the face frame that it looks at.
  """

  mean: tuple[float, ...] = (127.5,)
  scale: tuple[float, ...] = (127.5,)
  bgr: bool = False
  template: geometry.Template = registry.TEMPLATES["arcface"]


# Public recognisers by the sha256 of their files.
_KNOWN = {
  # github.com/foamliu/MobileFaceNet, weights/MobileFaceNet.onnx.
  "b7120c095d60094f28a4a54ba6a8bf51b297a6273fb40ef6350dfec1f63d9507": Contract(
    mean=(123.675, 116.28, 103.53), scale=(58.395, 57.12, 57.375)
  ),
  # MobileFace_Identification_V2 and V3 of github.com/becauseofAI/MobileFace.
  "d3614736e185e0c2b3d997f10f6e689a50e89dc00b237c1378dafc222dabc681": Contract(
    mean=(0.0,), scale=(1.0,)
  ),
  "8e8210ba3b50d68b26e0c24ecfff2e5f2e77e6ec9b29bb1aa7bc89e4332c7cd8": Contract(
    mean=(0.0,), scale=(1.0,)
  ),
  # The MobileFaceNet of github.com/espressif/esp-dl.
  "4daf74d6bb18b7511c48828c993fde4515d94765bd7ba18ca858dfef41a002e4": (
    Contract()
  ),
  # face-reidentification-retail-0095 of Intel's Open Model Zoo.
  "879662c555c826e7a07683f95bb4387b810ab679a8b8c64cc46e07016bb3da2b": Contract(
    mean=(0.0,),
    scale=(1.0,),
    bgr=True,
    template=registry.TEMPLATES["open_model_zoo"],
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Tracker:
  """A recogniser with the detector whose faces it takes.

  Attributes:
    name: in the results.
    key: differs when any of its features could.
    sha256: of the recogniser's file.
    detector: finds the faces.
    embed: the features of a face in a photo; dlib's as they are, others of
      length one; None where the face cannot be aligned.
  """

  name: str
  key: str
  sha256: str
  detector: detectors.Detector
  embed: Callable[[Pixels, detectors.Face], Float[np.ndarray, " d"] | None]


def load(
  name: str, dlib: detectors.Dlib, detector: detectors.Detector
) -> Tracker:
  """Loads a tracker.

  Args:
    name: "dlib", or a recogniser in a file: ONNX (.onnx) or OpenVINO (.xml).
      Public ones are known; any other needs its input contract in a TOML file
      of the same name beside it, see `weights.extractors.load_extractor`.
    dlib: the detector of dlib's own chain.
    detector: of all other recognisers.

  Raises:
    FawkesError: the file is missing or damaged, or its runtime is missing.
  """
  if name == "dlib":
    return _dlib_tracker(dlib)
  path = Path(name)
  if path.suffix not in (".onnx", ".xml"):
    raise types.FawkesError(
      f"--trackers must be dlib, or files that end in .onnx or .xml, got {name}"
    )
  try:
    data = path.read_bytes()
    if path.suffix == ".xml":
      data += path.with_suffix(".bin").read_bytes()
  except OSError as error:
    raise types.FawkesError(
      f"--trackers must be readable, got {error.filename}: {error.strerror}"
    ) from error
  sha256 = file_digest(path)
  contract = _KNOWN.get(sha256) or _contract(path)
  size, network = (_onnx if path.suffix == ".onnx" else _openvino)(path)
  reference = detector.reference(contract.template, size)
  mean = np.array(contract.mean, np.float32)
  scale = np.array(contract.scale, np.float32)

  def embed(
    pixels: Pixels, face: detectors.Face
  ) -> Float[np.ndarray, " d"] | None:
    chip = detectors.chip(pixels, face, reference, size)
    if chip is None:
      return None
    x = ((chip - mean) / scale).astype(np.float32)
    x = x[..., ::-1] if contract.bgr else x
    y = network(np.ascontiguousarray(x.transpose(2, 0, 1)[None])).ravel()
    return y / max(float(np.linalg.norm(y)), 1e-12)

  return Tracker(
    name=path.stem,
    key=store.digest(
      hashlib.sha256(data).hexdigest(), str(contract), detector.key
    ),
    sha256=sha256,
    detector=detector,
    embed=embed,
  )


def file_digest(path: Path) -> str:
  """The sha256 of a file, in hexadecimal.

  Raises:
    OSError: it cannot be read.
  """
  return hashlib.sha256(path.read_bytes()).hexdigest()


def _dlib_tracker(detector: detectors.Dlib) -> Tracker:
  """The chain of dlib from a photo to a descriptor."""
  dlib = runtimes.load("dlib")
  file = dlib_files.package_file(dlib_files.RESNET_FILE)
  network = dlib.face_recognition_model_v1(str(file))

  def embed(pixels: Pixels, face: detectors.Face) -> Float[np.ndarray, " d"]:
    shape = dlib.full_object_detection(
      dlib.rectangle(*(int(edge) for edge in face.box)),
      [dlib.point(int(x), int(y)) for x, y in face.points],
    )
    chip = dlib.get_face_chip(pixels, shape, _CHIP_SIZE, _CHIP_PADDING)
    return np.array(network.compute_face_descriptor(chip))

  sha256 = dlib_files.SHA256[dlib_files.RESNET_FILE]
  return Tracker(
    name="dlib",
    key=store.digest(sha256, detector.key),
    sha256=sha256,
    detector=detector,
    embed=embed,
  )


def _contract(path: Path) -> Contract:
  """The input contract beside a recogniser that is not known."""
  values, template = extractors.read_contract(path.with_suffix(".toml"))
  return Contract(**values, template=template)


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
