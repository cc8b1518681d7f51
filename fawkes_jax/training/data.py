"""Faces to train on: found and aligned once, then read from the cache.

Of each photo the largest face is kept, as the square `geometry.CROP` of the
face frame.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import rich.console
import rich.progress
from jaxtyping import Bool, Float32, Int, Shaped, UInt8

from fawkes_jax import types
from fawkes_jax.faces import finder, identities, recognition
from fawkes_jax.imaging import geometry
from fawkes_jax.options import TrainOptions
from fawkes_jax.weights import cache

_DRAW = 0
"""Seed of the validation's identities: one split for all students."""

_VERSION = 1
"""Raised whenever the cached crops change."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Faces:
  """Aligned faces with their identities.

  Attributes:
    crops: uint8 [n, size, size, 3], RGB; a file that is read when needed.
    identities: [n], the index of each crop's identity in `names`.
    names: the names of the identities.
    photos: [n], the name of each crop's photo, below its identity's folder.
    missing: the photos that gave no crop, each with a reason.
    digest: of the source and the options; the same for the same crops.
  """

  crops: UInt8[np.ndarray, "n size size 3"]
  identities: Int[np.ndarray, " n"]
  names: tuple[str, ...]
  photos: tuple[str, ...]
  missing: tuple[str, ...]
  digest: str

  def __len__(self) -> int:
    return len(self.identities)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Split:
  """Which crops serve what; increasing indices without overlap.

  Attributes:
    training: to train on.
    validation: crops of other identities, on which the teachers' embeddings
      are predicted.
    held_out: crops of identities that no decision is made on; pairs of them
      and of the validation's are verified.
  """

  training: Int[np.ndarray, " a"]
  validation: Int[np.ndarray, " b"]
  held_out: Int[np.ndarray, " c"]


def load_faces(
  options: TrainOptions, *, console: rich.console.Console | None = None
) -> Faces:
  """Finds the faces of the source, or reads them from the cache.

  Args:
    options: the options of the run: its data, crop size and smallest face.
    console: where progress is shown; None shows none.

  Returns:
    The faces, by identity and photo.

  Raises:
    FawkesError: the source cannot be read, or has faces of fewer than two
      identities.
  """
  photos, fingerprint = identities.read_all(options.data, options.faces)
  key = [
    fingerprint(),
    options.crop_size,
    options.min_face_pixels and float(options.min_face_pixels),
    dataclasses.astuple(geometry.CROP),
    _VERSION,
  ]
  digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
  folder = cache.directory() / "training" / f"faces-{digest[:12]}"
  if not folder.is_dir():
    if console is not None:
      console.print(f"finding the faces of {len(photos)} photos")
    try:
      _build(folder, photos, options, console)
    except OSError as error:
      raise types.FawkesError(
        f"the crops must fit into the cache {folder.parent}: {error.strerror}"
      ) from error
  faces = _read(folder, digest)
  if len(faces.names) < 2:
    raise types.FawkesError(
      "--data must hold faces of two identities or more, got"
      f" {len(faces.names)} in {options.data}"
    )
  return faces


def split(faces: Faces, options: TrainOptions, names: frozenset[str]) -> Split:
  """Divides the faces by identity.

  Identities named in a file, and identities with many photos, are held out;
  of the others the validation's are drawn at random, always the same.

  Args:
    faces: to divide.
    options: the options of the run: the rule and the validation's share.
    names: of identities to hold out.

  Returns:
    Which crop serves what.

  Raises:
    FawkesError: fewer than two identities, or less than one batch, are left
      to train on.
  """
  counts = np.bincount(faces.identities, minlength=len(faces.names))
  held = np.array([name in names for name in faces.names])
  if options.holdout_min_photos:
    held |= counts >= options.holdout_min_photos
  rest = np.flatnonzero(~held)
  drawn = np.random.default_rng(_DRAW).permutation(rest)
  share = round(len(rest) * options.validation)
  validation = np.zeros(len(held), bool)
  validation[drawn[:share]] = True
  training = ~held & ~validation
  kept = int(counts[training].sum())
  if training.sum() < 2 or kept < options.batch_size:
    raise types.FawkesError(
      "--data must leave two identities and one batch of"
      f" {options.batch_size} photos to train on, got {training.sum()}"
      f" identities and {kept} photos ({held.sum()} identities are held out,"
      f" {share} serve validation)"
    )

  def rows(chosen: Bool[np.ndarray, " k"]) -> np.ndarray:
    return np.flatnonzero(chosen[faces.identities])

  return Split(
    training=rows(training), validation=rows(validation), held_out=rows(held)
  )


def read_names(path: Path) -> frozenset[str]:
  """Reads names of identities, one a line; empty lines do not count.

  Raises:
    FawkesError: the file cannot be read.
  """
  return frozenset(line for line in _lines(path, "holdout") if line)


def read_pairs(path: Path) -> list[tuple[bool, str, str]]:
  """Reads pairs of photos to verify.

  Args:
    path: lines of 1 (same person) or 0, a tab, a photo, a tab, a photo;
      photos end in IDENTITY/NAME.

  Returns:
    For each pair whether it is of one person, and both photos, IDENTITY/NAME.

  Raises:
    FawkesError: the file cannot be read, or a line is malformed.
  """
  pairs = []
  for number, line in enumerate(_lines(path, "pairs"), start=1):
    if not line:
      continue
    answer, *names = line.split("\t")
    if answer not in ("0", "1") or len(names) != 2:
      raise types.FawkesError(
        f"--pairs={path} must have lines of 0 or 1, tab, photo, tab, photo;"
        f" line {number} is {line!r}"
      )
    one, other = ("/".join(name.split("/")[-2:]) for name in names)
    pairs.append((answer == "1", one, other))
  return pairs


def pairs_of_crops(
  pairs: Sequence[tuple[bool, str, str]],
  faces: Faces,
  rows: Int[np.ndarray, " k"],
) -> Int[np.ndarray, "p 3"]:
  """The pairs of photos that crops may be used of.

  Args:
    pairs: of `read_pairs`.
    faces: among which the photos are looked up.
    rows: crops that may be used; other pairs are left out.

  Returns:
    1 for the same person, or 0, and two indices of crops a row.
  """
  allowed = set(rows.tolist())
  at = {
    f"{faces.names[identity]}/{photo}": i
    for i, (identity, photo) in enumerate(
      zip(faces.identities, faces.photos, strict=True)
    )
    if i in allowed
  }
  found = [
    [int(same), at[one], at[other]]
    for same, one, other in pairs
    if one in at and other in at
  ]
  return np.array(found, np.int64).reshape(-1, 3)


def _lines(path: Path, flag: str) -> list[str]:
  try:
    return path.read_text(encoding="utf-8").splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise types.FawkesError(
      f"--{flag} must be a text file, got {path}: {error}"
    ) from error


def _build(
  folder: Path,
  photos: Sequence[identities.Photo],
  options: TrainOptions,
  console: rich.console.Console | None,
) -> None:
  """Writes the crops of photos and their index; a folder appears whole."""
  networks = recognition.Recognition(options.faces)
  folder.parent.mkdir(parents=True, exist_ok=True)
  temporary = Path(
    tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent)
  )
  size = options.crop_size
  try:
    crops = np.lib.format.open_memmap(
      temporary / "crops.npy", "w+", np.uint8, (len(photos), size, size, 3)
    )
    found: list[tuple[str, str]] = []
    missing: list[str] = []
    for photo in _tracked(photos, console):
      try:
        if photo.landmarks is None:
          crop = largest_face(networks.finder, photo.load(), size)
        else:
          crop = face_at(photo.landmarks, photo.load(), size)
      except types.PhotoError as error:
        missing.append(f"{photo.identity}/{photo.name}: {error}")
        continue
      crops[len(found)] = crop
      found.append((photo.identity, photo.name))
    crops.flush()
    index = {"found": found, "missing": missing}
    (temporary / "index.json").write_text(json.dumps(index), encoding="utf-8")
    with contextlib.suppress(FileExistsError):
      os.rename(temporary, folder)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _tracked(
  photos: Sequence[identities.Photo], console: rich.console.Console | None
) -> Iterator[identities.Photo]:
  """The photos, with a bar where there is a console."""
  if console is None:
    return iter(photos)
  return iter(rich.progress.track(photos, "finding faces", console=console))


def largest_face(
  networks: finder.Finder,
  pixels: UInt8[np.ndarray, "height width 3"],
  size: int,
) -> UInt8[np.ndarray, "size size 3"]:
  """The crop of the largest face of a photo, whatever its resolution.

  Args:
    networks: find the face.
    pixels: the photo, RGB, upright.
    size: the side of the crop in pixels; smaller faces are enlarged.

  Returns:
    The square `geometry.CROP` of the face frame.

  Raises:
    PhotoError: no face is found.
  """
  faces = networks.find([pixels])[0]
  if not faces:
    raise types.PhotoError("no face found")
  whole = max(faces, key=lambda face: face.alignment.extent).alignment
  axis = whole.axis * whole.side / size
  half = (1 + 1j) / 2  # From a pixel's corner to its centre.
  crop = geometry.extract(
    pixels,
    geometry.Alignment(
      origin=whole.origin + (axis - whole.axis) * half, axis=axis, side=size
    ),
  )
  return np.rint(crop).astype(np.uint8)


def face_at(
  landmarks: Float32[np.ndarray, "5 2"],
  pixels: UInt8[np.ndarray, "height width 3"],
  size: int,
) -> UInt8[np.ndarray, "size size 3"]:
  """The crop of a face whose landmarks are known.

  Args:
    landmarks: of `geometry.ARCFACE_POINTS`, (x, y) in pixels of the photo.
    pixels: the photo, RGB, upright.
    size: the side of the crop in pixels.

  Returns:
    The square `geometry.CROP` of the face frame.

  Raises:
    PhotoError: all landmarks coincide.
  """
  try:
    alignment = geometry.align_arcface(landmarks, side=size)
  except ValueError as error:
    raise types.PhotoError(str(error)) from error
  crop = geometry.extract(pixels, alignment)
  return np.rint(crop).astype(np.uint8)


def _read(folder: Path, digest: str) -> Faces:
  """Reads what `_build` has written."""
  try:
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    crops: Shaped[np.ndarray, ...] = np.load(
      folder / "crops.npy", mmap_mode="r"
    )
    found = index["found"]
    names = sorted({identity for identity, _ in found})
    number = {name: i for i, name in enumerate(names)}
    return Faces(
      crops=crops[: len(found)],
      identities=np.array([number[name] for name, _ in found], np.int64),
      names=tuple(names),
      photos=tuple(photo for _, photo in found),
      missing=tuple(index["missing"]),
      digest=digest,
    )
  except (OSError, ValueError, KeyError) as error:
    raise types.FawkesError(
      f"the cached crops {folder} must be complete; delete it: {error}"
    ) from error
