"""Small pictures of faces and photos, before and after they were cloaked."""

import collections
import dataclasses
import hashlib
import io
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fawkes_jax import types
from fawkes_jax.archive import files, manifest, scan, storage
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.photos import codec
from fawkes_jax.reporting import gathering
from fawkes_jax.runs.failures import one_photo

GAIN = 8
"""How much stronger a change is shown than it is."""
_FACE = 224
_PHOTO = 240
"""The largest sides of pictures, in pixels."""
_AROUND = 1.5
"""The side of the square around a face, in sides of its box."""
_MAX_BYTES = 1 << 28
_MAX_PIXELS = 64_000_000
"""Larger files and photos are not read for a picture."""


@dataclasses.dataclass(kw_only=True)
class FacePictures:
  """A face; each picture is the bytes of a JPEG, or None.

  Attributes:
    before: as the source shows it.
    after: as the result shows it.
    change: what the cloak has added, `GAIN` times, on grey.
    missing: why a picture is None, in words.
  """

  before: bytes | None = None
  after: bytes | None = None
  change: bytes | None = None
  missing: list[str] = dataclasses.field(default_factory=list)


class Pictures:
  """Pictures of the photos of a run, read one photo after another.

  Attributes:
    faces: by `Face.key`.
    photos: by the path of a row, the bytes of a JPEG; or why there is none.
  """

  def __init__(self, store: storage.Store, source: scan.Addresses | None):
    """Begins with no picture.

    Args:
      store: the output folder.
      source: the address of the input; None where it is not known.
    """
    self._store = store
    self._source = source
    self.faces: dict[tuple[str, int], FacePictures] = {}
    self.photos: dict[str, bytes | str] = {}

  def load(
    self,
    faces: Iterable[gathering.Face],
    photos: Iterable[manifest.Row],
    progress: Callable[[int, int], None] = lambda done, total: None,
  ) -> None:
    """Reads the photos that are needed, each once.

    Args:
      faces: get pictures of themselves.
      photos: rows of photos that get a picture of the whole.
      progress: is told how many photos have been read, and of how many.

    Raises:
      types.FawkesError: the input cannot be listed.
    """
    rows: dict[str, manifest.Row] = {}
    wanted: dict[str, set[int]] = collections.defaultdict(set)
    whole = {row.path: row for row in photos}
    for face in faces:
      rows[face.row.path] = face.row
      wanted[face.row.path].add(face.index)
    rows |= whole
    total = len(rows)

    def read(row: manifest.Row, entry: SourceFile | None) -> None:
      if indices := wanted.get(row.path):
        self._read_faces(row, entry, sorted(indices))
      if row.path in whole:
        self._read_photo(row, entry)
      progress(total - len(rows), total)

    if self._source is not None and rows:
      for entry in scan.scan(self._source):
        if (row := rows.pop(entry.name, None)) is not None:
          read(row, entry)
          if not rows:
            break
    for path in list(rows):
      read(rows.pop(path), None)

  def _read_faces(
    self, row: manifest.Row, entry: SourceFile | None, indices: list[int]
  ) -> None:
    missing: list[str] = []
    before = self._try("before", missing, lambda: self._before(row, entry))
    after = None
    if row.output_sha256 is not None:
      after = self._try("after", missing, lambda: self._after(row))
    if before is not None and after is not None and before.shape != after.shape:
      missing.append("before and after are of different sizes")
      before = None
    for index in indices:
      face = FacePictures(missing=missing)
      self.faces[row.path, index] = face
      for pixels in before, after:
        if pixels is not None:
          box = _around(row.faces[index].get("box"), pixels.shape)
          part = np.s_[box[1] : box[3], box[0] : box[2]]
      if before is not None:
        face.before = _jpeg(before[part], _FACE)
      if after is not None:
        face.after = _jpeg(after[part], _FACE)
      if before is not None and after is not None:
        face.change = _jpeg(_amplified(before[part], after[part]), _FACE)

  def _read_photo(self, row: manifest.Row, entry: SourceFile | None) -> None:
    missing: list[str] = []
    pixels = self._try(
      "it",
      missing,
      lambda: (
        self._after(row) if row.output_sha256 else self._before(row, entry)
      ),
    )
    self.photos[row.path] = (
      missing[0] if pixels is None else _jpeg(pixels, _PHOTO)
    )

  def _try(
    self,
    what: str,
    missing: list[str],
    load: Callable[[], UInt8[np.ndarray, "h w 3"]],
  ) -> UInt8[np.ndarray, "h w 3"] | None:
    """Pixels; where they cannot be had, it is noted why."""
    try:
      with one_photo("showing it"):
        return load()
    except types.PhotoError as error:
      missing.append(f"{what} cannot be shown: {error}")
      return None

  def _before(
    self, row: manifest.Row, entry: SourceFile | None
  ) -> UInt8[np.ndarray, "h w 3"]:
    if entry is None:
      if self._source is None:
        raise types.PhotoError("--input was not given")
      raise types.PhotoError("the photo is no longer in the input")
    data = entry.read(max_bytes=_MAX_BYTES)
    if row.source_sha256 != hashlib.sha256(data).hexdigest():
      raise types.PhotoError("the photo has been altered since")
    return _pixels(data)

  def _after(self, row: manifest.Row) -> UInt8[np.ndarray, "h w 3"]:
    try:
      if (place := row.place) is not None:
        data = self._store.read_part(place.tar, place.offset, place.size)
      else:
        data = self._store.read(files.from_printable(row.output or row.path))
    except OSError as error:
      raise types.PhotoError(
        f"the result cannot be read: {files.reason(error)}"
      ) from error
    if row.output_sha256 != hashlib.sha256(data).hexdigest():
      raise types.PhotoError("the result has been altered since")
    return _pixels(data)


def _pixels(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
  return codec.decode(data, max_pixels=_MAX_PIXELS, convert=True).pixels


def _around(box: list | None, shape: tuple[int, ...]) -> tuple[int, ...]:
  """A square around a face that lies in the photo; without a box, all of it.

  Args:
    box: left, top, right, bottom.
    shape: height and width of the photo first.
  """
  height, width = shape[:2]
  if box is None:
    return 0, 0, width, height
  left, top, right, bottom = box
  side = round(_AROUND * max(right - left, bottom - top, 1))
  across, down = min(side, width), min(side, height)
  x = min(max(round((left + right - across) / 2), 0), width - across)
  y = min(max(round((top + bottom - down) / 2), 0), height - down)
  return x, y, x + across, y + down


def _amplified(
  before: UInt8[np.ndarray, "h w 3"], after: UInt8[np.ndarray, "h w 3"]
) -> UInt8[np.ndarray, "h w 3"]:
  change = after.astype(np.int16) - before
  return np.clip(128 + GAIN * change, 0, 255).astype(np.uint8)


def _jpeg(pixels: UInt8[np.ndarray, "h w 3"], side: int) -> bytes:
  """Pixels, shrunk to a side where they are larger."""
  picture = Image.fromarray(np.ascontiguousarray(pixels))
  picture.thumbnail((side, side), Image.Resampling.LANCZOS)
  file = io.BytesIO()
  picture.save(file, "jpeg", quality=88, subsampling=0, optimize=True)
  return file.getvalue()
