"""Reads parameters from MXNet's .params files, without it.

A file is little-endian: a magic number and a reserved one; how many arrays
there are, and they; how many names there are, and they. An array is a magic
number, how it is stored (0: dense), its number of axes and their sizes, two
numbers for the device, the number of its type, and its values. A name is its
length and its bytes.

Source: github.com/apache/mxnet, src/ndarray/ndarray.cc, NDArray::Save.
"""

import math
import struct
from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np

from fawkes_jax import types
from fawkes_jax.models import mobileface
from fawkes_jax.models.onnx import folding
from fawkes_jax.weights.variables import check

_FILE, _ARRAY = 0x112, 0xF993FAC9
_TYPES = {0: "<f4", 1: "<f8", 2: "<f2"}
_EPSILON = 1e-3  # What MXNet's batch normalisation adds to the variance.


class _Reader:
  """A cursor over the bytes of a file."""

  def __init__(self, data: bytes):
    self._data = data
    self._at = 0

  def take(self, size: int) -> bytes:
    if size > len(self._data) - self._at:
      raise ValueError(f"it ends at byte {len(self._data)}, too early")
    start, self._at = self._at, self._at + size
    return self._data[start : self._at]

  def numbers(self, kinds: str) -> tuple[int, ...]:
    return struct.unpack(f"<{kinds}", self.take(struct.calcsize(f"<{kinds}")))

  def array(self) -> np.ndarray:
    magic, storage, axes = self.numbers("Iii")
    if magic != _ARRAY or storage != 0 or not 0 < axes <= 8:
      raise ValueError("it has an array that is not dense")
    shape = self.numbers(f"{axes}q")
    *_, kind = self.numbers("iii")
    if kind not in _TYPES:
      raise ValueError(f"it has an array of the unsupported type {kind}")
    dtype = np.dtype(_TYPES[kind])
    if min(shape) < 0:
      raise ValueError(f"it has an array of shape {shape}")
    values = self.take(math.prod(shape) * dtype.itemsize)
    return np.frombuffer(values, dtype).reshape(shape)


def read(path: Path) -> dict[str, np.ndarray]:
  """Reads all arrays of a file.

  Args:
    path: a .params file.

  Returns:
    The arrays by name, without the kind of parameter in front of it.

  Raises:
    FawkesError: the file is missing or damaged.
  """
  try:
    reader = _Reader(path.read_bytes())
    magic, _, count = reader.numbers("QQQ")
    if magic != _FILE:
      raise ValueError(f"it begins with {magic:#x}")
    arrays = [reader.array() for _ in range(count)]
    (names,) = reader.numbers("Q")
    if names != count:
      raise ValueError(f"it has {count} arrays and {names} names")
    keys = [str(reader.take(*reader.numbers("Q")), "utf-8") for _ in arrays]
  except OSError as error:
    raise types.FawkesError(
      f"{path} must be readable: {error.strerror}"
    ) from error
  except ValueError as error:
    raise types.FawkesError(
      f"{path} must be a complete .params file of MXNet: {error}"
    ) from error
  return {
    key.rpartition(":")[2]: array
    for key, array in zip(keys, arrays, strict=True)
  }


def convert_mobileface(
  source: str, arrays: dict[str, np.ndarray]
) -> dict[str, Any]:
  """Turns MobileFace Identification V2 into `models.mobileface.MobileFace`.

  Args:
    source: the file they come from, for messages.
    arrays: of MobileFace_Identification_V2-0000.params.

  Returns:
    The Flax variables, float32.

  Raises:
    FawkesError: it is another network.
  """

  def folded(layer: str, norm: str) -> dict[str, np.ndarray]:
    kernel = arrays[f"{layer}_weight"].astype(np.float64)
    gamma, beta, mean, variance = (
      arrays[f"{norm}_{part}"].astype(np.float64)
      for part in ("gamma", "beta", "moving_mean", "moving_var")
    )
    scale = gamma / np.sqrt(variance + _EPSILON)
    bias = (arrays.get(f"{layer}_bias", 0) - mean) * scale + beta
    # [out, in, ...] becomes [..., in, out].
    kernel = kernel.transpose(*range(2, kernel.ndim), 1, 0) * scale
    return {
      "kernel": kernel.astype(np.float32),
      "bias": bias.astype(np.float32),
    }

  try:
    flat: dict[tuple[str, ...], Any] = {("stem",): folded("conv1", "bn1")}
    for i in range(3 * len(mobileface.BLOCKS)):
      name = ("expand", "depthwise", "project")[i % 3]
      flat[f"block_{i // 3}", name] = folded(f"convolution{i}", f"batchnorm{i}")
    flat["embedding",] = folded("fc5", "fc5_bn")
  except KeyError as error:
    raise types.FawkesError(
      f"{source} must have the array {error.args[0]}, which is missing"
    ) from error
  except ValueError as error:
    raise types.FawkesError(
      f"{source} must have arrays of the right shape: {error}"
    ) from error
  variables = {"params": flax.traverse_util.unflatten_dict(flat)}
  embedding = variables["params"]["embedding"]
  embedding["kernel"] = folding.channels_last(
    embedding["kernel"], mobileface.BLOCKS[-1][1]
  )
  check(source, "mobileface_v2", variables)
  return variables
