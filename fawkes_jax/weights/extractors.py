"""Loading extractors with their trained weights, by name or from a file."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fawkes_jax import types
from fawkes_jax.models import architectures
from fawkes_jax.models.onnx import module
from fawkes_jax.weights import (
  builtin,
  cache,
  catalogue,
  preprocessing,
  variables,
)
from fawkes_jax.weights.formats import mxnet, onnx, openvino, torch_names

# What a plain install brings.
_BUILT_IN: dict[str, Callable[[], Any]] = {
  "dlib_resnet": builtin.load_resnet_variables,
}

# Public files that have a port: by sha256, its name and how it is read.
_PORTS: dict[str, tuple[str, Callable[[Path], Any]]] = {
  # github.com/foamliu/MobileFaceNet, weights/MobileFaceNet.onnx; Apache-2.0.
  "b7120c095d60094f28a4a54ba6a8bf51b297a6273fb40ef6350dfec1f63d9507": (
    "mobilefacenet",
    lambda path: onnx.convert_mobilefacenet(onnx.read(path)),
  ),
  # MobileFace_Identification_V2 of github.com/becauseofAI/MobileFace, as it is
  # there and in ONNX; MIT.
  "750057619a1eef8acb320339aebf0bbcf191497e1396a361c8aaba517bbe825e": (
    "mobileface_v2",
    lambda path: mxnet.convert_mobileface(str(path), mxnet.read(path)),
  ),
  "d3614736e185e0c2b3d997f10f6e689a50e89dc00b237c1378dafc222dabc681": (
    "mobileface_v2",
    lambda path: onnx.convert_mobileface(onnx.read(path)),
  ),
  # human_face_feat_mfn of github.com/espressif/esp-dl, in ONNX; MIT.
  "4daf74d6bb18b7511c48828c993fde4515d94765bd7ba18ca858dfef41a002e4": (
    "esp_mobilefacenet",
    lambda path: onnx.convert_mobilefacenet_prelu(onnx.read(path)),
  ),
  # se_mobilefacenet of github.com/leondgarse/Keras_insightface, in ONNX; MIT.
  "6e1e30d9b8c5dd10854923e91f9ad6a64f184c385aca5379f2ed14365b449ded": (
    "se_mobilefacenet",
    lambda path: onnx.convert_mobilefacenet_prelu(onnx.read(path)),
  ),
  # face-reidentification-retail-0095 of Intel's Open Model Zoo; Apache-2.0.
  "879662c555c826e7a07683f95bb4387b810ab679a8b8c64cc46e07016bb3da2b": (
    "se_mobilenet",
    lambda path: openvino.convert_se_mobilenet(openvino.read(path)),
  ),
}

# Formats that are read for the sake of one model.
_ONLY = {
  ".xml": "OpenVINO model that can be read is"
  " face-reidentification-retail-0095, release 2022.1, FP16",
  ".params": "MXNet model that can be read is MobileFace_Identification_V2",
}


def shipped() -> dict[str, Path]:
  """The files of the extractors that travel with the package, by name."""
  return {
    path.stem: path
    for path in sorted(builtin.checkpoint("").glob("*.safetensors"))
    if variables.architecture(path) is not None
  }


def file_of(name: str) -> Path | None:
  """The file of a recogniser.

  Args:
    name: what --surrogates takes.

  Returns:
    The file, which need not exist; None for what is built in or not known.
  """
  if Path(name).suffix in catalogue.SUFFIXES:
    return Path(name)
  return (catalogue.kept() | shipped()).get(name)


def identity(name: str) -> str | None:
  """What an extractor is, whatever its file is called, and its format.

  Args:
    name: what --surrogates takes.

  Returns:
    The name of what is built in or of a public model, else the sha256 of its
    file; None where there is no such file.
  """
  if name in _BUILT_IN:
    return name
  if (path := file_of(name)) is None:
    return None
  try:
    with path.open("rb") as file:
      sha256 = hashlib.file_digest(file, "sha256").hexdigest()
  except OSError:
    return None
  model = catalogue.by_sha256(sha256)
  return model.name if model else sha256


def teachers(name: str) -> tuple[str, ...]:
  """Who taught an extractor of `fawkes-jax train`.

  Args:
    name: what --surrogates takes.

  Returns:
    Their identities; none for other extractors.
  """
  path = file_of(name)
  if path is None or path.suffix != ".safetensors":
    return ()
  return variables.teachers(path)


def load_extractor(name: str, **options: Any) -> architectures.Extractor:
  """Loads a face feature extractor with its weights.

  Args:
    name: "dlib_resnet", a name of `shipped`, a name that `fawkes-jax weights`
      has fetched or imported, or the path of a file that ends in .safetensors
      (a student of one's own, or a network whose tensors have the names of
      InsightFace, AdaFace or facenet-pytorch), .onnx, .xml (OpenVINO) or
      .params (MXNet). Of the last two only the public files are read that
      the package has a port of. An ONNX file that it has no port of needs a
      TOML file of the same name beside it with its contract:

          mean = [127.5, 127.5, 127.5]   # subtracted from RGB in 0..255
          scale = [127.5, 127.5, 127.5]  # then divided by
          bgr = false                    # whether it takes blue, green, red
          template = "arcface"           # a name of architectures.TEMPLATES, or
                                         # [left, top, side] of the face frame
    **options: attributes of its Flax module, such as `dtype`.

  Returns:
    The extractor: `name`, `input_size`, `embed(images)` and the pure
    `apply(variables, images)`.

  Raises:
    FawkesError: the name is unknown, or the weights are missing or damaged.
  """
  if name in _BUILT_IN:
    return architectures.build(name, _BUILT_IN[name](), **options)
  if Path(name).suffix in catalogue.SUFFIXES:
    return _from_file(Path(name), options)
  files = catalogue.kept() | shipped()
  if name in files:
    return dataclasses.replace(_from_file(files[name], options), name=name)
  if name in catalogue.models():
    fetchable = catalogue.models()[name].fetchable
    raise types.FawkesError(
      f"--surrogates must be here, got {name}: fawkes-jax weights"
      f" {'fetch ' if fetchable else 'import FILE --name='}{name}"
    )
  raise types.FawkesError(
    f"--surrogates must be of {', '.join([*_BUILT_IN, *files])}, or files that"
    f" end in {', '.join(catalogue.SUFFIXES)}, got {name}; fawkes-jax weights"
    " list shows what can be added"
  )


def _from_file(path: Path, options: dict[str, Any]) -> architectures.Extractor:
  """An extractor from a file, called as the file or its port is."""
  if path.suffix == ".safetensors":
    if variables.architecture(path) is None:
      name, nested = torch_names.convert(str(path), variables.read(path))
    else:
      name, nested = variables.load(path)
    return architectures.build(name, nested, name=path.stem, **options)
  try:
    with path.open("rb") as file:
      sha256 = hashlib.file_digest(file, "sha256").hexdigest()
  except OSError as error:
    raise types.FawkesError(
      f"--surrogates must be readable, got {path}: {error.strerror}"
    ) from error
  if sha256 in _PORTS:
    port, read = _PORTS[sha256]
    converted = cache.load(port, sha256, lambda: read(path))
    return architectures.build(port, converted, **options)
  if path.suffix in _ONLY:
    raise types.FawkesError(f"{path}: the only {_ONLY[path.suffix]}")
  return _from_onnx(path, options)


def _from_onnx(path: Path, options: dict[str, Any]) -> architectures.Extractor:
  """Any recogniser in ONNX, with its contract from the TOML beside it."""
  expected = preprocessing.read(path.with_suffix(".toml"))
  model = onnx.read(path)
  height, width = model.graph.image_size
  if height != width:
    raise types.FawkesError(
      f"{path}: a recogniser must take square images, got {width} x {height}"
    )
  return architectures.Extractor(
    name=path.stem,
    module=module.GraphModule(
      model.graph,
      mean=expected.mean,
      scale=expected.scale,
      bgr=expected.bgr,
      **options,
    ),
    variables=model.variables,
    input_size=height,
    template=expected.square,
  )
