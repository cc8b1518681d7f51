"""Finding and embedding the faces of photo files, for every command."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from fawkes_jax import types
from fawkes_jax.archive import scan
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.engine import embedder
from fawkes_jax.engine import mesh as mesh_lib
from fawkes_jax.faces import finder
from fawkes_jax.models import architectures
from fawkes_jax.options import FaceOptions, IndexOptions
from fawkes_jax.photos import codec
from fawkes_jax.photos.photo import Photo
from fawkes_jax.weights import builtin, cache, detectors, extractors
from fawkes_jax.xla import compiler

MAX_FILE_BYTES = 1 << 30
"""Files with more bytes are refused."""


CPU_FACES = 8
"""How many faces a CPU solves at once: more are no faster."""


class Recognition:
  """The networks that find and embed faces, and the devices they run on.

  Attributes:
    mesh: the devices.
    batch_size: faces that are solved at once.
    extractors: those of the options.
    finder: of faces.
    embedder: of their crops.
  """

  def __init__(
    self,
    options: FaceOptions,
    *,
    photos: int | None = None,
    loaded: Mapping[str, architectures.Extractor] | None = None,
  ):
    """Loads the weights; compiles nothing yet.

    Args:
      options: which networks, and how faces are found.
      photos: how many there are, where that is known. A CPU spends as
        much on a slot without a face as on one with a face; for few photos
        there are fewer slots, a power of two, so that few programs are
        compiled.
      loaded: by name, extractors of the options that need not be loaded.

    Raises:
      FawkesError: weights or the devices cannot be used.
    """
    self._options = options
    compiler.check_memory()
    compiler.require_devices()
    compiler.keep_programs(cache.directory() / "xla")
    self.mesh = mesh_lib.local_mesh()
    on_cpu = jax.default_backend() == "cpu"
    self.batch_size = self.slots(CPU_FACES if photos is None else photos)
    loaded = loaded or {}
    self.extractors = [
      loaded[name] if name in loaded else extractors.load_extractor(name)
      for name in options.extractors
    ]
    self.finder = finder.Finder(
      detector=detectors.load_detector(options.detector),
      landmark_model=(
        builtin.load_landmark_model()
        if options.detector == detectors.DLIB
        else None
      ),
      crop_size=options.crop_size,
      min_face_pixels=options.min_face_pixels,
    )
    # Few: the faces of one photo, which are measured when it is saved, would
    # fill no more.
    self.embedder = embedder.Embedder(
      self.extractors,
      batch_size=min(self.batch_size, 2 if on_cpu else 16),
      mesh=self.mesh,
    )

  def slots(self, faces: int) -> int:
    """How many faces are solved at once, where there are so many."""
    if self._options.batch_size:
      return self._options.batch_size
    if jax.default_backend() != "cpu":
      return 256 * self.mesh.size
    return min(1 << max(faces - 1, 0).bit_length(), CPU_FACES)

  def embed(
    self, faces: Sequence[finder.AlignedFace]
  ) -> dict[str, Float32[np.ndarray, "n d"]]:
    """The raw embeddings of faces, by extractor."""
    crops = np.stack([face.crop for face in faces])
    return self.embedder.embed(crops, sides(faces))

  def embed_pictures(
    self, pictures: UInt8[np.ndarray, "n size size 3"]
  ) -> dict[str, Float32[np.ndarray, "n d"]]:
    """The raw embeddings of aligned faces in pictures of any size.

    Args:
      pictures: RGB, the square `geometry.CROP`.

    Returns:
      By extractor.
    """
    side = self._options.crop_size
    crops = [
      np.asarray(Image.fromarray(picture).resize((side, side)), np.float32)
      for picture in pictures
    ]
    sides = np.full(len(crops), side, np.float32)
    return self.embedder.embed(np.stack(crops), sides)

  def mean_embedding(
    self, folder: Path, *, flag: str = "input"
  ) -> dict[str, Float32[np.ndarray, " d"]] | None:
    """The mean embedding of the largest face of each photo of an identity.

    Args:
      folder: photos of one person; files that are no photos are passed over.
      flag: that it comes from, for messages.

    Returns:
      By extractor, raw; None if no face was found.

    Raises:
      FawkesError: the folder cannot be read.
    """
    faces = []
    for source in scan.scan(folder, flag=flag):
      with contextlib.suppress(types.PhotoError):
        photo = load_photo(source, self._options)
        found = self.finder.find([photo.pixels])[0]
        if found:
          faces.append(max(found, key=lambda face: face.alignment.extent))
    if not faces:
      return None
    return {name: e.mean(axis=0) for name, e in self.embed(faces).items()}


def sides(faces: Sequence[finder.AlignedFace]) -> Float32[np.ndarray, " n"]:
  """The sides of faces' crops in pixels."""
  return np.array([face.alignment.side for face in faces], np.float32)


def read(source: SourceFile) -> bytes:
  """Reads a file of an archive.

  Raises:
    PhotoError: it cannot be read, or scanning has ruled it out.
  """
  return source.read(max_bytes=MAX_FILE_BYTES)


def load_photo(source: SourceFile, options: FaceOptions) -> Photo:
  """Reads and decodes a photo.

  Raises:
    PhotoError: it cannot be read or decoded.
  """
  return decode(read(source), options)


def decode(data: bytes, options: FaceOptions, *, again: bool = False) -> Photo:
  """Decodes a photo as the options say; raises PhotoError.

  Args:
    data: its file.
    options: of the run.
    again: whether it has been decoded before, see `codec.reopen`.
  """
  return (codec.reopen if again else codec.decode)(
    data,
    max_pixels=options.max_pixels,
    convert=isinstance(options, IndexOptions) and options.convert,
  )
