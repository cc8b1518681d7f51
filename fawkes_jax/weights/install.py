"""Installs recognisers, so that `load_extractor` finds them by name."""

import contextlib
import dataclasses
import functools
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fawkes_jax import types
from fawkes_jax.models import architectures
from fawkes_jax.weights import catalogue, download, extractors
from fawkes_jax.weights import preprocessing as preprocessing_lib

_CONVERT = (
  "it is not read, because unpickling runs what a file says; convert it where"
  " PyTorch is installed: safetensors.torch.save_file(torch.load(FILE,"
  ' map_location="cpu", weights_only=True), "NAME.safetensors")'
)

_PICKLES = (".pt", ".pth", ".pkl", ".ckpt", ".bin", ".npy", ".npz", ".tar")


def fetch(
  name: str,
  *,
  mirror: str | None = None,
  accept_research_licence: bool = False,
  report: Callable[[str, int, int | None], None] = lambda *_: None,
) -> bool:
  """Downloads a public recogniser, so that its name can be used.

  Args:
    name: of `catalogue.public`.
    mirror: a URL under which the files lie by the names that they have here,
      instead of their own addresses.
    accept_research_licence: that weights for research only are wanted.
    report: gets a file's name, how many of its bytes there are, and there
      will be where it is known.

  Returns:
    Whether anything had to be downloaded.

  Raises:
    FawkesError: the name is unknown, its files have no address, its licence
      was not accepted, or a download failed.
  """
  record = _wanted(name, mirror, accept_research_licence)
  _write_preprocessing(record)
  fresh = False
  # The first file is the one that is looked for: it comes last.
  for file in reversed(record.files):
    path = catalogue.folder() / file.name
    if path.exists() and catalogue.file_digest(path) == file.sha256:
      continue
    fresh = True
    address = f"{mirror.rstrip('/')}/{file.name}" if mirror else file.address
    assert address is not None
    download.fetch(
      address,
      path,
      sha256=file.sha256,
      report=functools.partial(report, file.name),
    )
  return fresh


def _wanted(
  name: str, mirror: str | None, accept_research_licence: bool
) -> catalogue.Recogniser:
  """The recogniser to fetch, or the reason why not."""
  known = catalogue.public()
  record = known.get(name)
  if record is None:
    fetchable = [r.name for r in known.values() if r.fetchable]
    raise types.FawkesError(
      f"fetch must name one of {', '.join(fetchable)}, got {name}"
    )
  if record.built_in:
    raise types.FawkesError(f"{name} is built in: there is nothing to fetch")
  if not (record.fetchable or mirror):
    raise types.FawkesError(
      f"{name} has no address to be fetched from ({record.source}): fawkes-jax"
      f" weights import FILE --name={name}"
    )
  if record.research_only and not accept_research_licence:
    raise types.FawkesError(
      f"{name} may be used for research only ({record.licence}):"
      " --accept_research_licence must be given"
    )
  return record


def _write_preprocessing(record: catalogue.Recogniser) -> None:
  """Writes the preprocessing beside an ONNX file that has no port."""
  if record.has_port or record.preprocessing is None:
    return
  path = (catalogue.folder() / record.files[0].name).with_suffix(".toml")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(record.preprocessing.text)
  except OSError as error:
    raise types.FawkesError(
      f"{path} cannot be written: {error.strerror}"
    ) from error


def add(
  file: Path,
  *,
  name: str | None = None,
  architecture: str | None = None,
  preprocessing: Mapping[str, Any] | None = None,
) -> architectures.Extractor:
  """Imports a recogniser from a file of one's own, after trying it.

  Args:
    file: .onnx, .xml with its .bin beside it, or .safetensors; it is copied.
    name: for --surrogates; None for the name of the public model
      that it is, else for the file's.
    architecture: a key of `architectures.ARCHITECTURES` that it must be of, or
      "onnx"; None for any.
    preprocessing: what an ONNX network expects, by the attributes of
      `preprocessing.Preprocessing`; None for the TOML file beside it, if there
      is one.

  Returns:
    The extractor.

  Raises:
    FawkesError: the file is of another kind, damaged, or not what it should
      be; the name is taken; or the folder cannot be written.
  """
  _require_format(file)
  try:
    sha256 = catalogue.file_digest(file)
  except OSError as error:
    raise types.FawkesError(
      f"{file} must be readable: {error.strerror}"
    ) from error
  known = catalogue.by_sha256(sha256)
  name = name or (known.name if known else _safe(file.stem))
  _require_name(name, file, sha256)
  with _beside(catalogue.folder()) as draft:
    copy = draft / f"{name}{file.suffix}"
    _copy(file, copy)
    if known:
      _require_files(file, copy, known)
    if file.suffix == ".onnx":
      expected = _expected(file, known, preprocessing)
      copy.with_suffix(".toml").write_text(expected.text)
    elif preprocessing:
      flags = ", ".join(f"--{key}" for key in preprocessing)
      raise types.FawkesError(
        f"{flags} must be left out for what is not ONNX, got {file}"
      )
    extractor = extractors.load_extractor(str(copy))
    _require_faces(file, extractor, architecture)
    # The file that is looked for by name comes last.
    for path in sorted(draft.iterdir(), key=lambda path: path == copy):
      path.replace(catalogue.folder() / path.name)
  return dataclasses.replace(extractor, name=name)


def _require_format(file: Path) -> None:
  """Only what is read without running anything is taken."""
  if file.suffix in catalogue.SUFFIXES:
    return
  rule = f"{file} must end in {', '.join(catalogue.SUFFIXES)}"
  if file.suffix in _PICKLES:
    raise types.FawkesError(f"{rule}: {_CONVERT}")
  raise types.FawkesError(rule)


def _require_name(name: str, file: Path, sha256: str) -> None:
  """Refuses names that could not be used, or would hide another extractor."""
  if name != _safe(name):
    raise types.FawkesError(
      f"--name must be of letters, digits, - and _, got {name}"
    )
  record = catalogue.recognisers().get(name)
  if record and record.built_in:
    raise types.FawkesError(
      f"--name must not be that of an extractor of the package, got {name}"
    )
  if record and catalogue.by_sha256(sha256) != record:
    raise types.FawkesError(
      f"{file}: the sha256 of {name} must be {record.files[0].sha256}, got"
      f" {sha256}; another file needs another --name"
    )
  taken = catalogue.kept().get(name)
  if taken:
    raise types.FawkesError(
      f"--name must be new, got {name}, which is {taken}; delete that first"
    )


def _expected(
  file: Path,
  known: catalogue.Recogniser | None,
  given: Mapping[str, Any] | None,
) -> preprocessing_lib.Preprocessing:
  """The preprocessing of an ONNX file."""
  if given:
    return preprocessing_lib.parse(given, "--")
  beside = file.with_suffix(".toml")
  if beside.exists():
    return preprocessing_lib.read(beside)
  return (known and known.preprocessing) or preprocessing_lib.Preprocessing()


def _require_files(file: Path, copy: Path, known: catalogue.Recogniser) -> None:
  """Checks the files beside the first one of a public model."""
  for other in known.files[1:]:
    suffix = Path(other.name).suffix
    digest = catalogue.file_digest(copy.with_suffix(suffix))
    if digest != other.sha256:
      raise types.FawkesError(
        f"{file.with_suffix(suffix)}: the sha256 must be {other.sha256}, got"
        f" {digest}"
      )


def _require_faces(
  file: Path, extractor: architectures.Extractor, architecture: str | None
) -> None:
  """Tries an extractor on a grey and a random image."""
  of = architectures.architecture_of(extractor.module) or catalogue.ONNX
  if architecture not in (None, of):
    raise types.FawkesError(
      f"{file} must be of --architecture={architecture}, it is of {of}"
    )
  size = extractor.input_size
  images = np.full((2, size, size, 3), 128, np.float32)
  images[1] = np.random.default_rng(0).uniform(0, 255, images[1].shape)
  grey, random = extractor.embed(images)
  if not np.isfinite([grey, random]).all() or np.array_equal(grey, random):
    raise types.FawkesError(
      f"{file} must give finite embeddings that differ between images"
    )


def _copy(file: Path, copy: Path) -> None:
  try:
    shutil.copyfile(file, copy)
    if file.suffix == ".xml":
      shutil.copyfile(file.with_suffix(".bin"), copy.with_suffix(".bin"))
  except OSError as error:
    raise types.FawkesError(
      f"{file} must be readable: {error.strerror}"
    ) from error


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
  """A temporary folder on the same disk."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    draft = tempfile.TemporaryDirectory(prefix=".import-", dir=folder)
  except OSError as error:
    raise types.FawkesError(
      f"{folder} cannot be written: {error.strerror}"
    ) from error
  with draft as path:
    yield Path(path)


def _safe(name: str) -> str:
  """A name without what would mean something in --surrogates."""
  return re.sub(r"[^A-Za-z0-9_-]", "_", name)
