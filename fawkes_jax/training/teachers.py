"""Embeddings that a student shall predict, computed once for all crops.

A teacher is the name of one of the package's extractors, an ONNX file, or a
file of embeddings that were computed elsewhere.
"""

import dataclasses
import hashlib
import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import rich.console
import rich.progress
import safetensors
import safetensors.numpy
from jaxtyping import Float32

from fawkes_jax import types
from fawkes_jax.models import graph, students
from fawkes_jax.training import data, views
from fawkes_jax.weights import cache, extractors, onnx

_BATCH = 32
_ARCFACE = views.square(students.TEMPLATE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contract:
  """What a recogniser in a file expects, and where it comes from.

  Attributes:
    mean: subtracted from each channel, RGB, in 0..255.
    scale: what is then divided by.
    bgr: whether it takes blue, green, red.
    part: what of the face frame it sees: left, top, width, height.
    licence: of its weights, for the model card.
    source: where it comes from, for the model card.
  """

  mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
  scale: tuple[float, float, float] = (127.5, 127.5, 127.5)
  bgr: bool = False
  part: views.Rectangle = _ARCFACE
  licence: str = "not stated"
  source: str = "not stated"


# By the names of files; a TOML file beside a model says it for others.
CONTRACTS = {
  "dlib_resnet": Contract(
    licence="CC0-1.0", source="dlib, dlib_face_recognition_resnet_model_v1"
  ),
  "foamliu_mobilefacenet": Contract(
    mean=(123.675, 116.28, 103.53),
    scale=(58.395, 57.12, 57.375),
    licence="Apache-2.0",
    source="github.com/foamliu/MobileFaceNet",
  ),
  "mobileface_v2": Contract(
    mean=(0.0, 0.0, 0.0),
    scale=(1.0, 1.0, 1.0),
    licence="MIT",
    source="github.com/becauseofAI/MobileFace",
  ),
  "face-reidentification-retail-0095": Contract(
    licence="Apache-2.0", source="Intel Open Model Zoo"
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Teacher:
  """A teacher's embeddings of all crops.

  Attributes:
    name: the extractor's, or the file's without suffix.
    embeddings: of the crops plain and mirrored; raw.
    contract: where they come from.
  """

  name: str
  embeddings: Float32[np.ndarray, "2 n d"]
  contract: Contract

  def targets(
    self, rows: np.ndarray
  ) -> tuple[Float32[np.ndarray, "2 n d"], Float32[np.ndarray, " d"]]:
    """The embeddings around the mean of some rows, of length one.

    Args:
      rows: the crops of the mean: those that are trained on.

    Returns:
      The targets, and the mean.
    """
    centre = self.embeddings[:, rows].mean(axis=(0, 1))
    moved = self.embeddings - centre
    lengths = np.linalg.norm(moved, axis=-1, keepdims=True)
    return moved / np.maximum(lengths, 1e-6), centre


def load_teacher(
  teacher: str,
  faces: data.Faces,
  *,
  console: rich.console.Console | None = None,
) -> Teacher:
  """Embeds all crops, or reads what was embedded before.

  Args:
    teacher: an extractor's name, or a path ending in .onnx, .npz or
      .safetensors. A file of embeddings has an array "embeddings" [2n, d]:
      the crops in their order, then all of them mirrored.
    faces: the crops.
    console: where progress is shown.

  Returns:
    The teacher.

  Raises:
    FawkesError: the teacher is unknown, its file is damaged, or does not fit
      the crops.
  """
  path = Path(teacher)
  contract = _contract(path)
  if path.suffix in (".npz", ".safetensors"):
    embeddings = _stored(path, len(faces))
  elif path.suffix == ".onnx":
    content = hashlib.sha256(_content(path)).hexdigest()

    def embedder() -> _Embedder:
      model = onnx.read(path)
      module = graph.GraphModule(
        graph=model.graph,
        mean=contract.mean,
        scale=contract.scale,
        bgr=contract.bgr,
      )
      size = model.graph.image_size[0]
      return _Embedder(module, model.variables, size, contract.part)

    embeddings = _embed(path.stem, embedder, content, contract, faces, console)
  else:
    if path.suffix:
      raise types.FawkesError(
        "--teachers must be names of extractors, or files ending in .onnx,"
        f" .npz or .safetensors; got {teacher}"
      )
    try:
      extractor = extractors.load_extractor(teacher)
    except types.FawkesError as error:
      message = str(error).replace("--surrogates", "--teachers")
      raise types.FawkesError(message) from error
    content = hashlib.sha256(
      b"".join(
        np.asarray(leaf).tobytes()
        for leaf in jax.tree.leaves(extractor.variables)
      )
    ).hexdigest()
    part = views.square(extractor.template)
    contract = dataclasses.replace(contract, part=part)
    embeddings = _embed(
      teacher,
      lambda: _Embedder(
        extractor.module, extractor.variables, extractor.input_size, part
      ),
      content,
      contract,
      faces,
      console,
    )
  name = path.stem
  if not np.isfinite(embeddings).all():
    raise types.FawkesError(
      f"--teachers must give finite embeddings, {teacher} does not"
    )
  return Teacher(name=name, embeddings=embeddings, contract=contract)


def _content(path: Path) -> bytes:
  try:
    return path.read_bytes()
  except OSError as error:
    raise types.FawkesError(
      f"--teachers must be readable files, got {path}: {error.strerror}"
    ) from error


def _contract(path: Path) -> Contract:
  """From the file beside a model, else the table, else the usual one."""
  beside = path.with_suffix(".toml")
  if not path.suffix or not beside.is_file():
    return CONTRACTS.get(path.stem, Contract())
  try:
    values: dict[str, Any] = {
      key: tuple(value) if isinstance(value, list) else value
      for key, value in tomllib.loads(
        beside.read_text(encoding="utf-8")
      ).items()
    }
    contract = Contract(**values)
    fits = [len(contract.mean), len(contract.scale), len(contract.part)]
  except (OSError, ValueError, TypeError) as error:
    raise types.FawkesError(
      f"{beside} must hold {', '.join(_fields())} only: {error}"
    ) from error
  if fits != [3, 3, 4]:
    raise types.FawkesError(
      f"{beside} must give 3 means, 3 scales and 4 numbers of the part,"
      f" got {fits}"
    )
  return contract


def _fields() -> list[str]:
  return [field.name for field in dataclasses.fields(Contract)]


def _stored(path: Path, count: int) -> Float32[np.ndarray, "2 n d"]:
  """Reads embeddings that were computed elsewhere."""
  try:
    if path.suffix == ".npz":
      with np.load(path, allow_pickle=False) as arrays:
        array = arrays["embeddings"]
    else:
      array = safetensors.numpy.load_file(path)["embeddings"]
  except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
    raise types.FawkesError(
      f"--teachers={path} must hold an array named embeddings: {error}"
    ) from error
  if array.ndim != 2 or len(array) != 2 * count:
    raise types.FawkesError(
      f"--teachers={path} must hold {2 * count} rows, for {count} crops plain"
      f" and mirrored; got {list(array.shape)}"
    )
  return array.reshape(2, count, -1).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class _Embedder:
  """A network and what it sees."""

  module: nn.Module
  variables: Any
  size: int
  part: views.Rectangle


def _embed(
  name: str,
  load: Callable[[], _Embedder],
  content: str,
  contract: Contract,
  faces: data.Faces,
  console: rich.console.Console | None,
) -> Float32[np.ndarray, "2 n d"]:
  """Embeds the crops with a network, unless the cache has it."""
  key = json.dumps([faces.digest, content, dataclasses.astuple(contract)[:4]])
  digest = hashlib.sha256(key.encode()).hexdigest()[:12]
  path = cache.directory() / "training" / f"teacher-{name}-{digest}.npy"
  if path.is_file():
    return np.load(path)
  if console is not None:
    console.print(f"embedding {len(faces)} crops with {name}")
  network = load()
  apply = jax.jit(network.module.apply)
  variables = jax.device_put(network.variables)
  starts = range(0, len(faces), _BATCH)
  tracked = (
    starts
    if console is None
    else rich.progress.track(starts, name, console=console)
  )
  chunks = []
  for start in tracked:
    rows = np.arange(start, start + _BATCH) % len(faces)  # One shape for all.
    plain = np.stack(
      [views.still(faces.crops[i], network.part, network.size) for i in rows]
    )
    chunk = [
      np.asarray(apply(variables, images.astype(np.float32)))
      for images in (plain, plain[:, :, ::-1])
    ]
    chunks.append(np.stack(chunk)[:, : len(faces) - start])
  embeddings = np.concatenate(chunks, axis=1)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_suffix(f".{os.getpid()}.tmp.npy")
  np.save(temporary, embeddings)
  os.replace(temporary, path)
  return embeddings
