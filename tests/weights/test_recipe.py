"""CONTRIBUTING.md's "Add a recogniser", followed to the letter."""

import functools
import hashlib
import http.server
import re
import threading
from pathlib import Path

import jax
import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
from PIL import Image
from terminal import run

from fawkes_jax.archive import manifest
from fawkes_jax.evaluation import detectors, trackers
from fawkes_jax.models import mobilefacenet
from fawkes_jax.weights import bank, builtin, catalogue, extractors

NAME = "newcomer"


def mobilefacenet_in_onnx() -> bytes:
  """A network of a known architecture with random weights."""
  images = np.zeros((1, 112, 112, 3), np.float32)
  module = mobilefacenet.MobileFaceNet()
  shapes = jax.eval_shape(module.init, jax.random.key(0), images)["params"]
  rng = np.random.default_rng(0)

  def drawn(leaf):
    scale = np.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 else 0.01
    return rng.normal(0, scale, leaf.shape).astype(np.float32)

  params = jax.tree.map(drawn, shapes)
  nodes, tensors = [], []

  def constant(name, array):
    tensors.append(onnx.numpy_helper.from_array(array, name))
    return name

  def node(op, *inputs, **attributes):
    result = f"x{len(nodes)}"
    nodes.append(onnx.helper.make_node(op, inputs, [result], **attributes))
    return result

  def convolution(x, layer, pad=0, stride=1):
    kernel = np.asarray(layer["kernel"]).transpose(3, 2, 0, 1)
    return node(
      "Conv",
      x,
      constant(f"kernel{len(nodes)}", kernel),
      constant(f"bias{len(nodes)}", np.asarray(layer["bias"])),
      group=len(kernel) if kernel.shape[1] == 1 else 1,
      pads=[pad] * 4,
      strides=[stride] * 2,
    )

  def relu6(x):
    return node("Clip", x, "zero", "six")

  constant("zero", np.float32(0))
  constant("six", np.float32(6))
  x = relu6(convolution("images", params["stem"], 1, 2))
  x = node("Relu", convolution(x, params["depthwise"], 1))
  x = node("Relu", convolution(x, params["pointwise"]))
  width = 64
  for i, (_, wide, stride) in enumerate(mobilefacenet.BLOCKS):
    block = params[f"block_{i}"]
    y = relu6(convolution(x, block["expand"]))
    y = relu6(convolution(y, block["depthwise"], 1, stride))
    y = convolution(y, block["project"])
    x = node("Add", x, y) if stride == 1 and wide == width else y
    width = wide
  x = relu6(convolution(x, params["head"]))
  x = convolution(convolution(x, params["pool"]), params["embedding"])
  x = node("Flatten", x, axis=1)
  graph = onnx.helper.make_graph(
    nodes,
    NAME,
    [onnx.helper.make_tensor_value_info("images", 1, [1, 3, 112, 112])],
    [onnx.helper.make_tensor_value_info(x, 1, [1, 128])],
    tensors,
  )
  return onnx.helper.make_model(
    graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8
  ).SerializeToString()


def record(content: bytes) -> str:
  """The one thing that is written for it: as the recipe shows it."""
  text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
  [table] = re.findall(rf"(?m)^(    \[{NAME}\]\n(?:(?:    .*)?\n)*)", text)
  table = re.sub(r"(?m)^    ", "", table)
  changed = re.sub(
    r'sha256 = ".*"\nsize = \d+',
    f'sha256 = "{hashlib.sha256(content).hexdigest()}"\nsize = {len(content)}',
    table,
  )
  assert changed != table
  return changed


@pytest.fixture(scope="module")
def content():
  return mobilefacenet_in_onnx()


@pytest.fixture
def added(content, tmp_path, monkeypatch):
  """The package with one record more, and an empty cache for weights."""
  cache = catalogue.cache.directory()
  checkpoints = tmp_path / "checkpoints"
  checkpoints.mkdir()
  for path in builtin.checkpoint("").iterdir():
    (checkpoints / path.name).symlink_to(path)
  known = builtin.checkpoint("weights.toml").read_text()
  (checkpoints / "weights.toml").unlink()
  (checkpoints / "weights.toml").write_text(f"{known}\n{record(content)}")
  monkeypatch.setattr(builtin, "checkpoint", lambda name: checkpoints / name)
  monkeypatch.setenv("FAWKES_JAX_CACHE", str(tmp_path / "cache"))
  (tmp_path / "cache").mkdir()
  if (cache / "xla").is_dir():
    (tmp_path / "cache" / "xla").symlink_to(cache / "xla")
  catalogue.public.cache_clear()
  yield
  catalogue.public.cache_clear()


@pytest.fixture
def mirror(content, tmp_path, monkeypatch):
  """The address of a folder that has the file."""
  monkeypatch.setenv("no_proxy", "127.0.0.1")
  served = tmp_path / "served"
  served.mkdir()
  (served / f"{NAME}.onnx").write_bytes(content)

  class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
      pass

  handler = functools.partial(Handler, directory=served)
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()


def row_of_the_list():
  """What `weights list` says of it."""
  said = run("weights", "list").said
  [row] = [line for line in said.splitlines() if f" {NAME} " in line]
  return row


def test_one_record_is_listed_and_fetched(added, mirror):
  assert "MIT" in row_of_the_list()
  assert "to fetch" in row_of_the_list()
  code, said, errors = run("weights", "fetch", NAME, f"--mirror={mirror}")
  assert (code, errors) == (0, "")
  assert f"--surrogates=dlib_resnet,{NAME}" in said
  assert "in the cache" in row_of_the_list()
  assert catalogue.identity(NAME) == NAME


def imported(content, folder):
  """Imports the file under a name that says nothing."""
  path = folder / "some file.onnx"
  path.write_bytes(content)
  code, said, errors = run("weights", "import", path)
  assert (code, errors) == (0, "")
  assert said.startswith(f"{NAME} is in ")


def test_one_record_makes_a_surrogate_and_a_tracker(
  added, content, tmp_path, astronaut
):
  """And both see the same: the module, and the file in its own runtime."""
  pytest.importorskip("onnxruntime")
  imported(content, tmp_path)
  surrogate = extractors.load_extractor(NAME)
  assert surrogate.name == NAME
  assert isinstance(surrogate.module, mobilefacenet.MobileFaceNet)
  detector = detectors.Dlib()
  tracker = trackers.load(NAME, detector, detector)
  assert (tracker.name, tracker.identity) == (NAME, NAME)
  face = detector.find(astronaut)
  reference = detector.reference(surrogate.template, surrogate.input_size)
  chip = detectors.chip(astronaut, face, reference, surrogate.input_size)
  [seen] = surrogate.embed(chip[None])
  features = tracker.embed(astronaut, face)
  np.testing.assert_allclose(
    features, seen / np.linalg.norm(seen), atol=1e-5, rtol=0
  )


@pytest.mark.slow
def test_one_record_cloaks(added, content, tmp_path, astronaut):
  """With a bank of its own; without one averaged faces are its targets."""
  imported(content, tmp_path)
  people = tmp_path / "people"
  for i, photo in enumerate((astronaut, astronaut[:, ::-1])):
    (people / str(i)).mkdir(parents=True)
    Image.fromarray(photo[:256]).save(people / str(i) / "photo.png")
  cloak = (
    *("cloak", people / "0", tmp_path / "out", "--steps=30", "--batch_size=1"),
    *(f"--surrogates={NAME}", "--crop_size=160"),
  )
  own = tmp_path / "bank.safetensors"
  assert run(
    *("bank", f"--input={people}", f"--output={own}", "--min_photos=1"),
    f"--surrogates={NAME}",
  )[::2] == (0, "")
  assert bank.names(own) == {NAME}
  assert run(*cloak, f"--bank={own}").code == 0
  with manifest.Manifest(tmp_path / "out") as rows:
    row = rows.rows.get("photo.png")
  assert row.status == "cloaked"
  assert list(row.faces[0]["extractors"]) == [NAME]
