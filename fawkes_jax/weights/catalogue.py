"""Public recognisers that the package knows of, and where they are kept.

`checkpoints/weights.toml` lists them. What was fetched or imported lies in the
folder `weights` of the cache directory, under the name that --surrogates takes.
"""

import dataclasses
import functools
import tomllib
from pathlib import Path
from typing import Any

from fawkes_jax.weights import builtin, cache
from fawkes_jax.weights import preprocessing as preprocessing_lib

SUFFIXES = (".safetensors", ".onnx", ".xml", ".params")
"""Of the files that can be loaded as an extractor."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
  """A file of a model.

  Attributes:
    name: what it is called in `folder`.
    address: an https URL; None where it can only be imported.
    sha256: in hexadecimal.
    size: in bytes; None where it is not known.
  """

  name: str
  address: str | None = None
  sha256: str
  size: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
  """A public recogniser.

  Attributes:
    name: what --surrogates takes.
    architecture: a key of `architectures.ARCHITECTURES`, or "onnx".
    licence: of the weights.
    research_only: whether they may be used for research only.
    source: where they come from.
    lfw: accuracy on Labeled Faces in the Wild in percent, measured through the
      package's own crop; None where it was not.
    preprocessing: what an ONNX network expects; None where the package has a
      port.
    files: the first is the one to load; none for what is built in.
    also: sha256 of files that hold the same weights in another format.
  """

  name: str
  architecture: str
  licence: str
  research_only: bool = False
  source: str
  lfw: float | None = None
  preprocessing: preprocessing_lib.Preprocessing | None = None
  files: tuple[File, ...] = ()
  also: tuple[str, ...] = ()

  @property
  def fetchable(self) -> bool:
    """Whether all its files have an address."""
    return bool(self.files) and all(file.address for file in self.files)


@functools.cache
def models() -> dict[str, Model]:
  """The list of `checkpoints/weights.toml`, by name."""
  text = builtin.checkpoint("weights.toml").read_text()
  return {n: _model(n, table) for n, table in tomllib.loads(text).items()}


def _model(name: str, table: dict[str, Any]) -> Model:
  given = table.pop("preprocessing", None)
  files = tuple(File(**file) for file in table.pop("files", ()))
  also = tuple(table.pop("also", ()))
  return Model(
    name=name,
    files=files,
    also=also,
    preprocessing=given
    and preprocessing_lib.parse(given, f"weights.toml: {name}: "),
    **table,
  )


def by_sha256(sha256: str) -> Model | None:
  """The model that a file of this sha256 is, if there is one."""
  for model in models().values():
    if model.files and sha256 in (model.files[0].sha256, *model.also):
      return model
  return None


def folder() -> Path:
  """Where fetched and imported weights lie; it need not exist."""
  return cache.directory() / "weights"


def kept() -> dict[str, Path]:
  """The files in `folder` that can be loaded, by the extractor's name."""
  return {
    path.stem: path
    for path in sorted(folder().glob("*"))
    if path.suffix in SUFFIXES
  }
