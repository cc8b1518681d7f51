import re
import struct

import numpy as np
import pytest

from fawkes_jax import types
from fawkes_jax.weights.formats import onnx

NAMES = (
  "esp_mfn.onnx",
  "foamliu_mobilefacenet.onnx",
  "ghost05.onnx",
  "mobileface_v2.onnx",
  "mobileface_v3.onnx",
  "yunet_n_dynamic.onnx",
)


def varint(value):
  value &= (1 << 64) - 1
  data = b""
  while value > 0x7F:
    data += bytes([value & 0x7F | 0x80])
    value >>= 7
  return data + bytes([value])


def field(number, value):
  """One field of a Protocol Buffers message."""
  if isinstance(value, int):
    return varint(number << 3) + varint(value)
  if isinstance(value, float):
    return varint(number << 3 | 5) + struct.pack("<f", value)
  data = value.encode() if isinstance(value, str) else value
  return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name, code, shape, *fields):
  sizes = b"".join(field(1, size) for size in shape)
  return sizes + field(2, code) + field(8, name) + b"".join(fields)


def floats(name, *values):
  raw = np.array(values, "<f4").tobytes()
  return tensor(name, 1, (len(values),), field(9, raw))


def value(name, *sizes):
  axes = b"".join(
    field(1, field(1 if isinstance(size, int) else 2, size)) for size in sizes
  )
  return field(1, name) + field(2, field(1, field(1, 1) + field(2, axes)))


def node(op, inputs, outputs, *attributes, domain=""):
  return (
    b"".join(field(1, name) for name in inputs)
    + b"".join(field(2, name) for name in outputs)
    + field(3, f"the {op}")
    + field(4, op)
    + b"".join(field(5, attribute) for attribute in attributes)
    + field(7, domain)
  )


ADD = node("Add", ["image", "bias"], ["sum"])
BIAS = tensor(
  "bias", 1, (1, 3, 4, 2), field(9, np.arange(24, dtype="<f4").tobytes())
)


def model(nodes=(ADD,), tensors=(BIAS,), inputs=None, opset=17, outputs=None):
  inputs = [value("image", "n", 3, 4, 2)] if inputs is None else inputs
  outputs = ["sum"] if outputs is None else outputs
  graph = b"".join(
    [field(1, n) for n in nodes]
    + [field(5, t) for t in tensors]
    + [field(11, i) for i in inputs]
    + [field(12, value(name, 1)) for name in outputs]
  )
  return field(1, 8) + field(7, graph) + field(8, field(2, opset))


def read(data, folder, **options):
  path = folder / "some.onnx"
  path.write_bytes(data)
  return onnx.read(path, **options)


def assert_refused(data, folder, rule, **options):
  with pytest.raises(types.FawkesError, match=rule) as caught:
    read(data, folder, **options)
  assert str(folder / "some.onnx") in str(caught.value)


def test_small_model_is_read(tmp_path):
  got = read(model(), tmp_path)
  assert got.graph.input == "image"
  assert got.graph.input_shape == (1, 3, 4, 2)
  assert got.graph.image_size == (4, 2)
  assert not got.graph.channels_last
  assert got.graph.opset == 17
  assert [n.op for n in got.graph.nodes] == ["Add"]
  ((key, array),) = got.weights.items()
  assert got.graph.weights == ((key, (1, 3, 4, 2)),)
  np.testing.assert_array_equal(array.reshape(-1), np.arange(24))
  assert got.variables == {"params": got.weights}
  assert hash(got.graph) == hash(read(model(), tmp_path).graph)
  assert got.graph == read(model(), tmp_path).graph


@pytest.mark.parametrize("size", [0, 1, 10, 60, 100, 150, 180])
def test_truncated_file_is_refused(size, tmp_path):
  data = model()
  assert size < len(data)
  assert_refused(data[:size], tmp_path, "must be a complete, self-contained")


def test_every_prefix_is_refused(tmp_path):
  """But the one that lacks only the version, which is refused as too old."""
  data = model()
  for size in range(len(data)):
    assert_refused(data[:size], tmp_path, "complete|7 or newer")


def test_other_file_is_refused(tmp_path):
  assert_refused(b"<html>not a model</html>", tmp_path, "must be a complete")
  assert_refused(b"\xff" * 40, tmp_path, "must be a complete")


def test_missing_file_is_refused(tmp_path):
  path = tmp_path / "missing.onnx"
  with pytest.raises(
    types.FawkesError, match=f"{re.escape(str(path))}.*No such file"
  ):
    onnx.read(path)


def test_external_data_is_refused(tmp_path):
  location = field(13, field(1, "location") + field(2, "weights.bin"))
  data = model(tensors=[tensor("bias", 1, (30,), location, field(14, 1))])
  assert_refused(data, tmp_path, "tensor bias lies in another file")


@pytest.mark.parametrize(
  ("sizes", "rule"),
  [
    (("n", 3, "height", "width"), r"fixed height and width.*n, 3, height"),
    (("n", 3, 4, "width"), r"fixed height and width .*width\]"),
    (("n", 3, 0, 2), "fixed height and width"),
    (("n", 4, 4, 2), "must be images"),
    (("n", 512), r"must be images .* got \[n, 512\]"),
  ],
)
def test_other_shapes_are_refused(sizes, rule, tmp_path):
  assert_refused(model(inputs=[value("image", *sizes)]), tmp_path, rule)


def test_size_fixes_a_dynamic_shape(tmp_path):
  data = model(inputs=[value("image", "n", 3, "height", "width")])
  assert read(data, tmp_path, size=(4, 2)).graph.image_size == (4, 2)
  assert_refused(model(), tmp_path, r"the size \(5, 2\)", size=(5, 2))


def test_channels_may_be_last(tmp_path):
  data = model(
    nodes=[node("Relu", ["image"], ["sum"])],
    inputs=[value("image", 1, 5, 7, 3)],
  )
  got = read(data, tmp_path).graph
  assert got.channels_last
  assert got.image_size == (5, 7)


def test_unknown_operators_are_named(tmp_path):
  nodes = [
    node("Loop", ["image"], ["x"]),
    node("FusedConv", ["x"], ["sum"], domain="com.microsoft"),
  ]
  assert_refused(
    model(nodes=nodes), tmp_path, r"got Loop, com\.microsoft\.FusedConv"
  )


def test_unsupported_use_names_operator_and_node(tmp_path):
  pads = field(1, "mode") + field(4, "strange") + field(20, 3)
  amounts = field(1, "pads") + field(8, varint(0) * 8) + field(20, 7)
  nodes = [node("Pad", ["image"], ["sum"], pads, amounts)]
  assert_refused(
    model(nodes=nodes, opset=10),
    tmp_path,
    r"operator Pad \(node the Pad\) must be constant, .* got strange",
  )


def test_shape_mismatch_names_operator(tmp_path):
  bias = tensor("bias", 1, (7,), field(9, bytes(28)))
  assert_refused(
    model(tensors=[bias]), tmp_path, r"operator Add \(node the Add\) cannot be"
  )


def test_old_operator_set_is_refused(tmp_path):
  assert_refused(model(opset=6), tmp_path, "must be 7 or newer, got 6")


def test_number_of_inputs(tmp_path):
  two = [value("image", 1, 3, 4, 2), value("other", 1, 3, 4, 2)]
  assert_refused(model(inputs=two), tmp_path, "one input, got 2: image, other")
  # Initialisers may be listed as inputs too.
  listed = [value("image", 1, 3, 4, 2), value("bias", 1, 3, 4, 2)]
  assert read(model(inputs=listed), tmp_path).graph.input == "image"


def test_input_from_nowhere_is_refused(tmp_path):
  assert_refused(model(tensors=[]), tmp_path, "takes bias, which nothing")


def test_output_from_nowhere_is_refused(tmp_path):
  data = model(outputs=["sum", "other"])
  assert_refused(data, tmp_path, "outputs must be made by nodes: sum, other")
  assert_refused(model(outputs=[]), tmp_path, "outputs must be made by nodes")


def test_flipped_bytes_never_escape(tmp_path):
  """A damaged file is read or refused; nothing else is raised."""
  rng = np.random.default_rng(0)
  data = np.frombuffer(model(), np.uint8)
  refused = 0
  for _ in range(300):
    changed = data.copy()
    changed[rng.integers(len(data))] ^= rng.integers(1, 256)
    try:
      read(changed.tobytes(), tmp_path)
    except types.FawkesError as error:
      assert "some.onnx" in str(error)
      refused += 1
  assert 100 < refused < 300


def test_output_is_chosen_and_the_rest_dropped(tmp_path):
  nodes = [ADD, node("Unheard", ["image"], ["norm"])]
  data = model(nodes=nodes, outputs=["norm", "sum"])
  assert_refused(data, tmp_path, "got Unheard")
  got = read(data, tmp_path, output="sum").graph
  assert got.outputs == ("sum",)
  assert [n.op for n in got.nodes] == ["Add"]
  assert_refused(data, tmp_path, "one of norm, sum, got x", output="x")


NUMBERS = (1.0, -2.5, 0.25, 3.0, 0.0, 7.0)
BRAINS = (np.array(NUMBERS, "<f4").view("<u4") >> 16).astype("<u2")  # bfloat16


@pytest.mark.parametrize(
  ("code", "stored"),
  [
    (1, field(9, np.array(NUMBERS, "<f4").tobytes())),
    (1, field(4, np.array(NUMBERS, "<f4").tobytes())),
    (1, b"".join(field(4, number) for number in NUMBERS)),
    (10, field(9, np.array(NUMBERS, "<f2").tobytes())),
    (
      10,
      b"".join(
        field(5, int(bits)) for bits in np.array(NUMBERS, "<f2").view("<u2")
      ),
    ),
    (11, field(9, np.array(NUMBERS, "<f8").tobytes())),
    (11, field(10, np.array(NUMBERS, "<f8").tobytes())),
    (16, field(9, BRAINS.tobytes())),
    (16, field(5, b"".join(varint(int(bits)) for bits in BRAINS))),
  ],
)
def test_every_way_to_store_floats(code, stored, tmp_path):
  bias = tensor("bias", code, (3, 1, 2), stored)
  (array,) = read(model(tensors=[bias]), tmp_path).weights.values()
  assert array.dtype == np.float32
  np.testing.assert_array_equal(array.reshape(-1), NUMBERS)


@pytest.mark.parametrize(
  ("code", "stored"),
  [
    (7, field(9, np.array([1, -1], "<i8").tobytes())),
    (7, field(7, varint(1) + varint(-1))),
    (7, field(7, 1) + field(7, -1)),
    (6, field(9, np.array([1, -1], "<i4").tobytes())),
    (6, field(5, varint(1) + varint(-1))),
  ],
)
def test_every_way_to_store_integers(code, stored, tmp_path):
  shape = tensor("bias", code, (2,), stored)
  data = model(
    nodes=[node("Reshape", ["image", "bias"], ["sum"])], tensors=[shape]
  )
  got = read(data, tmp_path)
  assert not got.weights
  ((_, constant),) = got.graph.constants
  np.testing.assert_array_equal(constant.array(), [1, -1])


def test_wrong_number_of_values_is_refused(tmp_path):
  data = model(tensors=[tensor("bias", 1, (3, 1, 2), field(9, bytes(20)))])
  assert_refused(data, tmp_path, "tensor bias is damaged: .* size 5 into shape")


def test_unknown_type_is_refused(tmp_path):
  data = model(tensors=[tensor("bias", 8, (1,), field(6, "text"))])
  assert_refused(data, tmp_path, "tensor bias has the unsupported type 8")


def test_constant_nodes_become_tensors(tmp_path):
  attribute = field(1, "value") + field(5, BIAS) + field(20, 4)
  nodes = [node("Constant", [], ["bias"], attribute), ADD]
  got = read(model(nodes=nodes, tensors=[]), tmp_path)
  assert [n.op for n in got.graph.nodes] == ["Add"]
  assert len(got.weights) == 1


def test_names_become_parameter_names(tmp_path):
  bias = BIAS.replace(b"bias", b"/a/b")
  data = model(nodes=[node("Add", ["image", "/a/b"], ["sum"])], tensors=[bias])
  assert list(read(data, tmp_path).weights) == ["a.b"]


@pytest.mark.data
@pytest.mark.parametrize("name", NAMES)
def test_tensors_are_those_of_the_onnx_package(name, data_dir):
  reference = pytest.importorskip("onnx")
  path = data_dir / "weights" / name
  expected = [
    reference.numpy_helper.to_array(initializer)
    for initializer in reference.load(path).graph.initializer
  ]
  size = (64, 96) if name.startswith("yunet") else None
  got = onnx.read(path, size=size)
  large = [array for array in expected if array.dtype == np.float32]
  large = [array for array in large if array.size > 4]
  assert len(large) == len(got.weights) > 30
  for actual, wanted in zip(got.weights.values(), large, strict=True):
    np.testing.assert_array_equal(actual, wanted)


@pytest.mark.data
def test_other_network_is_refused(data_dir):
  path = data_dir / "weights" / "mobileface_v2.onnx"
  got = onnx.read(path)
  with pytest.raises(types.FawkesError, match=r"must have 51 .* got 38"):
    onnx.convert(got, "mobilefacenet")


@pytest.mark.data
def test_another_network_is_no_ghostfacenet(data_dir):
  got = onnx.read(data_dir / "weights" / "esp_mfn.onnx")
  with pytest.raises(
    types.FawkesError, match=r"esp_mfn\.onnx: .* must have 96 conv.* and 41"
  ):
    onnx.convert(got, "ghostfacenet")


@pytest.mark.data
def test_other_width_is_refused(data_dir):
  path = data_dir / "weights" / "mobileface_v2.onnx"
  got = onnx.read(path)
  key = "fc5_weight"
  weights = {k: v[:, :1920] if k == key else v for k, v in got.weights.items()}
  narrow = onnx.Model(graph=got.graph, weights=weights)
  assert weights[key].shape == (256, 1920)
  with pytest.raises(
    types.FawkesError,
    match=r"v2\.onnx: .* params/embedding/kernel must be \[2048, 256\]",
  ):
    onnx.convert(narrow, "mobileface_v2")
