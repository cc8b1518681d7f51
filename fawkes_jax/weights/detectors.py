"""Loading the networks that find faces, by name or from a file.

A file of `fawkes-jax train_detector` holds the variables of `yunet.YuNet`,
flat, with slashes between the levels of their names. Its only metadata key
holds JSON that says so, and at which likelihood a face is accepted.
"""

import json
from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np
import safetensors
import safetensors.numpy

from fawkes_jax import types
from fawkes_jax.archive import files
from fawkes_jax.models import search, yunet
from fawkes_jax.options import FaceOptions, OptionError, TrainDetectorOptions
from fawkes_jax.weights import builtin, cache, catalogue
from fawkes_jax.weights.formats import onnx

OWN = "own"
"""The name of the package's own detector, which travels with it."""

DLIB = "dlib"
"""The name of dlib's detector, whose landmarks are a model of their own."""

YUNET = "yunet"
"""The name of YuNet's own weights, and of its record in the catalogue."""

_OWN_FILE = "detector.safetensors"

# Any size: the network takes images of all sizes.
_TRACED = (320, 320)

_KEY = "fawkes_jax"
_DETECTOR = "detector"


def load_detector(name: str = OWN) -> types.Detector:
  """Loads a detector with its weights.

  Args:
    name: `OWN`, `DLIB`, `YUNET`, or the path of a file that ends in
      .safetensors.

  Returns:
    The detector.

  Raises:
    FawkesError: the name is unknown, or the weights are missing or damaged.
  """
  if name == OWN:
    return _own()
  if name == DLIB:
    return builtin.load_mmod()
  if name == YUNET:
    return search.Detector(name=name, variables=load_yunet())
  if Path(name).suffix == ".safetensors":
    return _from_file(Path(name), Path(name).stem)
  raise _unusable(
    f"{OWN}, {DLIB}, {YUNET} or a file that ends in .safetensors", name
  )


def _unusable(rule: str, value: object) -> OptionError:
  """The error of a detector that cannot be used; it names the option."""
  return OptionError(FaceOptions, "detector", rule, str(value))


def _own() -> search.Detector:
  return _from_file(builtin.checkpoint(_OWN_FILE), OWN)


def _from_file(path: Path, name: str) -> search.Detector:
  variables, threshold = _read(path)
  return search.Detector(
    name=name,
    variables=variables,
    threshold=threshold,
    most_side=search.TWIN_MOST_SIDE,
    certain=search.TWIN_CERTAIN,
    turned_threshold=search.TWIN_TURNED,
  )


def load_twin(name: str) -> dict[str, Any]:
  """The variables of a detector that `fawkes-jax train_detector` has trained.

  Args:
    name: `OWN`, or the path of its file.

  Raises:
    FawkesError: the file is missing or damaged, or another one.
  """
  path = builtin.checkpoint(_OWN_FILE) if name == OWN else Path(name)
  try:
    return _read(path)[0]
  except OptionError as error:
    raise OptionError(
      TrainDetectorOptions, "initial", error.rule, error.value
    ) from error


def load_yunet() -> dict[str, Any]:
  """The variables of `yunet.YuNet`, of the file that was fetched.

  Raises:
    FawkesError: it was not fetched, or is another file.
  """
  [file] = catalogue.public()[YUNET].files
  path = catalogue.folder() / file.name
  if not path.exists():
    raise _unusable(f"installed (fawkes-jax weights fetch {YUNET})", YUNET)
  sha256 = catalogue.file_digest(path)
  if sha256 != file.sha256:
    raise types.FawkesError(
      f"{path}: the sha256 of {YUNET} must be {file.sha256}, got {sha256}"
    )
  return cache.load(
    YUNET,
    sha256,
    lambda: yunet.convert(onnx.read(path, size=_TRACED).layers),
  )


def save(variables: dict[str, Any], path: Path, *, threshold: float) -> None:
  """Writes the variables of `yunet.YuNet` in half precision.

  Args:
    variables: nested dictionaries of arrays.
    path: the safetensors file; replaced.
    threshold: the likelihood from which on a face is accepted.

  Raises:
    FawkesError: it cannot be written.
  """
  flat = flax.traverse_util.flatten_dict(variables, sep="/")
  tensors = {k: np.asarray(v, np.float16) for k, v in flat.items()}
  about = {_DETECTOR: "yunet.YuNet", "threshold": threshold}
  metadata = {_KEY: json.dumps(about, sort_keys=True)}
  files.write_atomically(path, safetensors.numpy.save(tensors, metadata))


def _read(path: Path) -> tuple[dict[str, Any], float]:
  """What `save` has written."""
  flat, about = _content(path)
  # The package's own file has the shapes that all have. To trace the network
  # for them would take a second of the time in which a run begins.
  own, _ = _content(builtin.checkpoint(_OWN_FILE))
  if _DETECTOR not in about or _shapes(flat) != _shapes(own):
    raise _unusable("a file that fawkes-jax train_detector has written", path)
  if not all(np.isfinite(array).all() for array in flat.values()):
    raise _unusable("a file of finite weights", path)
  nested = flax.traverse_util.unflatten_dict(flat, sep="/")
  return nested, float(about["threshold"])


def _content(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """The arrays of a file, flat, and what it says about itself."""
  if not path.is_file():
    raise _unusable("a file that exists", path)
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      about = json.loads((file.metadata() or {}).get(_KEY, "{}"))
      flat = {
        key: file.get_tensor(key).astype(np.float32)
        for key in file.keys()  # noqa: SIM118
      }
  except (OSError, ValueError, safetensors.SafetensorError) as error:
    raise _unusable(
      "a complete safetensors file", f"{path}: {error}"
    ) from error
  return flat, about


def _shapes(flat: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
  return {key: array.shape for key, array in flat.items()}
