"""Extractors from files: ports of public ones, and any other in ONNX."""

import numpy as np
import pytest

from fawkes_jax import types
from fawkes_jax.models import architectures
from fawkes_jax.weights import extractors

PORTS = {
  "mobilefacenet": "foamliu_mobilefacenet.onnx",
  "mobileface_v2": "mobileface_v2.onnx",
  "se_mobilenet": "face-reidentification-retail-0095.xml",
}
PREPROCESSING = """
mean = [123.675, 116.28, 103.53]
scale = [58.395, 57.12, 57.375]
template = "arcface"
"""


@pytest.fixture(scope="module")
def images():
  shape = (2, 112, 112, 3)
  return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", PORTS)
def test_a_known_file_is_its_port(data_dir, name):
  loaded = extractors.load_extractor(str(data_dir / "weights" / PORTS[name]))
  assert loaded.name == name
  assert loaded.template == architectures.ARCHITECTURES[name].template
  size = loaded.input_size
  embeddings = loaded.embed(np.full((2, size, size, 3), 128, np.uint8))
  assert embeddings.dtype == np.float32
  assert np.isfinite(embeddings).all()


@pytest.fixture
def own(data_dir, tmp_path):
  """A network that the package has no port of."""
  path = tmp_path / "mine.onnx"
  known = data_dir / "weights" / PORTS["mobilefacenet"]
  # An empty field more, and it is no longer the public file.
  path.write_bytes(known.read_bytes() + b"\x0a\x00")
  return path


def test_any_onnx_file_runs_by_its_preprocessing(data_dir, own, images):
  known = data_dir / "weights" / PORTS["mobilefacenet"]
  own.with_suffix(".toml").write_text(PREPROCESSING)
  loaded = extractors.load_extractor(str(own))
  assert (loaded.name, loaded.input_size) == ("mine", 112)
  assert loaded.template == architectures.TEMPLATES["arcface"]
  port = extractors.load_extractor(str(known))
  expected = port.embed(images)
  error = np.linalg.norm(loaded.embed(images) - expected)
  assert error <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize(
  ("preprocessing", "message"),
  [
    (None, "must say what the recogniser beside it expects"),
    ("mean = [1,", "must be TOML"),
    ("sacle = [1, 1, 1]", "got sacle"),
    ("mean = 127.5", "mean must be three numbers, got 127.5"),
    ("bgr = 1", "bgr must be true or false, got 1"),
    ('template = "insight"', "template must be one of dlib, arcface"),
    ("template = [0, 0]", "template must be three numbers"),
  ],
)
def test_a_wrong_preprocessing(own, preprocessing, message):
  if preprocessing is not None:
    own.with_suffix(".toml").write_text(preprocessing)
  with pytest.raises(types.FawkesError, match=r"mine\.toml") as error:
    extractors.load_extractor(str(own))
  assert message in str(error.value)


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("somebody", r"^extractors must be of dlib_resnet"),
    ("missing.onnx", r"^extractors must be readable, got missing\.onnx"),
  ],
)
def test_an_unknown_extractor(name, message):
  with pytest.raises(types.FawkesError, match=message):
    extractors.load_extractor(name)


def test_another_openvino_model(tmp_path):
  path = tmp_path / "other.xml"
  path.write_text("<net/>")
  with pytest.raises(types.FawkesError, match=r"other\.xml: the only OpenVINO"):
    extractors.load_extractor(str(path))


def test_a_truncated_file(data_dir, tmp_path):
  whole = (data_dir / "weights" / PORTS["mobilefacenet"]).read_bytes()
  path = tmp_path / "torn.onnx"
  path.write_bytes(whole[: len(whole) // 2])
  path.with_suffix(".toml").write_text(PREPROCESSING)
  with pytest.raises(types.FawkesError, match=r"torn\.onnx"):
    extractors.load_extractor(str(path))
