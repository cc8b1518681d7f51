"""Reads networks from ONNX files, with the package onnx (the extra `onnx`).

Nothing of a file is ever executed.
"""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from fawkes_jax import types
from fawkes_jax.models import mobileface, mobilefacenet
from fawkes_jax.models.onnx import evaluation
from fawkes_jax.models.onnx import graph as graphs
from fawkes_jax.weights.variables import check

_FLOATS = (1, 10, 11, 16)
"""TensorProto's float32, float16, float64 and bfloat16."""

_TYPES = (*_FLOATS, 2, 3, 4, 5, 6, 7, 9, 12, 13)
"""And its integers and booleans."""

_TENSOR = 4
_ATTRIBUTES = (1, 2, 3, _TENSOR, 6, 7, 8)
"""AttributeProto's float, integer, string and tensor, and lists of the first
three."""

# What reading a damaged file may raise.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

_SMALL = 4
"""Up to how many floats an array is taken for a bound, not for a weight."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Model:
  """A network and its weights.

  Attributes:
    graph: the network.
    weights: float32 arrays by the names in `graph.weights`.
  """

  graph: graphs.Graph
  weights: dict[str, np.ndarray]

  @property
  def variables(self) -> dict[str, Any]:
    """The Flax variables of `models.onnx.module.GraphModule`."""
    return {"params": dict(self.weights)}


def _library() -> ModuleType:
  """The package onnx; FawkesError where it is not installed."""
  try:
    import onnx
  except ImportError as error:
    raise types.FawkesError(
      "ONNX files need a package that is not installed:"
      " pip install 'fawkes-jax[onnx]'"
    ) from error
  return onnx


def _parsed(data: bytes) -> Any:
  """The ModelProto; ValueError where it is none."""
  message = _library().ModelProto()
  from google.protobuf import message as protobuf

  try:
    message.ParseFromString(data)
  except protobuf.DecodeError as error:
    raise ValueError(str(error)) from error
  return message


def _tensor(message: Any) -> np.ndarray:
  """The array of a TensorProto; floats of any size become float32."""
  numpy_helper, proto = _library().numpy_helper, _library().TensorProto
  name, code = message.name, message.data_type
  if message.data_location == proto.EXTERNAL or message.external_data:
    raise ValueError(
      f"tensor {name} lies in another file; a model must be one file"
    )
  if code not in _TYPES:
    raise ValueError(f"tensor {name} has the unsupported type {code}")
  try:
    array = numpy_helper.to_array(message)
  except ValueError as error:
    raise ValueError(f"tensor {name} is damaged: {error}") from error
  return array.astype(np.float32, copy=False) if code in _FLOATS else array


def _attribute(message: Any) -> Any:
  """The value of an AttributeProto; a tensor is a numpy array."""
  helper = _library().helper
  if message.type not in _ATTRIBUTES:  # Of an operator with subgraphs.
    return ("unsupported attribute", message.type)
  value = helper.get_attribute_value(message)
  if message.type == _TENSOR:
    return _tensor(value)
  if isinstance(value, bytes):
    return str(value, "utf-8")
  if isinstance(value, int | float):
    return value
  return tuple(str(v, "utf-8") if isinstance(v, bytes) else v for v in value)


def _shape(message: Any) -> list[int | str]:
  """The shape of a ValueInfoProto; a name where a size is not fixed."""
  return [
    axis.dim_value if axis.HasField("dim_value") else axis.dim_param or "?"
    for axis in message.type.tensor_type.shape.dim
  ]


def _input_shape(
  sizes: Sequence[int | str], size: tuple[int, int] | None
) -> tuple[int, ...]:
  """The shape of one image; ValueError where it is not fixed, or no image."""
  text = ", ".join(map(str, sizes))
  if len(sizes) != 4 or 3 not in (sizes[1], sizes[3]):
    raise ValueError(
      f"the input must be images [n, 3, h, w] or [n, h, w, 3], got [{text}]"
    )
  rows = 2 if sizes[1] == 3 else 1
  shape = [1, *sizes[1:]]
  if size is not None:
    for axis, wanted in zip((rows, rows + 1), size, strict=True):
      if isinstance(shape[axis], int) and shape[axis] != wanted:
        raise ValueError(f"the input must have the size {size}, got [{text}]")
      shape[axis] = wanted
  fixed = tuple(n for n in shape if isinstance(n, int) and n > 0)
  if len(fixed) != 4:
    raise ValueError(
      "the input must have a fixed height and width (only the batch may be "
      f"dynamic), got [{text}]"
    )
  return fixed


def _unique_name(name: str, taken: set[str]) -> str:
  """A name that can be a key of nested parameters."""
  name = name.replace("/", ".").strip(".") or "weight"
  unique, count = name, 1
  while unique in taken:
    count += 1
    unique = f"{name}_{count}"
  return unique


def _parse(
  name: str, data: bytes, size: tuple[int, int] | None, output: str | None
) -> Model:
  """Parses a ModelProto; ValueError says what is wrong."""
  message = _parsed(data)
  if not message.HasField("graph"):
    raise ValueError("it holds no graph")
  opsets = {m.domain: m.version for m in message.opset_import}
  opset = opsets.get("", opsets.get("ai.onnx", 0))
  if opset < graphs.OLDEST_OPSET:
    raise ValueError(
      f"its operator set must be {graphs.OLDEST_OPSET} or newer, got {opset}"
    )
  body = message.graph
  if body.sparse_initializer:
    raise ValueError("it has sparse weights, which are not supported")
  tensors = {value.name: _tensor(value) for value in body.initializer}

  nodes = []
  for value in body.node:
    op = value.op_type
    if isinstance(op, bytes):  # What is no UTF-8.
      raise ValueError(f"an operator is called {op!r}")
    if value.domain not in ("", "ai.onnx"):
      op = f"{value.domain}.{op}"
    attributes = {m.name: _attribute(m) for m in value.attribute}
    outputs = tuple(value.output)
    if op == "Constant" and isinstance(attributes.get("value"), np.ndarray):
      tensors[outputs[0]] = attributes["value"]
      continue
    nodes.append(
      graphs.Node(
        op=op,
        name=value.name,
        inputs=tuple(value.input),
        outputs=outputs,
        attributes=tuple(
          (
            key,
            graphs.Constant.of(item) if isinstance(item, np.ndarray) else item,
          )
          for key, item in attributes.items()
        ),
      )
    )

  results = tuple(m.name for m in body.output)
  if output is not None:
    if output not in results:
      raise ValueError(
        f"the output must be one of {', '.join(results)}, got {output}"
      )
    results = (output,)
  used, alive = [], set(results)
  for node in reversed(nodes):
    if alive.intersection(node.outputs):
      used.append(node)
      alive.update(node.inputs)
  nodes = used[::-1]

  images = [m for m in body.input if m.name not in tensors]
  if len(images) != 1:
    names = ", ".join(m.name for m in images)
    raise ValueError(f"it must have one input, got {len(images)}: {names}")
  image = images[0].name
  known = {"", image, *tensors}
  for node in nodes:
    for key in node.inputs:
      if key not in known:
        raise ValueError(f"node {node.name} takes {key}, which nothing makes")
    known.update(node.outputs)
  if not results or not set(results) <= known - {""}:
    raise ValueError(f"its outputs must be made by nodes: {', '.join(results)}")

  large = {
    key: array
    for key, array in tensors.items()
    if key in alive and array.dtype == np.float32 and array.size > _SMALL
  }
  taken = known - large.keys()
  rename: dict[str, str] = {}
  for key in large:
    rename[key] = _unique_name(key, taken)
    taken.add(rename[key])
  weights = {rename[key]: array for key, array in large.items()}
  graph = graphs.Graph(
    name=name,
    opset=opset,
    input=image,
    input_shape=_input_shape(_shape(images[0]), size),
    outputs=results,
    nodes=tuple(
      dataclasses.replace(
        node, inputs=tuple(rename.get(key, key) for key in node.inputs)
      )
      for node in nodes
    ),
    constants=tuple(
      (key, graphs.Constant.of(array))
      for key, array in tensors.items()
      if key in alive and key not in large
    ),
    weights=tuple((key, array.shape) for key, array in weights.items()),
  )
  return Model(graph=graph, weights=weights)


def read(
  path: str | pathlib.Path,
  *,
  size: tuple[int, int] | None = None,
  output: str | None = None,
) -> Model:
  """Reads a network and checks that it can be evaluated.

  Args:
    path: an .onnx file, with its weights inside.
    size: height and width of the input, for a file that leaves them open.
    output: the name of the output that is wanted; all of them when None.

  Returns:
    The model. Weights are float32 whatever they are in the file.

  Raises:
    FawkesError: onnx is not installed; or the file is unreadable, damaged,
      keeps its weights in another file, has a dynamic size other than the
      batch, or uses an operator that is not supported. The message names the
      file and the rule.
  """
  try:
    data = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise types.FawkesError(
      f"{path}: must be a readable ONNX file, got: {error.strerror}"
    ) from error
  try:
    model = _parse(str(path), data, size, output)
  except _DAMAGE as error:
    raise types.FawkesError(
      f"{path}: must be a complete, self-contained ONNX model: {error}"
    ) from error
  unknown = evaluation.unsupported(model.graph)
  if unknown:
    raise types.FawkesError(
      f"{path}: must use supported operators only, got {', '.join(unknown)}"
    )
  image = jax.ShapeDtypeStruct((*model.graph.image_size, 3), jnp.float32)
  jax.eval_shape(
    lambda weights, image: evaluation.evaluate(model.graph, weights, image),
    model.weights,
    image,
  )
  return model


# What hands on a layer's result as it is, whatever its order of axes.
_PASSING = ("Transpose", "Identity", "Reshape", "Flatten", "Squeeze")


def _folded_layers(model: Model) -> list[dict[str, np.ndarray]]:
  """Each convolution and matrix product with the normalisation behind it.

  Returns:
    In the graph's order, kernel and bias as Flax has them: kernels are [rows,
    columns, in, out] or [in, out].
  """
  layers: dict[str, tuple[np.ndarray, np.ndarray]] = {}
  arrays = _arrays(model)
  for node in model.graph.nodes:
    if node.op in _PASSING and node.inputs[0] in layers:
      layers[node.outputs[0]] = layers.pop(node.inputs[0])
      continue
    tensors = [
      arrays[key].astype(np.float64) for key in node.inputs[1:] if key in arrays
    ]
    if node.op in ("Conv", "Gemm") and tensors:
      kernel = tensors[0]  # [out, in, ...] of both kinds.
      if node.op == "Gemm" and ("transB", 1) not in node.attributes:
        kernel = kernel.T
      bias = tensors[1] if len(tensors) > 1 else np.zeros(len(kernel))
      layers[node.outputs[0]] = kernel, bias
    elif node.op == "BatchNormalization" and node.inputs[0] in layers:
      kernel, bias = layers.pop(node.inputs[0])
      gamma, beta, mean, variance = tensors
      epsilon = dict(node.attributes).get("epsilon", 1e-5)
      scale = gamma / np.sqrt(variance + epsilon)
      kernel = kernel * scale.reshape(-1, *[1] * (kernel.ndim - 1))
      layers[node.outputs[0]] = kernel, (bias - mean) * scale + beta
    elif node.op in ("Add", "Mul") and len(tensors) == 1:
      if node.inputs[0] not in layers:
        continue
      kernel, bias = layers.pop(node.inputs[0])
      number = tensors[0].reshape(-1)
      if node.op == "Add":
        layers[node.outputs[0]] = kernel, bias + number
      else:
        scale = number.reshape(-1, *[1] * (kernel.ndim - 1))
        layers[node.outputs[0]] = kernel * scale, bias * number
  return [
    {
      "kernel": np.ascontiguousarray(
        kernel.transpose(*range(2, kernel.ndim), 1, 0), np.float32
      ),
      "bias": np.asarray(bias, np.float32),
    }
    for kernel, bias in layers.values()
  ]


def _arrays(model: Model) -> dict[str, np.ndarray]:
  """Weights, and what is small enough to be part of the graph."""
  return {k: v.array() for k, v in model.graph.constants} | dict(model.weights)


def _named(
  model: Model, names: Sequence[tuple[str, ...]]
) -> tuple[dict[str, Any], list[dict[str, np.ndarray]]]:
  """Gives a model's layers names of nested parameters."""
  layers = _folded_layers(model)
  if len(layers) != len(names):
    raise types.FawkesError(
      f"{model.graph.name}: the network must have {len(names)} convolutions "
      f"and matrices, got {len(layers)}"
    )
  nested = dict(zip(names, layers, strict=True))
  return flax.traverse_util.unflatten_dict(nested), layers


_BLOCK_LAYERS = ("expand", "depthwise", "project")


def convert_mobilefacenet(model: Model) -> dict[str, Any]:
  """Turns foamliu's MobileFaceNet into `models.mobilefacenet.MobileFaceNet`.

  Args:
    model: `weights/MobileFaceNet.onnx` of github.com/foamliu/MobileFaceNet.

  Returns:
    The Flax variables, float32.

  Raises:
    FawkesError: it is another network.
  """
  names: list[tuple[str, ...]] = [("stem",), ("depthwise",), ("pointwise",)]
  for i in range(len(mobilefacenet.BLOCKS)):
    names += [(f"block_{i}", layer) for layer in _BLOCK_LAYERS]
  names += [("head",), ("pool",), ("embedding",)]
  params, _ = _named(model, names)
  variables = {"params": params}
  check(model.graph.name, "mobilefacenet", variables)
  return variables


def convert_mobilefacenet_prelu(model: Model) -> dict[str, Any]:
  """Turns a recogniser into `models.mobilefacenet_prelu.MobileFaceNetPRelu`.

  Args:
    model: human_face_feat_mfn of github.com/espressif/esp-dl, or
      se_mobilefacenet of github.com/leondgarse/Keras_insightface, as ONNX.

  Returns:
    The Flax variables, float32.

  Raises:
    FawkesError: it is another network.
  """
  layers, arrays = _folded_layers(model), _arrays(model)
  slopes = [
    {"slope": arrays[node.inputs[1]].reshape(-1).astype(np.float32)}
    for node in model.graph.nodes
    if node.op == "PRelu"
  ]
  blocks = len(mobilefacenet.BLOCKS)
  squeezed = len(layers) > 5 * blocks
  stem = ("stem", "depthwise", "pointwise") if squeezed else _STEM
  in_block = (
    (*_BLOCK_LAYERS, "squeeze", "excite") if squeezed else _BLOCK_LAYERS
  )
  prelus = ("prelu_0", "prelu_1", "prelu_2")[: 3 if squeezed else 2]
  names: list[tuple[str, ...]] = [(name,) for name in stem]
  names += [(f"block_{i}", name) for i in range(blocks) for name in in_block]
  names += [("head",), ("pool",), ("embedding",)]
  places: list[tuple[str, ...]] = [("prelu_0",), ("prelu_1",)]
  places += [(f"block_{i}", name) for i in range(blocks) for name in prelus]
  places += [("prelu_2",)]
  if not squeezed:  # It computes some layers in two halves, side by side.
    layers = _joined(layers, _halved(names))
    slopes = _joined(slopes, _halved(places))
  if (len(layers), len(slopes)) != (len(names), len(places)):
    raise types.FawkesError(
      f"{model.graph.name}: the network must have {len(names)} convolutions and"
      f" {len(places)} PReLUs, got {len(layers)} and {len(slopes)}"
    )
  nested = dict(zip([*names, *places], [*layers, *slopes], strict=True))
  kernel = nested["embedding",]["kernel"]
  nested["embedding",]["kernel"] = kernel.reshape(-1, kernel.shape[-1])
  variables = {"params": flax.traverse_util.unflatten_dict(nested)}
  port = "se_mobilefacenet" if squeezed else "esp_mobilefacenet"
  check(model.graph.name, port, variables)
  return variables


_STEM = ("stem", "depthwise")

_HALVED = {
  ("block_12", "expand"),
  ("block_12", "project"),
  ("block_12", "prelu_0"),
  ("head",),
  ("prelu_2",),
}
"""Layers that esp-dl's network has as two, each with half of the channels."""


def _halved(names: Sequence[tuple[str, ...]]) -> list[int]:
  """Of how many parts each layer is made."""
  return [2 if name in _HALVED else 1 for name in names]


def _joined(
  parts: Sequence[dict[str, np.ndarray]], counts: Sequence[int]
) -> list[dict[str, np.ndarray]]:
  """Layers made of several that lie one after the other, by channels."""
  rest = list(parts)
  joined: list[dict[str, np.ndarray]] = []
  for count in counts:
    taken, rest = rest[:count], rest[count:]
    if not taken:
      return joined
    joined.append(
      {k: np.concatenate([part[k] for part in taken], -1) for k in taken[0]}
    )
  return [*joined, *rest]


def channels_last(kernel: np.ndarray, channels: int) -> np.ndarray:
  """Puts the rows of a matrix into the order of the module's image.

  Args:
    kernel: its rows are those of a square image [channels, h, w].
    channels: of the image.

  Returns:
    The matrix for an image [h, w, channels]; as it is where the number of
    rows is another.
  """
  side = math.isqrt(len(kernel) // channels)
  if channels * side * side != len(kernel):
    return kernel
  image = kernel.reshape(channels, side, side, -1).transpose(1, 2, 0, 3)
  return image.reshape(len(kernel), -1)


def convert_mobileface(model: Model) -> dict[str, Any]:
  """Turns MobileFace Identification V2 into `models.mobileface.MobileFace`.

  Args:
    model: MobileFace_Identification_V2 of github.com/becauseofAI/MobileFace,
      as ONNX.

  Returns:
    The Flax variables, float32.

  Raises:
    FawkesError: it is another network.
  """
  names: list[tuple[str, ...]] = [("stem",)]
  for i in range(len(mobileface.BLOCKS)):
    names += [(f"block_{i}", layer) for layer in _BLOCK_LAYERS]
  params, layers = _named(model, [*names, ("embedding",)])
  params["embedding"]["kernel"] = channels_last(
    layers[-1]["kernel"], mobileface.BLOCKS[-1][1]
  )
  variables = {"params": params}
  check(model.graph.name, "mobileface_v2", variables)
  return variables
