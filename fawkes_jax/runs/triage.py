"""Which files are looked at for faces, and what becomes of the others."""

import dataclasses
import functools
import hashlib
import io
import os
from collections.abc import Callable, Sequence

from fawkes_jax import types
from fawkes_jax.archive import manifest, others, storage
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.faces import recognition
from fawkes_jax.options import CloakOptions, FaceOptions
from fawkes_jax.photos import codec
from fawkes_jax.photos.photo import Photo
from fawkes_jax.runs import outcomes
from fawkes_jax.runs.copying import Copier
from fawkes_jax.runs.failures import one_photo
from fawkes_jax.runs.ledger import Ledger
from fawkes_jax.runs.waves import Ready

# Files of other kinds lie in photo folders without harm; a file with one of
# these names that is not an image is damaged.
_PHOTO_SUFFIXES = frozenset(
  f".{kind}"
  for kind in (
    *("3fr", "arw", "avif", "avifs", "bmp", "cr2", "cr3", "crw", "dcr", "dib"),
    *("dng", "erf", "gif", "heic", "heif", "hif", "ico", "iiq", "j2k", "jfif"),
    *("jp2", "jpe", "jpeg", "jpf", "jpg", "jpx", "jxl", "kdc", "mef", "mos"),
    *("mpo", "mrw", "nef", "nrw", "orf", "pbm", "pef", "pgm", "png", "pnm"),
    *("ppm", "psb", "psd", "raf", "raw", "rw2", "rwl", "sr2", "srf", "srw"),
    *("tga", "tif", "tiff", "webp", "x3f"),
  )
)

_FOREIGN = (
  "another file of its name is in the output, and stays: move it away, or"
  " choose another output"
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
  """A decoded photo and its file's digest."""

  photo: Photo
  sha256: str

  @property
  def nbytes(self) -> int:
    """How many bytes its pixels have."""
    return self.photo.nbytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
  """The digest of a photo whose faces are known: it need not be decoded."""

  sha256: str


def is_photo_name(name: str | os.PathLike) -> bool:
  """Whether a file of the name is a photo, or a damaged one."""
  return os.path.splitext(name)[1].lower() in _PHOTO_SUFFIXES


def read(
  source: SourceFile,
  options: FaceOptions,
  *,
  known: Callable[[str], bool] = lambda sha256: False,
) -> Ready[Loaded | types.PhotoError] | Known | types.PhotoError:
  """Reads the file of a photo.

  Args:
    source: its file.
    options: how it is decoded.
    known: whether it need not be decoded, by its sha256.

  Returns:
    The photo to be decoded; or the error that says why it cannot be read.
  """
  try:
    with one_photo("reading it"):
      data = recognition.read(source)
  except types.PhotoError as error:
    return error
  sha256 = hashlib.sha256(data).hexdigest()
  if known(sha256):
    return Known(sha256=sha256)
  return Ready(
    pixels=codec.count_pixels(data),
    decode=functools.partial(_decoded, data, sha256, options),
  )


def _decoded(
  data: bytes, sha256: str, options: FaceOptions
) -> Loaded | types.PhotoError:
  """A decoded photo, or the error that says why there is none."""
  try:
    with one_photo("decoding it"):
      return Loaded(photo=recognition.decode(data, options), sha256=sha256)
  except types.PhotoError as error:
    return error


class Triage:
  """Reads files, unless there is nothing left to do for them.

  Threads may read at the same time.
  """

  def __init__(
    self,
    options: CloakOptions,
    store: storage.Store,
    known: Callable[[str], manifest.Row | None],
    foreign: Callable[[str], bool],
    copier: Copier,
    ledger: Ledger,
    has_faces: Callable[[str], bool],
  ):
    """Reads nothing yet.

    Args:
      options: of the run.
      store: the output folder.
      known: gives the row that a file had, by its name.
      foreign: whether a file of the output is not of a run, by its name.
      copier: of files that are no photos.
      ledger: where outcomes come from.
      has_faces: whether a photo is known to have faces, by its sha256.
    """
    self._options = options
    self._has_faces = has_faces
    self._store = store
    self._known = known
    self._foreign = foreign
    self._copier = copier
    self._ledger = ledger
    self._config = options.fingerprint()
    # The files that are read at a time, and the new names of all that were
    # converted.
    self._names: frozenset[str] = frozenset()
    self._converted: set[str] = set()

  def begin(self, some: Sequence[SourceFile]) -> None:
    """Tells which files are read next."""
    self._names = frozenset(source.relative for source in some)

  def read(
    self, source: SourceFile
  ) -> Ready[Loaded | outcomes.Outcome] | Known | outcomes.Outcome:
    """Reads a photo's file, unless there is nothing left to do for it."""
    if (refused := self._refused(source)) is not None:
      return refused
    sha256 = None
    try:
      if (large := self._large(source)) is not None:
        return large
      with one_photo("reading it"):
        data = recognition.read(source)
      sha256 = hashlib.sha256(data).hexdigest()
      if (settled := self._settled(source, sha256)) is not None:
        return settled
    except types.PhotoError as error:
      return self._ledger.failure(source, error, source_sha256=sha256)
    if self._has_faces(sha256):
      return Known(sha256=sha256)
    return self._ready(source, data, sha256)

  def read_to_cloak(
    self, source: SourceFile
  ) -> Ready[Loaded | outcomes.Outcome] | outcomes.Outcome:
    """Reads the file of a photo whose faces are known.

    It has been decoded before: what comes of it is opened again, see
    `codec.reopen`.
    """
    try:
      with one_photo("reading it"):
        data = recognition.read(source)
    except types.PhotoError as error:
      return self._ledger.failure(source, error)
    sha256 = hashlib.sha256(data).hexdigest()
    return self._ready(source, data, sha256, again=self._has_faces(sha256))

  def _ready(
    self, source: SourceFile, data: bytes, sha256: str, *, again: bool = False
  ) -> Ready[Loaded | outcomes.Outcome]:
    return Ready(
      pixels=codec.count_pixels(data),
      decode=functools.partial(self._decode, source, data, sha256, again=again),
    )

  def _decode(
    self, source: SourceFile, data: bytes, sha256: str, *, again: bool
  ) -> Loaded | outcomes.Outcome:
    """Decodes a photo, or says what else its file is."""
    try:
      with one_photo("decoding it"):
        photo = recognition.decode(data, self._options, again=again)
      self._check_name(source, photo)
      return Loaded(photo=photo, sha256=sha256)
    except types.OtherFileError as error:
      if source.suffix in _PHOTO_SUFFIXES:
        return self._ledger.failure(source, error, source_sha256=sha256)
      return self._copier.other(source, str(error), sha256, io.BytesIO(data))
    except types.PhotoError as error:
      return self._ledger.failure(source, error, source_sha256=sha256)

  def _refused(self, source: SourceFile) -> outcomes.Outcome | None:
    """The outcome of a file that is not to be read at all."""
    if source.status is not None:
      return self._ledger.entry(source, source.status, source.reason)
    if source.relative.partition("/")[0] in manifest.RESERVED:
      reason = "its name is that of the manifest"
      return self._ledger.entry(source, "skipped", reason)
    if source.address and storage.within(source.address, self._options.output):
      return self._ledger.entry(source, "failed", "it lies in the output")
    return None

  def _large(self, source: SourceFile) -> outcomes.Outcome | None:
    """The outcome of a large file that is no photo, such as a video."""
    path = source.path
    if path is None or source.suffix in _PHOTO_SUFFIXES:
      return None
    try:
      if not path.is_file() or path.stat().st_size < others.LARGE:
        return None
      with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
      return None  # Reading it says why.
    if others.image_kind(path) is not None:
      return None
    settled = self._settled(source, sha256)
    return settled or self._copier.other(source, "not an image", sha256, path)

  def _settled(
    self, source: SourceFile, sha256: str
  ) -> outcomes.Outcome | None:
    """The outcome of a file for which nothing is left to do, or can be."""
    row = self._known(source.name)
    why = manifest.why_unfinished(
      row, self._store, source_sha256=sha256, config=self._config
    )
    if why == "failed before" and not self._options.retry_failed:
      why = None
    if row is not None and row.status == "skipped" and why is None:
      why = "left out before" if self._options.copies_others else None
    in_the_way = row is not None and row.reason == _FOREIGN
    if in_the_way or why == "new":
      if self._is_in_the_way(source.relative):
        return self._ledger.entry(
          source, "failed", _FOREIGN, source_sha256=sha256
        )
      why = "failed before" if in_the_way else why
    if why is None:
      assert row is not None
      return outcomes.Outcome(row=row, fresh=False)
    if why != "new":
      self._ledger.redo(source, why)
    return None

  def _is_in_the_way(self, name: str) -> bool:
    """Whether a file that is no result would be replaced by one."""
    return self._options.output_format == "tree" and self._foreign(name)

  def _check_name(self, source: SourceFile, photo: Photo) -> None:
    """Makes sure that no two files of the input become one.

    A converted one comes first, as its name is the beginning of the other's.

    Raises:
      PhotoError: they would.
    """
    if photo.suffix:
      row = self._known(source.name + photo.suffix)
      taken = row is not None and row.output_sha256 and row.output is None
      if taken or source.relative + photo.suffix in self._names:
        raise types.PhotoError(
          f"converted, its name would be that of {source.name}{photo.suffix}"
        )
      if self._is_in_the_way(source.relative + photo.suffix):
        raise types.PhotoError(_FOREIGN)
      self._converted.add(source.name + photo.suffix)
    else:
      other = source.name[: len(source.name) - len(source.suffix)]
      row = self._known(other)
      before = row is not None and row.output == source.name
      if before or source.name in self._converted:
        raise types.PhotoError(f"its name is that of {other}, converted")
