"""What is known of each recogniser, and where its files are.

`checkpoints/weights.toml` holds one record of each public one. What was fetched
or imported lies in the folder `weights` of the cache directory, under the name
that --surrogates takes; the package's own students lie in `checkpoints/`.
"""

import dataclasses
import functools
import hashlib
import tomllib
from pathlib import Path
from typing import Any

from fawkes_jax.weights import builtin, cache, variables
from fawkes_jax.weights import preprocessing as preprocessing_lib

SUFFIXES = (".safetensors", ".onnx", ".xml", ".params")
"""Of the files that can be loaded as an extractor."""

ONNX = "onnx"
"""The architecture of what runs as its ONNX file says."""

DETECTOR = "yunet"
"""The architecture of detectors of faces."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
  """A file of a recogniser.

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
class Recogniser:
  """What is known of a recogniser.

  Attributes:
    name: what --surrogates takes.
    architecture: a key of `architectures.ARCHITECTURES`, or `ONNX`.
    licence: of the weights.
    research_only: whether they may be used for research only.
    heavy: whether a CPU takes seconds for each step of a face.
    built_in: whether a plain install brings it.
    source: where the weights come from.
    lfw: accuracy on Labeled Faces in the Wild in percent, measured through the
      package's own crop; None where it was not.
    preprocessing: what the network in its files expects of an image; None
      where these are not in ONNX or OpenVINO.
    files: the first is the one to load; none for students of the package.
    also: sha256 of files that hold the same weights in another format.
  """

  name: str
  architecture: str
  licence: str
  research_only: bool = False
  heavy: bool = False
  built_in: bool = False
  source: str
  lfw: float | None = None
  preprocessing: preprocessing_lib.Preprocessing | None = None
  files: tuple[File, ...] = ()
  also: tuple[str, ...] = ()

  @property
  def finds_faces(self) -> bool:
    """Whether it is no recogniser but a detector of faces."""
    return self.architecture == DETECTOR

  @property
  def has_port(self) -> bool:
    """Whether the package has a module of its own for the network."""
    return self.architecture != ONNX

  @property
  def fetchable(self) -> bool:
    """Whether all its files have an address."""
    return bool(self.files) and all(file.address for file in self.files)


@functools.cache
def public() -> dict[str, Recogniser]:
  """The records of `checkpoints/weights.toml`, by name."""
  text = builtin.checkpoint("weights.toml").read_text()
  return {n: _record(n, table) for n, table in tomllib.loads(text).items()}


def _record(name: str, table: dict[str, Any]) -> Recogniser:
  given = table.pop("preprocessing", None)
  return Recogniser(
    name=name,
    files=tuple(File(**file) for file in table.pop("files", ())),
    also=tuple(table.pop("also", ())),
    preprocessing=given
    and preprocessing_lib.parse(given, f"weights.toml: {name}: "),
    **table,
  )


def students() -> dict[str, Path]:
  """The files of the students that travel with the package, by name."""
  return {
    path.stem: path
    for path in sorted(builtin.checkpoint("").glob("*.safetensors"))
    if variables.architecture(path) is not None
  }


def recognisers() -> dict[str, Recogniser]:
  """All that are known, by name: those that are built in come first."""
  known = list(public().values())
  own = [
    Recogniser(
      name=name,
      architecture=variables.architecture(path) or "",
      licence="Apache-2.0",
      built_in=True,
      source=f"fawkes-jax train, see checkpoints/{name}.md",
    )
    for name, path in students().items()
  ]
  records = [record for record in known if record.built_in] + own
  records += [record for record in known if not record.built_in]
  return {record.name: record for record in records}


def by_sha256(sha256: str) -> Recogniser | None:
  """The public recogniser that a file of this sha256 is, if there is one."""
  for record in public().values():
    if record.files and sha256 in (record.files[0].sha256, *record.also):
      return record
  return None


def folder() -> Path:
  """Where fetched and imported weights lie; it need not exist."""
  return cache.directory() / "weights"


def kept() -> dict[str, Path]:
  """The files in `folder` that can be loaded, by the extractor's name."""
  return {
    path.stem: path
    for path in sorted(folder().glob("*"))
    if path.suffix in SUFFIXES and path.stem not in _detectors()
  }


def _detectors() -> set[str]:
  """The names of the public detectors of faces."""
  return {name for name, record in public().items() if record.finds_faces}


def file_of(name: str) -> Path | None:
  """The file of a recogniser.

  Args:
    name: what --surrogates takes.

  Returns:
    The file, which need not exist; None for what a package brings or is not
    known.
  """
  if Path(name).suffix in SUFFIXES:
    return Path(name)
  return (kept() | students()).get(name)


def file_digest(path: Path) -> str:
  """The sha256 of a file, in hexadecimal.

  Raises:
    OSError: it cannot be read.
  """
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def identity(name: str) -> str | None:
  """What a recogniser is, whatever its file is called, and its format.

  Args:
    name: what --surrogates takes.

  Returns:
    The name of its record, else the sha256 of its file; None where there is no
    such file.
  """
  record = public().get(name)
  if record and record.built_in:
    return name
  if (path := file_of(name)) is None:
    return None
  try:
    sha256 = file_digest(path)
  except OSError:
    return None
  record = by_sha256(sha256)
  return record.name if record else sha256


def teachers(name: str) -> tuple[str, ...]:
  """Who taught a student of `fawkes-jax train`.

  Args:
    name: what --surrogates takes.

  Returns:
    Their identities; none for other recognisers.
  """
  path = file_of(name)
  if path is None or path.suffix != ".safetensors":
    return ()
  return variables.teachers(path)
