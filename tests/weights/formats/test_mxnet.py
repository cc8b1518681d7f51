"""Parameters of MXNet, written here as its documentation says."""

import struct

import jax
import numpy as np
import pytest

from fawkes_jax import types
from fawkes_jax.models import mobileface
from fawkes_jax.weights.formats import mxnet, onnx


def saved(arrays):
  """A .params file."""
  data = struct.pack("<QQQ", 0x112, 0, len(arrays))
  for array in arrays.values():
    shape = struct.pack(f"<{array.ndim}q", *array.shape)
    kind = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3}
    data += struct.pack("<Iii", 0xF993FAC9, 0, array.ndim) + shape
    data += struct.pack("<iii", 1, 0, kind[array.dtype.name])
    data += array.tobytes()
  data += struct.pack("<Q", len(arrays))
  for name in arrays:
    data += struct.pack("<Q", len(name)) + name.encode()
  return data


ARRAYS = {
  "arg:one": np.arange(6, dtype=np.float32).reshape(2, 3),
  "aux:other": np.ones(4, np.float16),
}
DATA = saved(ARRAYS)


@pytest.fixture
def file(tmp_path):
  path = tmp_path / "mine.params"
  path.write_bytes(DATA)
  return path


def test_all_arrays_by_their_names(file):
  arrays = mxnet.read(file)
  assert list(arrays) == ["one", "other"]
  for got, expected in zip(arrays.values(), ARRAYS.values(), strict=True):
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == expected.dtype


@pytest.mark.parametrize("size", [0, 7, 24, 40, 60, 90, len(DATA) - 1])
def test_a_truncated_file(file, size):
  file.write_bytes(DATA[:size])
  with pytest.raises(types.FawkesError) as error:
    mxnet.read(file)
  assert str(error.value).startswith(f"{file} must be a complete .params file")


@pytest.mark.parametrize(
  ("data", "rule"),
  [
    (b"\x80\x04" + DATA, "it begins with"),
    (saved({"arg:a": np.ones(3, np.uint8)}), "the unsupported type 3"),
    (DATA.replace(b"\xc9\xfa\x93\xf9", b"\xca\xfa\x93\xf9"), "not dense"),
  ],
)
def test_other_files(file, data, rule):
  file.write_bytes(data)
  with pytest.raises(types.FawkesError, match=rule):
    mxnet.read(file)


def test_a_missing_file(tmp_path):
  with pytest.raises(types.FawkesError, match=r"x\.params must be readable"):
    mxnet.read(tmp_path / "x.params")


@pytest.fixture(scope="module")
def port(data_dir):
  """The port's variables, from its file in ONNX."""
  path = data_dir / "weights" / "mobileface_v2.onnx"
  return onnx.convert(onnx.read(path), "mobileface_v2")


@pytest.fixture
def arrays(port):
  """MXNet's arrays that must become the port's variables."""
  random = np.random.default_rng(0)
  result = {}

  def add(layer, norm, folded):
    kernel = np.asarray(folded["kernel"], np.float64)
    gamma, mean = random.uniform(0.5, 2, (2, kernel.shape[-1]))
    variance = random.uniform(0.5, 2, kernel.shape[-1])
    scale = gamma / np.sqrt(variance + 1e-3)
    axes = (kernel.ndim - 1, kernel.ndim - 2, *range(kernel.ndim - 2))
    result[f"{layer}_weight"] = (kernel / scale).transpose(axes)
    result[f"{norm}_gamma"] = gamma
    result[f"{norm}_beta"] = folded["bias"] + mean * scale
    result[f"{norm}_moving_mean"] = mean
    result[f"{norm}_moving_var"] = variance

  params = dict(port["params"])
  add("conv1", "bn1", params["stem"])
  for i in range(3 * len(mobileface.BLOCKS)):
    name = ("expand", "depthwise", "project")[i % 3]
    layer = params[f"block_{i // 3}"][name]
    add(f"convolution{i}", f"batchnorm{i}", layer)
  matrix = params["embedding"]["kernel"]
  image = matrix.reshape(4, 4, 128, 256).transpose(2, 0, 1, 3)
  add("fc5", "fc5_bn", params["embedding"] | {"kernel": image.reshape(-1, 256)})
  return result


def test_conversion(port, arrays):
  converted = mxnet.convert_mobileface("mine", arrays)
  jax.tree.map(
    lambda got, expected: np.testing.assert_allclose(
      got, expected, rtol=1e-5, atol=1e-6
    ),
    converted,
    port,
  )


def test_wrong_arrays(arrays):
  del arrays["bn1_gamma"]
  with pytest.raises(types.FawkesError, match="mine must have the array bn1_g"):
    mxnet.convert_mobileface("mine", arrays)
  arrays["bn1_gamma"] = np.ones(31)
  with pytest.raises(types.FawkesError, match="mine must have arrays of the r"):
    mxnet.convert_mobileface("mine", arrays)
  arrays["bn1_gamma"] = np.ones(32)
  arrays["fc5_weight"] = arrays["fc5_weight"][:, :1920]
  with pytest.raises(types.FawkesError, match="mine: the mobileface_v2 weight"):
    mxnet.convert_mobileface("mine", arrays)
