"""Fetching and importing recognisers, and finding them by their names."""

import dataclasses
import functools
import hashlib
import http.server
import shutil
import threading

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest
import safetensors.numpy

from fawkes_jax import types
from fawkes_jax.models import architectures
from fawkes_jax.weights import catalogue, extractors, install, preprocessing

SIZE = 16


def network(*, seed=0, op="Gemm", constant=False):
  """A recogniser of one matrix in ONNX, as bytes."""
  rng = np.random.default_rng(seed)
  matrix = rng.normal(0, 0 if constant else 1, (3 * SIZE * SIZE, 8))
  helper = onnx.helper
  graph = helper.make_graph(
    [
      helper.make_node("Flatten", ["images"], ["flat"], axis=1),
      helper.make_node(op, ["flat", "matrix"], ["embedding"]),
    ],
    "tiny",
    [helper.make_tensor_value_info("images", 1, ["n", 3, SIZE, SIZE])],
    [helper.make_tensor_value_info("embedding", 1, ["n", 8])],
    [onnx.numpy_helper.from_array(matrix.astype(np.float32), "matrix")],
  )
  opset = helper.make_opsetid("", 13)
  return helper.make_model(
    graph, opset_imports=[opset], ir_version=8
  ).SerializeToString()


TINY = network()
PAIR = (b"the first one", b"the second one")


def model(name, files, **more):
  """An entry for files with these contents, by suffix."""
  about = {"architecture": "onnx", "licence": "MIT", "source": "a test"}
  return catalogue.Recogniser(
    name=name,
    files=tuple(
      catalogue.File(
        name=f"{name}{suffix}",
        address=f"https://nowhere.invalid/{name}{suffix}",
        sha256=hashlib.sha256(content).hexdigest(),
      )
      for suffix, content in files.items()
    ),
    **(about | more),
  )


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
  """The folder of an empty cache, and a list of models of our own."""
  monkeypatch.setenv("FAWKES_JAX_CACHE", str(tmp_path / "cache"))
  expected = preprocessing.Preprocessing(
    mean=(1, 2, 3), scale=(4, 5, 6), bgr=True
  )
  secret = TINY + b"\x0a\x00"
  models = [
    model("built_in", {}, built_in=True),
    model("tiny", {".onnx": TINY}, preprocessing=expected),
    model("secret", {".onnx": secret}, research_only=True, licence="mine"),
    model("pair", {".xml": PAIR[0], ".bin": PAIR[1]}),
  ]
  own = catalogue.File(name="own.onnx", sha256="0" * 64)
  models.append(dataclasses.replace(model("own", {}), files=(own,)))
  monkeypatch.setattr(catalogue, "public", lambda: {m.name: m for m in models})
  return tmp_path / "cache" / "weights"


@pytest.fixture
def mirror(tmp_path, monkeypatch):
  """The address of a folder that is served, and the folder."""
  monkeypatch.setenv("no_proxy", "127.0.0.1")
  served = tmp_path / "served"
  served.mkdir()
  (served / "tiny.onnx").write_bytes(TINY)
  (served / "secret.onnx").write_bytes(TINY + b"\x0a\x00")
  (served / "pair.xml").write_bytes(PAIR[0])
  (served / "pair.bin").write_bytes(PAIR[1])

  class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
      pass

  handler = functools.partial(Handler, directory=served)
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", served
    server.shutdown()
    thread.join()


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_what_was_fetched_goes_by_its_name(folder, mirror):
  with pytest.raises(types.FawkesError, match="weights fetch tiny"):
    extractors.load_extractor("tiny")
  reports = []
  assert install.fetch(
    "tiny", mirror=mirror[0], report=lambda *done: reports.append(done)
  )
  assert reports[-1] == ("tiny.onnx", len(TINY), len(TINY))
  assert names(folder) == ["tiny.onnx", "tiny.toml"]
  loaded = extractors.load_extractor("tiny")
  assert (loaded.name, loaded.input_size) == ("tiny", SIZE)
  assert loaded.module.mean == (1, 2, 3)
  assert loaded.module.scale == (4, 5, 6)
  assert loaded.module.bgr
  # It is here now: nobody is asked again.
  assert not install.fetch("tiny", mirror="http://127.0.0.1:9")


def test_a_damaged_file_is_fetched_again(folder, mirror):
  install.fetch("tiny", mirror=mirror[0])
  (folder / "tiny.onnx").write_bytes(TINY[:-10])
  assert install.fetch("tiny", mirror=mirror[0])
  assert (folder / "tiny.onnx").read_bytes() == TINY


def test_a_model_of_two_files_is_there_when_both_are(folder, mirror):
  base, served = mirror
  (served / "pair.bin").unlink()
  with pytest.raises(types.FawkesError, match=r"pair\.bin: the server must"):
    install.fetch("pair", mirror=base)
  assert "pair" not in catalogue.kept()
  (served / "pair.bin").write_bytes(PAIR[1])
  install.fetch("pair", mirror=base)
  assert names(folder) == ["pair.bin", "pair.xml"]


def test_another_file_is_not_kept(folder, mirror):
  base, served = mirror
  (served / "tiny.onnx").write_bytes(TINY[:-1])
  with pytest.raises(types.FawkesError, match="sha256 must be"):
    install.fetch("tiny", mirror=base)
  assert catalogue.kept() == {}
  assert names(folder) == ["tiny.toml"]


def test_research_licences_must_be_accepted(folder, mirror):
  with pytest.raises(types.FawkesError) as error:
    install.fetch("secret", mirror=mirror[0])
  assert "secret may be used for research only (mine)" in str(error.value)
  assert "--accept_research_licence" in str(error.value)
  assert not folder.exists()
  install.fetch("secret", mirror=mirror[0], accept_research_licence=True)
  assert names(folder) == ["secret.onnx"]


@pytest.mark.parametrize(
  ("name", "rule"),
  [
    ("nobody", "fetch must name one of tiny, secret, pair, got nobody"),
    ("built_in", "built_in is built in"),
    ("own", r"no address .* fawkes-jax weights import FILE --name=own"),
  ],
)
def test_what_cannot_be_fetched(name, rule):
  with pytest.raises(types.FawkesError, match=rule):
    install.fetch(name)


def test_offline(folder, monkeypatch):
  monkeypatch.setenv("no_proxy", "127.0.0.1")
  with pytest.raises(types.FawkesError, match="fetching needs the internet"):
    install.fetch("tiny", mirror="http://127.0.0.1:9")


@pytest.fixture
def mine(tmp_path):
  """A network of one's own that no list knows."""
  path = tmp_path / "my net.v2.onnx"
  path.write_bytes(network(seed=1))
  return path


def test_import(folder, mine):
  given = {"mean": (0, 0, 0), "scale": (255, 255, 255), "template": "dlib"}
  added = install.add(mine, preprocessing=given)
  assert added.name == "my_net_v2"
  assert names(folder) == ["my_net_v2.onnx", "my_net_v2.toml"]
  loaded = extractors.load_extractor("my_net_v2")
  assert loaded.template == architectures.TEMPLATES["dlib"]
  images = np.random.default_rng(0).uniform(0, 255, (1, SIZE, SIZE, 3))
  matrix = onnx.numpy_helper.to_array(onnx.load(mine).graph.initializer[0])
  expected = (images / 255).transpose(0, 3, 1, 2).reshape(1, -1) @ matrix
  np.testing.assert_allclose(loaded.embed(images), expected, rtol=1e-4)


@pytest.mark.parametrize("beside", [None, "bgr = true\n"])
def test_import_takes_the_preprocessing_beside_the_file(mine, beside):
  if beside:
    mine.with_suffix(".toml").write_text(beside)
  install.add(mine, name="mine")
  loaded = extractors.load_extractor("mine")
  assert loaded.module.bgr == bool(beside)
  assert loaded.module.mean == (127.5,) * 3
  assert loaded.template == architectures.TEMPLATES["arcface"]


def test_import_knows_public_files(tmp_path):
  path = tmp_path / "some_file.onnx"
  path.write_bytes(TINY)
  assert install.add(path).name == "tiny"
  assert extractors.load_extractor("tiny").module.bgr


@pytest.mark.parametrize(
  ("options", "rule"),
  [
    ({"name": "a,b"}, "--name must be of letters, digits, - and _, got a,b"),
    ({"name": "../a"}, "--name must be of letters"),
    (
      {"name": "built_in"},
      "--name must not be that of an extractor of the pac",
    ),
    ({"name": "own"}, "sha256 of own must be 0000.* needs another --name"),
    ({"architecture": "iresnet50"}, "--architecture=iresnet50, it is of onnx"),
    ({"preprocessing": {"mean": (1, 2)}}, "--mean must be three numbers, got"),
    ({"preprocessing": {"scale": (1, 0, 1)}}, "--scale must not be 0, got"),
    (
      {"preprocessing": {"template": "x"}},
      "--template must be one of dlib, arcf",
    ),
    ({"preprocessing": {"template": (0, 0, 0)}}, "--template must have a side"),
  ],
)
def test_wrong_options(folder, mine, options, rule):
  with pytest.raises(types.FawkesError, match=rule):
    install.add(mine, **options)
  assert not folder.exists() or names(folder) == []


def test_a_name_is_not_taken_twice(folder, mine):
  install.add(mine, name="mine")
  before = (folder / "mine.onnx").read_bytes()
  mine.write_bytes(network(seed=2))
  with pytest.raises(types.FawkesError, match="--name must be new, got mine"):
    install.add(mine, name="mine")
  assert (folder / "mine.onnx").read_bytes() == before


@pytest.mark.parametrize(
  ("content", "rule"),
  [
    (None, "must be readable"),
    (b"", "must be a complete, self-contained ONNX model"),
    (TINY[: len(TINY) // 2], "must be a complete, self-contained ONNX model"),
    (b"<!DOCTYPE html>", "must be a complete, self-contained ONNX model"),
    (network(op="Gamma"), "must use supported operators only, got Gamma"),
    (network(constant=True), "embeddings that differ between images"),
  ],
)
def test_damaged_networks(folder, tmp_path, content, rule):
  path = tmp_path / "damaged.onnx"
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(types.FawkesError, match=rule) as error:
    install.add(path)
  assert "damaged.onnx" in str(error.value)
  assert not folder.exists() or names(folder) == []


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".npy", ".ckpt"])
def test_pickles_are_not_opened(folder, tmp_path, suffix):
  """Nor need they be there: how to convert them is said at once."""
  with pytest.raises(types.FawkesError) as error:
    install.add(tmp_path / f"weights{suffix}")
  assert f"weights{suffix} must end in .safetensors, .onnx" in str(error.value)
  assert "safetensors.torch.save_file" in str(error.value)
  assert not folder.exists()


def test_a_pickle_under_another_name_is_not_run(folder, tmp_path):
  ran = tmp_path / "ran"
  for suffix in catalogue.SUFFIXES:
    path = tmp_path / f"pickle{suffix}"
    path.write_bytes(f"cbuiltins\nopen\n(V{ran}\nVw\ntR.".encode())
    with pytest.raises(types.FawkesError, match=path.name):
      install.add(path)
  assert not ran.exists()
  assert names(folder) == []


def test_other_files(tmp_path):
  with pytest.raises(types.FawkesError, match=r"x\.h5 must end in \.safeten"):
    install.add(tmp_path / "x.h5")


def test_safetensors_have_no_preprocessing(tmp_path):
  path = tmp_path / "x.safetensors"
  safetensors.numpy.save_file({"x": np.ones(3)}, path)
  with pytest.raises(types.FawkesError, match="--bgr must be left out"):
    install.add(path, preprocessing={"bgr": True})


def test_openvino(folder, data_dir, tmp_path, monkeypatch):
  monkeypatch.undo()
  monkeypatch.setenv("FAWKES_JAX_CACHE", str(tmp_path / "cache"))
  source = data_dir / "weights" / "face-reidentification-retail-0095.xml"
  install.add(source)
  assert names(folder) == ["se_mobilenet.bin", "se_mobilenet.xml"]
  other = tmp_path / "other.xml"
  shutil.copy(source, other)
  damaged = source.with_suffix(".bin").read_bytes()[:-1] + b"\0"
  other.with_suffix(".bin").write_bytes(damaged)
  with pytest.raises(types.FawkesError, match=r"other\.bin: the sha256 must"):
    install.add(other, name="other")
  assert names(folder) == ["se_mobilenet.bin", "se_mobilenet.xml"]
