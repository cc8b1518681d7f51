"""Reads networks from ONNX files, with the package onnx (the extra `onnx`).

Nothing of a file is ever executed.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fawkes_jax import types
from fawkes_jax.models import architectures
from fawkes_jax.models.onnx import evaluation, folding
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

  @property
  def layers(self) -> folding.Layers:
    """What a port of the network is made of."""
    return folding.fold(self.graph, self.weights)


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


def convert(model: Model, architecture: str) -> dict[str, Any]:
  """Turns a network into the variables of the package's port of it.

  Args:
    model: the network.
    architecture: a key of `architectures.ARCHITECTURES` that has `convert`.

  Returns:
    The Flax variables, float32.

  Raises:
    FawkesError: it is another network.
  """
  about = architectures.ARCHITECTURES[architecture]
  assert about.convert is not None
  variables = about.convert(model.layers)
  check(model.graph.name, architecture, variables)
  return variables
