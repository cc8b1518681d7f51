"""Loading extractors with their trained weights, by name or from a file."""

import hashlib
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fawkes_jax import types, weights
from fawkes_jax.imaging import geometry
from fawkes_jax.models import graph, registry
from fawkes_jax.weights import cache, onnx, openvino

# What a plain install brings.
_BUILT_IN: dict[str, Callable[[], Any]] = {
  "dlib_resnet": weights.load_resnet_variables,
}

# Public files that have a port: by sha256, its name and how it is read.
_PORTS: dict[str, tuple[str, Callable[[Path], Any]]] = {
  # github.com/foamliu/MobileFaceNet, weights/MobileFaceNet.onnx; Apache-2.0.
  "b7120c095d60094f28a4a54ba6a8bf51b297a6273fb40ef6350dfec1f63d9507": (
    "mobilefacenet",
    lambda path: onnx.convert_mobilefacenet(onnx.read(path)),
  ),
  # MobileFace_Identification_V2 of github.com/becauseofAI/MobileFace, in ONNX;
  # MIT.
  "d3614736e185e0c2b3d997f10f6e689a50e89dc00b237c1378dafc222dabc681": (
    "mobileface_v2",
    lambda path: onnx.convert_mobileface(onnx.read(path)),
  ),
  # face-reidentification-retail-0095 of Intel's Open Model Zoo; Apache-2.0.
  "879662c555c826e7a07683f95bb4387b810ab679a8b8c64cc46e07016bb3da2b": (
    "se_mobilenet",
    lambda path: openvino.convert_se_mobilenet(openvino.read(path)),
  ),
}

_KEYS = {"mean", "scale", "bgr", "template"}


def load_extractor(name: str, **options: Any) -> registry.Extractor:
  """Loads a face feature extractor with its weights.

  Args:
    name: "dlib_resnet", or the path of a recogniser in a file: ONNX (.onnx) or
      OpenVINO (.xml). A public file that the package has a port of needs
      nothing else; any other ONNX file needs a TOML file of the same name
      beside it with its input contract:

          mean = [127.5, 127.5, 127.5]   # subtracted from RGB in 0..255
          scale = [127.5, 127.5, 127.5]  # then divided by
          bgr = false                    # whether it takes blue, green, red
          template = "arcface"           # a name of registry.TEMPLATES, or
                                         # [left, top, side] of the face frame
    **options: attributes of its Flax module, such as `dtype`.

  Returns:
    The extractor: `name`, `input_size`, `embed(images)` and the pure
    `apply(variables, images)`.

  Raises:
    FawkesError: the name is unknown, or the weights are missing or damaged.
  """
  if name in _BUILT_IN:
    return registry.build(name, _BUILT_IN[name](), **options)
  path = Path(name)
  if path.suffix not in (".onnx", ".xml"):
    raise types.FawkesError(
      f"--surrogates must be of {', '.join(_BUILT_IN)}, or files that end in"
      f" .onnx or .xml, got {name}"
    )
  try:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
  except OSError as error:
    raise types.FawkesError(
      f"--surrogates must be readable, got {name}: {error.strerror}"
    ) from error
  if sha256 in _PORTS:
    port, read = _PORTS[sha256]
    variables = cache.load(port, sha256, lambda: read(path))
    return registry.build(port, variables, **options)
  if path.suffix == ".xml":
    raise types.FawkesError(
      f"{name}: the only OpenVINO model that can be read is"
      " face-reidentification-retail-0095"
    )
  return _from_onnx(path, options)


def _from_onnx(path: Path, options: dict[str, Any]) -> registry.Extractor:
  """Any recogniser in ONNX, with its contract from the TOML beside it."""
  contract, template = read_contract(path.with_suffix(".toml"))
  model = onnx.read(path)
  height, width = model.graph.image_size
  if height != width:
    raise types.FawkesError(
      f"{path}: a recogniser must take square images, got {width} x {height}"
    )
  return registry.Extractor(
    name=path.stem,
    module=graph.GraphModule(model.graph, **contract, **options),
    variables=model.variables,
    input_size=height,
    template=template,
  )


def read_contract(path: Path) -> tuple[dict[str, Any], geometry.Template]:
  """Reads the input contract of a recogniser from a TOML file.

  Args:
    path: the file, see `load_extractor`.

  Returns:
    Those of mean, scale (three numbers each) and bgr that it holds, and the
    part of a face that the recogniser looks at.

  Raises:
    FawkesError: the file is missing, or breaks a rule.
  """
  try:
    contract = tomllib.loads(path.read_text())
  except OSError as error:
    raise types.FawkesError(
      f"{path} must say what the recogniser beside it expects (mean, scale,"
      f" bgr, template): {error.strerror}"
    ) from error
  except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
    raise types.FawkesError(f"{path} must be TOML: {error}") from error
  if unknown := contract.keys() - _KEYS:
    raise types.FawkesError(
      f"{path} must hold {', '.join(sorted(_KEYS))}, got"
      f" {', '.join(sorted(unknown))}"
    )
  for key in ("mean", "scale"):
    if key in contract:
      contract[key] = _numbers(path, key, contract[key])
  if not isinstance(contract.get("bgr", False), bool):
    raise types.FawkesError(
      f"{path}: bgr must be true or false, got {contract['bgr']}"
    )
  template = contract.pop("template", "arcface")
  if isinstance(template, str):
    if template in registry.TEMPLATES:
      return contract, registry.TEMPLATES[template]
    raise types.FawkesError(
      f"{path}: template must be one of {', '.join(registry.TEMPLATES)}, or"
      f" left, top and side, got {template}"
    )
  left, top, side = _numbers(path, "template", template)
  return contract, geometry.Template(left=left, top=top, side=side)


def _numbers(path: Path, key: str, value: Any) -> tuple[float, ...]:
  """Three numbers, or an error."""
  if (
    isinstance(value, list)
    and len(value) == 3
    and all(isinstance(x, int | float) for x in value)
  ):
    return tuple(float(x) for x in value)
  raise types.FawkesError(f"{path}: {key} must be three numbers, got {value}")
