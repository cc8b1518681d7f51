import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fawkes_jax import types
from fawkes_jax.models.onnx import evaluation
from fawkes_jax.models.onnx import graph as graphs
from fawkes_jax.models.onnx import module as module_lib
from fawkes_jax.weights.formats import onnx as reader

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
helper = onnx.helper

OPSET = 20


def build(nodes, tensors, folder, *, size=(8, 6), opset=OPSET, batch="n"):
  """Writes a graph from "image" to "result" and reads it back."""
  image = helper.make_tensor_value_info("image", 1, [batch, 3, *size])
  result = helper.make_empty_tensor_value_info("result")
  result.type.tensor_type.elem_type = 1
  proto = helper.make_graph(
    nodes,
    "test",
    [image],
    [result],
    [onnx.numpy_helper.from_array(a, key) for key, a in tensors.items()],
  )
  model = helper.make_model(
    proto, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
  )
  path = folder / "test.onnx"
  onnx.save(model, path)
  return path


def evaluated(model, image):
  return evaluation.evaluate(model.graph, model.weights, image)


evaluate = jax.jit(evaluation.evaluate, static_argnums=0)


def assert_parity(path, *, size=None, low=-1, high=1, tolerance=1e-5, seed=0):
  """Compares all outputs for one random image with onnxruntime's."""
  model = reader.read(path, size=size)
  height, width = model.graph.image_size
  rng = np.random.default_rng(seed)
  image = rng.uniform(low, high, (height, width, 3)).astype(np.float32)
  session = runtime.InferenceSession(path)
  expected = session.run(
    None, {model.graph.input: image.transpose(2, 0, 1)[None]}
  )
  actual = evaluate(model.graph, model.weights, image)
  assert len(actual) == len(expected)
  for got, wanted in zip(actual, expected, strict=True):
    assert got.shape == wanted.shape
    assert np.linalg.norm(got - wanted) <= tolerance * np.linalg.norm(wanted)
    assert np.linalg.norm(wanted) > 0


def normal(*shape, seed=0):
  values = np.random.default_rng(seed).normal(size=shape)
  return values.astype(np.float32)


def ints(*values):
  return np.array(values, np.int64)


def scalar(value):
  return np.array(value, np.float32)


# name: (operator, tensors after the image, attributes)
CASES = {
  "Abs": ("Abs", [], {}),
  "Add": ("Add", [normal(3, 1, 6)], {}),
  "AddRank3": ("Add", [normal(8, 6)], {}),
  "AveragePool": (
    "AveragePool",
    [],
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
  ),
  "AveragePoolCeil": (
    "AveragePool",
    [],
    {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1},
  ),
  "AveragePoolPadded": (
    "AveragePool",
    [],
    {
      "kernel_shape": [3, 3],
      "strides": [2, 2],
      "pads": [1, 0, 0, 1],
      "count_include_pad": 1,
    },
  ),
  "BatchNormalization": (
    "BatchNormalization",
    [normal(3), normal(3, seed=1), normal(3, seed=2), normal(3, seed=3) ** 2],
    {"epsilon": 0.01},
  ),
  "Clip": ("Clip", [scalar(-0.5), scalar(0.25)], {}),
  "ClipBelow": ("Clip", [scalar(-0.5)], {}),
  "ClipAbove": ("Clip", [None, scalar(0.5)], {}),
  "Concat": ("Concat", [normal(1, 5, 8, 6)], {"axis": 1}),
  "ConcatWidth": ("Concat", [normal(1, 3, 8, 2)], {"axis": -1}),
  "Conv": (
    "Conv",
    [normal(4, 3, 3, 3), normal(4)],
    {"pads": [1, 0, 2, 1], "strides": [2, 1]},
  ),
  "ConvDilated": ("Conv", [normal(4, 3, 3, 2)], {"dilations": [2, 3]}),
  "ConvSameUpper": (
    "Conv",
    [normal(4, 3, 3, 2)],
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
  ),
  "ConvSameLower": (
    "Conv",
    [normal(4, 3, 4, 4)],
    {"auto_pad": "SAME_LOWER", "strides": [1, 3]},
  ),
  "ConvDepthwise": (
    "Conv",
    [normal(3, 1, 3, 3), normal(3)],
    {"group": 3, "pads": [1, 1, 1, 1], "strides": [2, 2]},
  ),
  "ConvMultiplier": ("Conv", [normal(6, 1, 3, 3)], {"group": 3}),
  "ConvGlobal": ("Conv", [normal(3, 1, 8, 6)], {"group": 3}),
  "Div": ("Div", [np.abs(normal(3, 1, 1)) + 1], {}),
  "Dropout": ("Dropout", [], {}),
  "Elu": ("Elu", [], {"alpha": 0.5}),
  "Erf": ("Erf", [], {}),
  "Exp": ("Exp", [], {}),
  "Expand": ("Expand", [ints(2, 1, 8, 1)], {}),
  "Flatten": ("Flatten", [], {}),
  "FlattenAxis": ("Flatten", [], {"axis": -1}),
  "Gather": ("Gather", [ints(1, -1)], {"axis": 3}),
  "GatherScalar": ("Gather", [np.array(2)], {"axis": 1}),
  "Gelu": ("Gelu", [], {}),
  "GeluTanh": ("Gelu", [], {"approximate": "tanh"}),
  "GlobalAveragePool": ("GlobalAveragePool", [], {}),
  "GlobalMaxPool": ("GlobalMaxPool", [], {}),
  "HardSigmoid": ("HardSigmoid", [], {"alpha": 0.7, "beta": 0.4}),
  "HardSwish": ("HardSwish", [], {}),
  "Identity": ("Identity", [], {}),
  "LayerNormalization": (
    "LayerNormalization",
    [normal(6), normal(6, seed=1)],
    {"epsilon": 0.01},
  ),
  "LayerNormalizationAxis": (
    "LayerNormalization",
    [normal(8, 6)],
    {"axis": 2},
  ),
  "LeakyRelu": ("LeakyRelu", [], {"alpha": 0.2}),
  "LogSoftmax": ("LogSoftmax", [], {"axis": 2}),
  "LpNormalization": ("LpNormalization", [], {"axis": 1}),
  "LpNormalization1": ("LpNormalization", [], {"axis": -1, "p": 1}),
  "MatMul": ("MatMul", [normal(6, 5)], {}),
  "Max": ("Max", [normal(3, 8, 6), scalar(0.1)], {}),
  "MaxPool": (
    "MaxPool",
    [],
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
  ),
  "MaxPoolCeil": (
    "MaxPool",
    [],
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
  ),
  "MaxPoolDilated": (
    "MaxPool",
    [],
    {"kernel_shape": [2, 3], "dilations": [3, 2]},
  ),
  "Min": ("Min", [normal(3, 8, 6)], {}),
  "Mish": ("Mish", [], {}),
  "Mul": ("Mul", [normal(1, 3, 1, 1)], {}),
  "Neg": ("Neg", [], {}),
  "PRelu": ("PRelu", [normal(3, 1, 1)], {}),
  "PRelu1": ("PRelu", [normal(1)], {}),
  "Pad": ("Pad", [ints(0, 0, 1, 2, 0, 1, 3, 0), scalar(0.5)], {}),
  "PadAxes": (
    "Pad",
    [ints(2, 1), None, ints(3)],
    {"mode": "edge"},
  ),
  "PadReflect": (
    "Pad",
    [ints(0, 0, 1, 2, 0, 0, 3, 0)],
    {"mode": "reflect"},
  ),
  "Pow": ("Pow", [scalar(3)], {}),
  "Reciprocal": ("Reciprocal", [], {}),
  "ReduceL1": ("ReduceL1", [ints(1)], {}),
  "ReduceL2": ("ReduceL2", [ints(-1)], {"keepdims": 0}),
  "ReduceMax": ("ReduceMax", [ints(2, 3)], {}),
  "ReduceMean": ("ReduceMean", [ints(2, 3)], {}),
  "ReduceMeanAll": ("ReduceMean", [], {}),
  "ReduceMin": ("ReduceMin", [ints(1)], {"keepdims": 0}),
  "ReduceProd": ("ReduceProd", [ints(1)], {}),
  "ReduceSum": ("ReduceSum", [ints(1, 2)], {"keepdims": 0}),
  "ReduceSumNone": ("ReduceSum", [], {"noop_with_empty_axes": 1}),
  "ReduceSumSquare": ("ReduceSumSquare", [ints(2)], {}),
  "Relu": ("Relu", [], {}),
  "Reshape": ("Reshape", [ints(0, -1, 4)], {}),
  "ResizeNearest": ("Resize", [None, None, ints(1, 3, 12, 9)], {}),
  "ResizeAsymmetric": (
    "Resize",
    [None, scalar((1, 1, 2, 2))],
    {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
  ),
  "ResizeLinear": (
    "Resize",
    [None, scalar((1, 1, 1.5, 2.5))],
    {"mode": "linear"},
  ),
  "ResizeCorners": (
    "Resize",
    [None, None, ints(1, 3, 5, 9)],
    {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
  ),
  "Sigmoid": ("Sigmoid", [], {}),
  "Slice": ("Slice", [ints(1, -5), ints(9, -1), ints(1, 3), ints(1, 2)], {}),
  "SliceReversed": (
    "Slice",
    [ints(-1), ints(np.iinfo(np.int64).min), ints(2), ints(-3)],
    {},
  ),
  "Softmax": ("Softmax", [], {}),
  "SoftmaxAxis": ("Softmax", [], {"axis": 1}),
  "Softplus": ("Softplus", [], {}),
  "Split": ("Split", [ints(1, 2)], {"axis": 1}),
  "SplitEven": ("Split", [], {"axis": 3, "num_outputs": 2}),
  "Squeeze": ("Squeeze", [ints(0)], {}),
  "Sub": ("Sub", [normal(1)], {}),
  "Sum": ("Sum", [normal(6), normal(8, 1)], {}),
  "Tanh": ("Tanh", [], {}),
  "Tile": ("Tile", [ints(1, 2, 1, 3)], {}),
  "Transpose": ("Transpose", [], {"perm": [0, 2, 3, 1]}),
  "TransposeBatch": ("Transpose", [], {}),
  "Unsqueeze": ("Unsqueeze", [ints(0, -1)], {}),
}


@pytest.mark.parametrize("case", CASES)
def test_operator(case, tmp_path):
  op, arrays, attributes = CASES[case]
  tensors = {f"t{i}": a for i, a in enumerate(arrays) if a is not None}
  inputs = ["" if a is None else f"t{i}" for i, a in enumerate(arrays)]
  outputs = ["other", "result"] if op == "Split" else ["result"]
  nodes = [helper.make_node(op, ["image", *inputs], outputs, **attributes)]
  assert_parity(build(nodes, tensors, tmp_path, batch=1))


@pytest.mark.parametrize("code", [6, 7, 9, 10, 16])
def test_cast_there_and_back(code, tmp_path):
  """Floats stay as they are: small types are for storing weights."""
  there = helper.make_node("Cast", ["image"], ["x"], to=code)
  back = helper.make_node("Cast", ["x"], ["result"], to=1)
  path = build([there, back], {}, tmp_path)
  assert_parity(path, low=-9, high=9, tolerance=0.01)


# As above, in older operator sets.
OLD_CASES = {
  "Clip": (7, "Clip", [], {"min": -0.5, "max": 0.25}),
  "Pad": (7, "Pad", [], {"pads": [0, 0, 1, 2, 0, 1, 3, 0], "value": 0.5}),
  "ReduceMean": (11, "ReduceMean", [], {"axes": [2, 3], "keepdims": 0}),
  "Resize": (10, "Resize", [scalar((1, 1, 2, 3))], {}),
  "Slice": (9, "Slice", [], {"starts": [1], "ends": [-1], "axes": [2]}),
  "Softmax": (11, "Softmax", [], {}),
  "SoftmaxAxis": (11, "Softmax", [], {"axis": 3}),
  "Split": (11, "Split", [], {"axis": 1, "split": [1, 2]}),
  "Squeeze": (11, "Squeeze", [], {"axes": [0]}),
  "Unsqueeze": (11, "Unsqueeze", [], {"axes": [1]}),
  "Upsample": (9, "Upsample", [scalar((1, 1, 2, 3))], {}),
}


@pytest.mark.parametrize("case", OLD_CASES)
def test_operator_of_an_older_set(case, tmp_path):
  opset, op, arrays, attributes = OLD_CASES[case]
  tensors = {f"t{i}": a for i, a in enumerate(arrays)}
  outputs = ["other", "result"] if op == "Split" else ["result"]
  nodes = [helper.make_node(op, ["image", *tensors], outputs, **attributes)]
  assert_parity(build(nodes, tensors, tmp_path, opset=opset, batch=1))


def test_shapes_are_folded(tmp_path):
  """What exporters compute from shapes never reaches the device."""
  make = helper.make_node
  nodes = [
    make("Shape", ["image"], ["shape"]),
    make("Gather", ["shape", "two"], ["height"]),
    make("Slice", ["shape", "one", "two_"], ["channels"]),
    make("Unsqueeze", ["height", "zero"], ["height_"]),
    make("Cast", ["channels"], ["float"], to=1),
    make("Sqrt", ["float"], ["root"]),
    make("Mul", ["height_", "two_"], ["twice"]),
    make("Div", ["twice", "two_"], ["again"]),
    make("Concat", ["one", "channels", "again", "minus"], ["target"], axis=0),
    make(
      "ConstantOfShape",
      ["one"],
      ["fill"],
      value=helper.make_tensor("v", 7, [1], [1]),
    ),
    make("Equal", ["target", "fill"], ["equal"]),
    make("Where", ["equal", "one", "target"], ["chosen"]),
    make("Range", ["start", "stop", "step"], ["range"]),
    make("Cast", ["range"], ["column"], to=1),
    make("Reshape", ["image", "chosen"], ["y"]),
    make("Div", ["y", "root"], ["z"]),
    make("Add", ["z", "column"], ["result"]),
  ]
  tensors = {
    "two": np.array(2),
    "one": ints(1),
    "two_": ints(2),
    "zero": ints(0),
    "minus": ints(-1),
    "start": np.array(0),
    "stop": np.array(6),
    "step": np.array(1),
  }
  path = build(nodes, tensors, tmp_path)
  assert_parity(path)
  model = reader.read(path)
  assert not model.weights
  jaxpr = jax.make_jaxpr(lambda image: evaluated(model, image))(
    jnp.zeros((8, 6, 3))
  )
  used = {equation.primitive.name for equation in jaxpr.eqns}
  assert not used & {"gather", "sqrt", "eq", "select_n", "iota"}


def transformer(rng, width=16, heads=2, tokens=12):
  """The nodes and tensors of a vision transformer with one block."""
  tensors = {
    "patch": rng.normal(size=(width, 3, 2, 2)),
    "position": rng.normal(size=(1, tokens, width)),
    "scale": rng.uniform(0.5, 1.5, width),
    "shift": rng.normal(size=width),
    "qkv": rng.normal(size=(width, 3 * width)) / 4,
    "out": rng.normal(size=(width, width)) / 4,
    "up": rng.normal(size=(width, 4 * width)) / 4,
    "down": rng.normal(size=(4 * width, width)) / 8,
    "head": rng.normal(size=(8, width)),
    "head_bias": rng.normal(size=8),
    "factor": np.array((width / heads) ** -0.5),
  }
  tensors = {key: a.astype(np.float32) for key, a in tensors.items()}
  tensors |= {
    "flat": ints(0, width, -1),
    "split": ints(0, tokens, 3, heads, width // heads),
    "zero": np.array(0),
    "one": np.array(1),
    "two": np.array(2),
    "joined": ints(0, tokens, width),
    "axes": ints(1),
  }
  make = helper.make_node
  nodes = [
    make("Conv", ["image", "patch"], ["a"], strides=[2, 2]),
    make("Reshape", ["a", "flat"], ["b"]),
    make("Transpose", ["b"], ["c"], perm=[0, 2, 1]),
    make("Add", ["c", "position"], ["x"]),
    make("LayerNormalization", ["x", "scale", "shift"], ["n"]),
    make("MatMul", ["n", "qkv"], ["m"]),
    make("Reshape", ["m", "split"], ["s"]),
    make("Transpose", ["s"], ["t"], perm=[2, 0, 3, 1, 4]),
    make("Gather", ["t", "zero"], ["q"], axis=0),
    make("Gather", ["t", "one"], ["k"], axis=0),
    make("Gather", ["t", "two"], ["v"], axis=0),
    make("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
    make("MatMul", ["q", "kt"], ["scores"]),
    make("Mul", ["scores", "factor"], ["scaled"]),
    make("Softmax", ["scaled"], ["weights"]),
    make("MatMul", ["weights", "v"], ["heads"]),
    make("Transpose", ["heads"], ["tokens"], perm=[0, 2, 1, 3]),
    make("Reshape", ["tokens", "joined"], ["j"]),
    make("MatMul", ["j", "out"], ["o"]),
    make("Add", ["x", "o"], ["y"]),
    make("MatMul", ["y", "up"], ["u"]),
    make("Gelu", ["u"], ["g"]),
    make("MatMul", ["g", "down"], ["d"]),
    make("Add", ["y", "d"], ["z"]),
    make("ReduceMean", ["z", "axes"], ["pooled"], keepdims=0),
    make("Gemm", ["pooled", "head", "head_bias"], ["e"], transB=1, alpha=0.5),
    make("LpNormalization", ["e"], ["result"]),
  ]
  return nodes, tensors


def residual(rng):
  """The nodes and tensors of a residual network with one block."""
  tensors = {
    "stem": rng.normal(size=(8, 3, 3, 3)) / 3,
    "slope": rng.uniform(0.1, 0.4, (8, 1, 1)),
    "grouped": rng.normal(size=(8, 2, 3, 3)) / 3,
    "depthwise": rng.normal(size=(8, 1, 3, 3)),
    "shortcut": rng.normal(size=(8, 8, 1, 1)) / 3,
    "matrix": rng.normal(size=(8 * 2 * 2, 5)) / 5,
  }
  for i in (0, 1):
    tensors |= {
      f"gamma{i}": rng.uniform(0.5, 1.5, 8),
      f"beta{i}": rng.normal(size=8),
      f"mean{i}": rng.normal(size=8),
      f"variance{i}": rng.uniform(0.5, 2, 8),
    }
  tensors = {key: a.astype(np.float32) for key, a in tensors.items()}
  make = helper.make_node

  def norm(x, y, i):
    names = (f"{name}{i}" for name in ("gamma", "beta", "mean", "variance"))
    return make("BatchNormalization", [x, *names], [y])

  ones = [1, 1, 1, 1]
  nodes = [
    make("Conv", ["image", "stem"], ["a"], pads=ones),
    norm("a", "b", 0),
    make("PRelu", ["b", "slope"], ["c"]),
    make("Conv", ["c", "grouped"], ["d"], group=4, pads=ones, strides=[2, 2]),
    norm("d", "e", 1),
    make("Relu", ["e"], ["f"]),
    make("Conv", ["f", "depthwise"], ["g"], group=8, pads=ones),
    make("Conv", ["c", "shortcut"], ["h"], strides=[2, 2]),
    make("Add", ["g", "h"], ["i"]),
    make("MaxPool", ["i"], ["j"], kernel_shape=[2, 2], strides=[2, 1]),
    make("Flatten", ["j"], ["k"]),
    make("Gemm", ["k", "matrix"], ["result"]),
  ]
  return nodes, tensors


NETWORKS = {"transformer": transformer, "residual": residual}


@pytest.fixture(params=NETWORKS)
def network(request, tmp_path):
  nodes, tensors = NETWORKS[request.param](np.random.default_rng(0))
  return build(nodes, tensors, tmp_path, batch=1)


def test_networks(network):
  assert_parity(network)
  assert_parity(network, seed=1)


@pytest.mark.slow
def test_module_is_the_network(network):
  """Of a batch, in 0..255, although the graph's batch is fixed to one."""
  model = reader.read(network)
  module = module_lib.GraphModule(
    model.graph, mean=(1.0, 2.0, 3.0), scale=(50.0, 60.0, 70.0), bgr=True
  )
  rng = np.random.default_rng(0)
  images = rng.uniform(0, 255, (3, 8, 6, 3)).astype(np.float32)
  expected = []
  for image in (images - (1, 2, 3)) / (50, 60, 70):
    (one,) = evaluated(model, image[..., ::-1].astype(np.float32))
    expected.append(one[0])
  actual = jax.jit(module.apply)(model.variables, images)
  assert actual.dtype == jnp.float32
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
  shapes = jax.eval_shape(module.init, jax.random.key(0), images)
  assert jax.tree.map(jnp.shape, dict(shapes)) == jax.tree.map(
    jnp.shape, model.variables
  )


@pytest.mark.slow
def test_gradient_is_the_slope(network):
  """In float64, where central differences are exact to many digits."""
  model = reader.read(network)
  rng = np.random.default_rng(0)
  with jax.enable_x64(True):
    image = jnp.asarray(rng.uniform(-1, 1, (8, 6, 3)))
    direction = jnp.asarray(rng.normal(size=image.shape))

    @jax.jit
    def loss(image):
      (y,) = evaluated(model, image)
      return (y * jnp.arange(1, y.size + 1)).sum()

    gradient = jax.grad(loss)(image)
    assert gradient.dtype == jnp.float64
    step = 1e-6 * direction
    slope = (loss(image + step) - loss(image - step)) / 2e-6
    np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-5)


@pytest.mark.slow
def test_weights_have_gradients(network):
  model = reader.read(network)
  module = module_lib.GraphModule(model.graph)
  images = np.full((2, 8, 6, 3), 90, np.float32)
  images[1, ::2] = 200

  def loss(variables):
    return (module.apply(variables, images) ** 3).sum()

  gradients = jax.jit(jax.grad(loss))(model.variables)["params"]
  # A bias in front of a softmax over all tokens may have none.
  for name, gradient in gradients.items():
    assert jnp.isfinite(gradient).all(), name
    assert jnp.abs(gradient).max() > 0, name


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(
  "name",
  [
    "esp_mfn",
    "foamliu_mobilefacenet",
    "mobileface_v2",
    "mobileface_v3",
    "yunet_n_dynamic",
  ],
)
def test_parity_of_real_networks(name, data_dir):
  path = data_dir / "weights" / f"{name}.onnx"
  raw = name in ("mobileface_v2", "mobileface_v3", "yunet_n_dynamic")
  assert_parity(
    path,
    size=(64, 96) if name.startswith("yunet") else None,
    low=0 if raw else -1,
    high=255 if raw else 1,
    tolerance=1e-4,
  )


def test_several_outputs_are_no_recogniser(tmp_path):
  graph = graphs.Graph(
    name="two.onnx",
    opset=17,
    input="image",
    input_shape=(1, 3, 4, 4),
    outputs=("embedding", "norm"),
    nodes=(),
    constants=(),
    weights=(),
  )
  with pytest.raises(types.FawkesError, match="one output, got embedding, nor"):
    module_lib.GraphModule(graph).apply({}, jnp.zeros((1, 4, 4, 3)))


def test_unknown_operators_are_found():
  node = graphs.Node(op="Loop", name="x", inputs=("image",), outputs=("y",))
  graph = graphs.Graph(
    name="loop.onnx",
    opset=17,
    input="image",
    input_shape=(1, 3, 4, 4),
    outputs=("y",),
    nodes=(node,),
    constants=(),
    weights=(),
  )
  assert evaluation.unsupported(graph) == ["Loop"]
  with pytest.raises(
    types.FawkesError, match=r"loop\.onnx: operator Loop \(node x\) is not"
  ):
    evaluation.evaluate(graph, {}, jnp.zeros((4, 4, 3)))
