"""Reads networks from OpenVINO's intermediate representation, without it.

A network is two files: an .xml file with layers and edges, and a .bin file
with the values of the constant layers one after another. Half precision
constants are converted to single precision; the conversion layers behind them
vanish.

Source: OpenVINO's documentation of the IR format, versions 10 and 11.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import flax.traverse_util
import numpy as np

from fawkes_jax import types
from fawkes_jax.models import se_mobilenet
from fawkes_jax.weights.variables import check

_TYPES = {
  "f16": "<f2",
  "f32": "<f4",
  "i32": "<i4",
  "i64": "<i8",
  "u8": "u1",
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
  """One operation of a network.

  Attributes:
    name: the layer's name.
    op: the operation's name.
    attributes: its attributes, as they are written.
    inputs: the identifiers of the layers whose results it takes.
  """

  name: str
  op: str
  attributes: Mapping[str, str]
  inputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Model:
  """A network and its constants.

  Attributes:
    name: the file it comes from.
    layers: the operations by identifier, in the file's order.
    constants: arrays by identifier; floats are float32.
  """

  name: str
  layers: Mapping[str, Layer]
  constants: Mapping[str, np.ndarray]

  def constant(self, layer: Layer) -> np.ndarray | None:
    """The last input of a layer where it is a constant."""
    return self.constants.get(layer.inputs[-1]) if layer.inputs else None


def _constant(layer: ElementTree.Element, data: bytes) -> np.ndarray:
  """The value of a constant layer."""
  name = layer.get("name")
  about = layer.find("data")
  if about is None:
    raise ValueError(f"constant {name} has no data")
  kind = about.get("element_type", "")
  if kind not in _TYPES:
    raise ValueError(f"constant {name} has the unsupported type {kind!r}")
  shape = [int(size) for size in about.get("shape", "").split(",") if size]
  start, size = int(about.get("offset", "")), int(about.get("size", ""))
  dtype = np.dtype(_TYPES[kind])
  if start < 0 or size != math.prod(shape) * dtype.itemsize:
    raise ValueError(f"constant {name} has another size than its shape")
  if start + size > len(data):
    raise ValueError(
      f"constant {name} ends at byte {start + size} of the .bin file, which "
      f"has {len(data)}"
    )
  array = np.frombuffer(data[start : start + size], dtype).reshape(shape)
  return array.astype(np.float32) if dtype.kind == "f" else array


def _parse(name: str, text: bytes, data: bytes) -> Model:
  """Parses the two files; ValueError says what is wrong."""
  try:
    root = ElementTree.fromstring(text)
  except ElementTree.ParseError as error:
    raise ValueError(f"the .xml file is damaged: {error}") from error
  if root.tag != "net" or root.find("layers") is None:
    raise ValueError("the .xml file describes no network")
  sources: dict[str, list[tuple[int, str]]] = {}
  for edge in root.iterfind("edges/edge"):
    sources.setdefault(edge.get("to-layer", ""), []).append(
      (int(edge.get("to-port", "")), edge.get("from-layer", ""))
    )
  layers, constants = {}, {}
  for element in root.iterfind("layers/layer"):
    key, op = element.get("id", ""), element.get("type", "")
    inputs = tuple(source for _, source in sorted(sources.get(key, [])))
    if op == "Const":
      constants[key] = _constant(element, data)
    elif op == "Convert" and inputs and inputs[0] in constants:
      constants[key] = constants[inputs[0]]
    else:
      about = element.find("data")
      layers[key] = Layer(
        name=element.get("name", ""),
        op=op,
        attributes={} if about is None else dict(about.attrib),
        inputs=inputs,
      )
  return Model(name=name, layers=layers, constants=constants)


def read(path: str | pathlib.Path) -> Model:
  """Reads a network.

  Args:
    path: the .xml file; the .bin file lies beside it.

  Returns:
    The network.

  Raises:
    FawkesError: one of the files is missing or damaged.
  """
  files = [pathlib.Path(path), pathlib.Path(path).with_suffix(".bin")]
  contents = []
  for file in files:
    try:
      contents.append(file.read_bytes())
    except OSError as error:
      raise types.FawkesError(
        f"{file}: must be a readable OpenVINO file, got: {error.strerror}"
      ) from error
  try:
    return _parse(str(path), *contents)
  except ValueError as error:
    raise types.FawkesError(
      f"{path}: must be a complete OpenVINO model: {error}"
    ) from error


def convert_se_mobilenet(model: Model) -> dict[str, Any]:
  """Turns reid-0095 into `models.se_mobilenet.SeMobileNet`.

  Args:
    model: face-reidentification-retail-0095 of Open Model Zoo.

  Returns:
    The Flax variables, float32.

  Raises:
    FawkesError: it is another network.
  """
  layers: list[dict[str, np.ndarray]] = []
  slopes: list[np.ndarray] = []
  colours: list[np.ndarray] = []  # Scale and shift of the three channels.
  convolutions: dict[str, dict[str, np.ndarray]] = {}
  for key, layer in model.layers.items():
    value = model.constant(layer)
    if value is None:
      continue
    if layer.op in ("Convolution", "GroupConvolution"):
      # [out, in, ...], or [groups, out / groups, in / groups, ...].
      kernel = value.reshape(-1, *value.shape[-3:]).transpose(2, 3, 1, 0)
      convolutions[key] = {"kernel": np.ascontiguousarray(kernel)}
      layers.append(convolutions[key])
    elif layer.op == "PReLU":
      slopes.append(value.reshape(-1))
    elif layer.op == "Add" and layer.inputs[0] in convolutions:
      convolutions[layer.inputs[0]]["bias"] = value.reshape(-1)
    elif layer.op in ("Multiply", "Add"):
      colours.append(value.reshape(-1))

  blocks = range(len(se_mobilenet.BLOCKS))
  block = ("expand", "depthwise", "project", "squeeze", "excite")
  names: list[tuple[str, ...]] = [("stem",), ("depthwise",)]
  names += [(f"block_{i}", layer) for i in blocks for layer in block]
  names += [("head",), ("pool",), ("embedding",)]
  places: list[tuple[str, ...]] = [("prelu_0",), ("prelu_1",)]
  places += [(f"block_{i}", f"prelu_{j}") for i in blocks for j in range(3)]
  places += [("prelu_2",)]
  counts = len(layers), len(slopes), len(colours)
  expected = len(names), len(places), 2
  if counts != expected or any(len(slope) != 1 for slope in slopes):
    raise types.FawkesError(
      f"{model.name}: the numbers of convolutions, single slopes and colour "
      f"constants must be {expected}, got {counts}"
    )
  flat = {
    (*name, key): array
    for name, layer in zip(names, layers, strict=True)
    for key, array in layer.items()
  }
  flat |= {
    (*place, "slope"): slope[0]
    for place, slope in zip(places, slopes, strict=True)
  }
  flat["embedding", "kernel"] = flat["embedding", "kernel"][0, 0]
  flat["input_scale",], flat["input_shift",] = colours
  variables = {"params": flax.traverse_util.unflatten_dict(flat)}
  check(model.name, "se_mobilenet", variables)
  return variables
