"""Loading extractors with their trained weights, by name or from a file."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fawkes_jax import types
from fawkes_jax.models import architectures
from fawkes_jax.models.onnx import module
from fawkes_jax.options import FaceOptions, OptionError
from fawkes_jax.weights import (
  cache,
  catalogue,
  preprocessing,
  variables,
)
from fawkes_jax.weights.formats import dlib, mxnet, onnx, openvino, torch_names

# How the variables of a port are read, by the format of the file.
_READERS: dict[str, Callable[[catalogue.Recogniser, Path], dict[str, Any]]] = {
  ".dat": lambda record, path: dlib.read_resnet(
    dlib.package_file(path.name), path.name, record.files[0].sha256
  ),
  ".onnx": lambda record, path: onnx.convert(
    onnx.read(path), record.architecture
  ),
  ".params": lambda _, path: mxnet.convert_mobileface(
    str(path), mxnet.read(path)
  ),
  ".xml": lambda _, path: openvino.convert_se_mobilenet(openvino.read(path)),
}

# Formats that are read for the sake of one model.
_ONLY = {
  ".xml": "OpenVINO model that can be read is"
  " face-reidentification-retail-0095, release 2022.1, FP16",
  ".params": "MXNet model that can be read is MobileFace_Identification_V2",
}


def load_extractor(name: str, **options: Any) -> architectures.Extractor:
  """Loads a face feature extractor with its weights.

  Args:
    name: "dlib_resnet", a name of `catalogue.students`, a name that `fawkes-jax
      weights` has fetched or imported, or the path of a file that ends in
      .safetensors (a student of one's own, or a network whose tensors have the
      names of InsightFace, AdaFace or facenet-pytorch), .onnx, .xml (OpenVINO)
      or .params (MXNet). Of the last two only the public files are read that
      the package has a port of. An ONNX file that it has no port of needs a
      TOML file of the same name beside it with its preprocessing:

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
  record = catalogue.public().get(name)
  if record and record.finds_faces:
    raise _unusable("recognisers", f"{name}, which finds faces")
  if record and record.built_in:
    [file] = record.files
    return _port(record, Path(file.name), file.sha256, options)
  if Path(name).suffix in catalogue.SUFFIXES:
    return _from_file(Path(name), options)
  files = catalogue.kept() | catalogue.students()
  if name in files:
    return dataclasses.replace(_from_file(files[name], options), name=name)
  if record:
    adds = "fetch " if record.fetchable else "import FILE --name="
    raise _unusable(f"installed (fawkes-jax weights {adds}{name})", name)
  built_in = [r.name for r in catalogue.public().values() if r.built_in]
  raise _unusable(
    f"of {', '.join([*built_in, *files])}, or files that end in"
    f" {', '.join(catalogue.SUFFIXES)} (fawkes-jax weights list shows what can"
    " be added)",
    name,
  )


def _unusable(rule: str, value: object) -> OptionError:
  """The error of a recogniser that cannot be used; it names the option."""
  return OptionError(FaceOptions, "extractors", rule, str(value))


def _from_file(path: Path, options: dict[str, Any]) -> architectures.Extractor:
  """An extractor from a file, called as its record or the file is."""
  if path.suffix == ".safetensors":
    if variables.architecture(path) is None:
      name, nested = torch_names.convert(str(path), variables.read(path))
    else:
      name, nested = variables.load(path)
    return architectures.build(name, nested, name=path.stem, **options)
  try:
    sha256 = catalogue.file_digest(path)
  except OSError as error:
    raise _unusable("readable", f"{path}: {error.strerror}") from error
  record = catalogue.by_sha256(sha256)
  if record and record.finds_faces:
    raise _unusable("recognisers", f"{path}, which finds faces")
  if record and record.has_port:
    return _port(record, path, sha256, options)
  if path.suffix in _ONLY:
    raise types.FawkesError(f"{path}: the only {_ONLY[path.suffix]}")
  return _from_onnx(path, options)


def _port(
  record: catalogue.Recogniser,
  path: Path,
  sha256: str,
  options: dict[str, Any],
) -> architectures.Extractor:
  """A public recogniser as a module of the package, called as its record."""
  converted = cache.load(
    record.name, sha256, lambda: _READERS[path.suffix](record, path)
  )
  return architectures.build(
    record.architecture, converted, name=record.name, **options
  )


def _from_onnx(path: Path, options: dict[str, Any]) -> architectures.Extractor:
  """Any recogniser in ONNX, with its preprocessing from the TOML beside it."""
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
