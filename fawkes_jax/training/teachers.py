"""Embeddings that a student learns to predict, computed once for all crops.

A teacher is an extractor of the package, by its name or its file, or a file of
embeddings that were computed elsewhere.
"""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import jax
import numpy as np
import rich.console
import rich.progress
import safetensors
import safetensors.numpy
from jaxtyping import Float32, Int

from fawkes_jax import types
from fawkes_jax.models import architectures
from fawkes_jax.training import data, views
from fawkes_jax.weights import cache, catalogue, extractors

_BATCH = 32


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Teacher:
  """A teacher's embeddings of all crops.

  Attributes:
    name: the extractor's, or the file's without suffix.
    embeddings: of the crops plain and mirrored; raw. Zero where they were not
      asked for.
    identity: of the recogniser, see `catalogue.identity`; the name, where the
      embeddings come from a file.
    extractor: that computed them; None where they come from a file.
  """

  name: str
  embeddings: Float32[np.ndarray, "2 n d"]
  identity: str
  extractor: architectures.Extractor | None = None

  @property
  def looking(self) -> architectures.Extractor:
    """The extractor, for images that were not embedded before.

    Raises:
      FawkesError: there is none.
    """
    if self.extractor is None:
      raise types.FawkesError(
        "--teachers must be extractors with --student=twin or --cloaking above"
        f" 0, got the embeddings {self.name}"
      )
    return self.extractor

  @property
  def licence(self) -> str:
    """Of its weights."""
    record = catalogue.public().get(self.identity)
    return record.licence if record else "not stated"

  @property
  def source(self) -> str:
    """Where its weights come from."""
    record = catalogue.public().get(self.identity)
    return record.source if record else "not stated"

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
  rows: Int[np.ndarray, " k"] | None = None,
  console: rich.console.Console | None = None,
) -> Teacher:
  """Embeds crops, or reads what was embedded before.

  Args:
    teacher: what `load_extractor` takes, or a path ending in .npz or
      .safetensors. A file of embeddings has an array "embeddings" [2n, d]:
      the crops in their order, then all of them mirrored.
    faces: the crops.
    rows: which of them an extractor embeds; None for all.
    console: where progress is shown.

  Returns:
    The teacher.

  Raises:
    FawkesError: the teacher is unknown, its file is damaged, or does not fit
      the crops.
  """
  path = Path(teacher)
  if path.suffix in (".npz", ".safetensors"):
    result = Teacher(
      name=path.stem,
      embeddings=_stored(path, len(faces)),
      identity=path.stem,
    )
  else:
    try:
      extractor = extractors.load_extractor(teacher)
    except types.FawkesError as error:
      raise types.FawkesError(
        f"--teachers={teacher} must be an extractor, or embeddings in a file"
        f" that ends in .npz or .safetensors: {error}"
      ) from error
    if rows is None:
      rows = np.arange(len(faces))
    embeddings = _embed(extractor, faces, rows, console)
    result = Teacher(
      name=extractor.name,
      embeddings=embeddings,
      identity=catalogue.identity(teacher) or extractor.name,
      extractor=extractor,
    )
  if not np.isfinite(result.embeddings).all():
    raise types.FawkesError(
      f"--teachers must give finite embeddings, {teacher} does not"
    )
  return result


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


def _embed(
  extractor: architectures.Extractor,
  faces: data.Faces,
  rows: Int[np.ndarray, " k"],
  console: rich.console.Console | None,
) -> Float32[np.ndarray, "2 n d"]:
  """Embeds the crops with a network, unless the cache has it."""
  name, template = extractor.name, extractor.template
  weights = hashlib.sha256()
  for leaf in jax.tree.leaves(extractor.variables):
    weights.update(np.ascontiguousarray(leaf).data)
  key = [faces.digest, weights.hexdigest(), repr(extractor.module)]
  key += dataclasses.astuple(template)
  key += [hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()]
  digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
  path = cache.directory() / "training" / f"teacher-{name}-{digest}.npy"
  if path.is_file():
    return np.load(path)
  starts = range(0, len(rows), _BATCH)
  if console is not None:
    console.print(f"embedding {len(rows)} crops with {name}")
  chunks = []
  for start in (
    starts
    if console is None
    else rich.progress.track(starts, name, console=console)
  ):
    batch = np.resize(
      rows[start : start + _BATCH], _BATCH
    )  # One shape for all.
    plain = np.stack(
      [
        views.still(faces.crops[i], template, extractor.input_size)
        for i in batch
      ]
    )
    both = [extractor.embed(images) for images in (plain, plain[:, :, ::-1])]
    chunks.append(np.stack(both)[:, : len(rows) - start])
  embedded = np.concatenate(chunks, axis=1)
  embeddings = np.zeros((2, len(faces), embedded.shape[-1]), np.float32)
  embeddings[:, rows] = embedded
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_suffix(f".{os.getpid()}.tmp.npy")
  np.save(temporary, embeddings)
  os.replace(temporary, path)
  return embeddings
