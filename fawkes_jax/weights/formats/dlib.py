"""Reads the three dlib models of the pip package face_recognition_models.

The package is data under CC0 1.0. It is located but never imported, because
its ``__init__`` needs modules that Python no longer ships. Its fourth file, the
68-landmark model, was trained on data that excludes commercial use, and is
never opened.

dlib's serialisation, as far as these files use it: an integer is a control
byte (low four bits: number of bytes; 0x80: negative) and a little-endian
magnitude; a string is its length and its bytes; a floating point number is an
integer mantissa and an integer exponent of two; a tensor is a version, four
dimensions and raw little-endian float32. A network nests its layers, and their
records appear from the input to the output, each beginning with the name of
the layer; between them lies bookkeeping that inference does not need.
"""

import hashlib
import importlib.util
import pathlib
from typing import Any

import numpy as np

from fawkes_jax import types
from fawkes_jax.models import dlib_resnet, mmod

MMOD_FILE = "mmod_human_face_detector.dat"
LANDMARK_FILE = "shape_predictor_5_face_landmarks.dat"

SHA256 = {
  MMOD_FILE: (
    "4cb19393e2fbaf2b1609a9319ad5386618c886a6234ec1b971f3e87c85d87fe6"
  ),
  LANDMARK_FILE: (
    "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888"
  ),
}
"""The only contents of the detector and the landmarks that are accepted."""

_PACKAGE = "face_recognition_models"
_REINSTALL = f"pip install --force-reinstall {_PACKAGE}==0.3.0"


def package_file(name: str) -> pathlib.Path:
  """Returns the path of a model file inside the installed package.

  Args:
    name: the name of a file.

  Raises:
    FawkesError: the package is not installed.
  """
  spec = importlib.util.find_spec(_PACKAGE)
  if spec is None or not spec.submodule_search_locations:
    raise types.FawkesError(
      f"the package {_PACKAGE}, which holds {name}, must be installed: "
      f"{_REINSTALL}"
    )
  return pathlib.Path(spec.submodule_search_locations[0]) / "models" / name


def _read_pinned(path: str | pathlib.Path, name: str, sha256: str) -> bytes:
  """Reads a copy of the file `name`, whose contents must be the pinned ones."""
  try:
    data = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise types.FawkesError(
      f"{path}: must be a readable copy of {name}, got: {error.strerror} "
      f"({_REINSTALL})"
    ) from error
  digest = hashlib.sha256(data).hexdigest()
  if digest != sha256:
    raise types.FawkesError(
      f"{path}: the sha256 of {name} must be {sha256}, got {digest} "
      f"of {len(data)} bytes ({_REINSTALL})"
    )
  return data


class _Reader:
  """A cursor over serialised bytes."""

  def __init__(self, data: bytes):
    self._data = data
    self._position = 0

  def _bytes(self, count: int) -> bytes:
    start, self._position = self._position, self._position + count
    return self._data[start : self._position]

  def integer(self) -> int:
    control = self._bytes(1)[0]
    value = int.from_bytes(self._bytes(control & 0x0F), "little")
    return -value if control & 0x80 else value

  def integers(self, count: int) -> list[int]:
    return [self.integer() for _ in range(count)]

  def number(self) -> float:
    mantissa, exponent = self.integers(2)
    return float(mantissa) * 2.0**exponent

  def tensor(self) -> np.ndarray:
    """Returns float32 [samples, channels, rows, columns]."""
    _, *shape = self.integers(5)
    count = int(np.prod(shape))
    return np.frombuffer(self._bytes(4 * count), "<f4").reshape(shape)

  def matrix(self) -> np.ndarray:
    """Returns float32 [rows, columns] of a dlib matrix."""
    # dlib writes the dimensions negated, to tell its versions apart.
    rows, columns = (abs(size) for size in self.integers(2))
    values = [self.number() for _ in range(rows * columns)]
    return np.array(values, np.float32).reshape(rows, columns)

  def seek(self, name: str) -> None:
    """Moves behind the next record name, over any bookkeeping."""
    marker = bytes([1, len(name)]) + name.encode()
    self._position = self._data.index(marker, self._position) + len(marker)

  def convolution(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns the kernel [rows, columns, in, out] and bias of the next one."""
    self.seek("con_4")
    flat = self.tensor().reshape(-1)
    filters, rows, columns = self.integers(3)
    kernel = flat[:-filters].reshape(filters, -1, rows, columns)
    return kernel.transpose(2, 3, 1, 0), flat[-filters:]

  def normalisation(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns scale and shift, float64, of the next batch normalisation."""
    self.seek("bn_con2")
    gamma, beta = self.tensor().astype(np.float64).reshape(2, -1)
    self.integers(10)  # Shapes of the views of gamma and beta.
    self.tensor()  # Of the last batch in training: means,
    self.tensor()  # and one over the standard deviations.
    mean, variance = (
      self.tensor().reshape(-1).astype(np.float64) for _ in range(2)
    )
    self.integers(2)  # The number of updates, and that which they span.
    self.integers(8)  # Four multipliers of the learning rate and decay.
    scale = gamma / np.sqrt(variance + self.number())
    return scale, beta - scale * mean


def _folded(
  kernel: np.ndarray, bias: np.ndarray, scale: np.ndarray, shift: np.ndarray
) -> dict[str, np.ndarray]:
  """Folds y -> scale * y + shift behind a convolution into it (float64)."""
  return {
    "kernel": np.ascontiguousarray(kernel * scale, np.float32),
    "bias": np.asarray(bias * scale + shift, np.float32),
  }


def read_resnet(
  path: str | pathlib.Path, name: str, sha256: str
) -> dict[str, Any]:
  """Reads the face recognition network.

  Args:
    path: a copy of the file.
    name: the name of the file in the package.
    sha256: the SHA-256 of its contents.

  Returns:
    The Flax variables of `models.dlib_resnet.DlibResNet`: nested dictionaries
    with float32 leaves.

  Raises:
    FawkesError: the file is missing, unreadable, or not the pinned one.
  """
  reader = _Reader(_read_pinned(path, name, sha256))

  def convolution() -> dict[str, np.ndarray]:
    kernel, bias = reader.convolution()
    reader.seek("affine_")
    scale, shift = reader.tensor().astype(np.float64).reshape(2, -1)
    return _folded(kernel, bias, scale, shift)

  params: dict[str, Any] = {"stem": convolution()}
  for i in range(len(dlib_resnet.BLOCK_WIDTHS)):
    params[f"block_{i}"] = {"conv_0": convolution(), "conv_1": convolution()}
  reader.seek("fc_2")
  outputs, inputs = reader.integers(2)
  matrix = reader.tensor().reshape(inputs, outputs)
  params["embedding"] = {"kernel": matrix.copy()}
  return {"params": params}


def read_mmod(path: str | pathlib.Path) -> dict[str, Any]:
  """Reads the face detector.

  Args:
    path: a copy of `MMOD_FILE`.

  Returns:
    `variables`: the Flax variables of `models.mmod.MmodNet`; `window`: int32
    [2], width and height of its window; `overlap`: float64 [2], the fractions
    of `models.mmod.suppress`.

  Raises:
    FawkesError: the file is missing, unreadable, or not the pinned one.
  """
  reader = _Reader(_read_pinned(path, MMOD_FILE, SHA256[MMOD_FILE]))
  reader.seek("loss_mmod_")
  # The version, then the window; then what false alarms and misses cost in
  # training, and what counts as a match there.
  _, *window = reader.integers(3)
  _, _, _, shared, covered = (reader.number() for _ in range(5))
  params = {}
  for i in range(len(mmod.LAYERS)):
    kernel, bias = reader.convolution()
    scale, shift = np.ones(len(bias)), np.zeros(len(bias))
    if i < len(mmod.LAYERS) - 1:
      scale, shift = reader.normalisation()
    params[f"conv_{i}"] = _folded(kernel, bias, scale, shift)
  return {
    "variables": {"params": params},
    "window": np.array(window, np.int32),
    "overlap": np.array([shared, covered]),
  }


def read_shape_predictor(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the five-point shape predictor.

  Args:
    path: a copy of `LANDMARK_FILE`.

  Returns:
    The fields of `models.landmarks.LandmarkModel` by name.

  Raises:
    FawkesError: the file is missing, unreadable, or not the pinned one.
  """
  reader = _Reader(_read_pinned(path, LANDMARK_FILE, SHA256[LANDMARK_FILE]))
  reader.integer()  # The format's version.
  mean_shape = reader.matrix().reshape(-1, 2)
  first, second, threshold, leaves = [], [], [], []
  num_forests = reader.integer()
  num_trees = 0
  for _ in range(num_forests):
    num_trees = reader.integer()
    for _ in range(num_trees):
      for _ in range(reader.integer()):
        first.append(reader.integer())
        second.append(reader.integer())
        threshold.append(reader.number())
      for _ in range(reader.integer()):
        leaves.append(reader.matrix())
  anchors = [reader.integers(reader.integer()) for _ in range(reader.integer())]
  offsets = [
    [(reader.number(), reader.number()) for _ in range(reader.integer())]
    for _ in range(reader.integer())
  ]
  trees = num_forests, num_trees, -1
  return {
    "mean_shape": mean_shape,
    "first": np.array(first, np.int32).reshape(trees),
    "second": np.array(second, np.int32).reshape(trees),
    "threshold": np.array(threshold, np.float32).reshape(trees),
    "leaves": np.stack(leaves).reshape(*trees, *mean_shape.shape),
    "anchors": np.array(anchors, np.int32),
    "offsets": np.array(offsets, np.float32),
  }
