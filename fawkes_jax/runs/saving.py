"""Saves cloaked photos: within the budget, and measured on what was saved."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from fawkes_jax import types
from fawkes_jax.archive import files, results
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.engine import executor
from fawkes_jax.faces import cloaker as cloaker_lib
from fawkes_jax.faces import finder, fitting, recognition
from fawkes_jax.imaging import geometry
from fawkes_jax.options import CloakOptions
from fawkes_jax.photos import codec
from fawkes_jax.photos.photo import Photo

# A finer encoding is tried where a face gets less than this part of its
# change, and taken where that makes it so many times as large.
_STRONG = 0.6
_WORTHWHILE = 1.25


@dataclasses.dataclass(kw_only=True, eq=False)
class Job:
  """A photo with faces on its way through the solver.

  Attributes:
    source: its file.
    sha256: of the file.
    grey: whether it is greyscale.
    jpeg_tables: of the file, see `Photo`.
    smallest_face: that was looked for, see `Row`.
    faces: found in it.
    raw: by extractor, their embeddings.
    own: the same, normalised.
    target_names: of each face's target.
    solutions: by the index of the face.
    started: when the first face went to the solver.
  """

  source: SourceFile
  sha256: str
  grey: bool
  jpeg_tables: np.ndarray | None
  smallest_face: float
  faces: list[finder.AlignedFace]
  raw: dict[str, np.ndarray]
  own: dict[str, np.ndarray]
  target_names: list[str] = dataclasses.field(default_factory=list)
  solutions: dict[int, executor.Solution] = dataclasses.field(
    default_factory=dict
  )
  started: float = 0.0


class UnprotectedError(types.PhotoError):
  """No face of a photo could be protected.

  Attributes:
    faces: what was measured, as in `Saved`.
  """

  def __init__(self, message: str, faces: tuple[dict, ...]):
    super().__init__(message)
    self.faces = faces


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Saved:
  """A cloaked photo, as it was read back from the disk.

  Attributes:
    sha256: of the file.
    place: of the file in a tar file, or None.
    faces: for its row.
    reason: which faces are not protected, and why, and what a conversion
      kept; None where there is nothing to say.
    suffix: of the file's name, see `Photo.suffix`.
    lost: in words, what the input has and the file has not.
    names: whether its metadata say who is on it.
  """

  sha256: str
  place: results.Place | None
  faces: tuple[dict, ...]
  reason: str | None
  suffix: str
  lost: tuple[str, ...]
  names: bool


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Attempt:
  """A way to encode a photo.

  Attributes:
    data: the file.
    pixels: that it is decoded to.
    crops: of its faces.
    dssim: the DSSIM of each face, or what another budget measures.
    scales: of the changes, by face.
    lost: in words, what of the photo is not in it.
    weakest: the smallest scale of a face that the solver has changed.
  """

  data: bytes
  pixels: np.ndarray
  crops: np.ndarray
  dssim: np.ndarray
  scales: np.ndarray
  lost: tuple[str, ...]
  weakest: float


class Saver:
  """Makes files of solved photos; threads may share it."""

  def __init__(
    self,
    options: CloakOptions,
    cloaker: cloaker_lib.Cloaker,
    kept: results.Results,
  ):
    self._options = options
    self._cloaker = cloaker
    self._results = kept

  def write(
    self, source: SourceFile, data: bytes, suffix: str = ""
  ) -> results.Place | None:
    """Writes a result, see `Photo.suffix`; raises PhotoError."""
    try:
      return self._results.write(
        source.relative + suffix, data, source.stamped()
      )
    except OSError as error:
      raise types.PhotoError(
        f"{source.name} cannot be written: {files.reason(error)}"
      ) from error

  def copy(self, source: SourceFile, path: Path) -> results.Place | None:
    """Writes a file of this machine as it is; raises PhotoError."""
    try:
      return self._results.write_file(source.relative, path, source.stamped())
    except OSError as error:
      raise types.PhotoError(
        f"{source.name} cannot be written: {files.reason(error)}"
      ) from error

  def save(self, job: Job) -> Saved:
    """Saves a cloaked photo and reads it back from the disk.

    Raises:
      UnprotectedError: no face of it could be protected; nothing is written.
      PhotoError: it cannot be saved.
    """
    options = self._options
    data = recognition.read(job.source)
    if hashlib.sha256(data).hexdigest() != job.sha256:
      raise types.PhotoError("changed while it was being cloaked")
    photo = recognition.decode(data, options)
    attempt, faces = self._best(job, photo)
    unprotected = [face["unprotected"] for face in faces if _is_bare(face)]
    if len(unprotected) == len(faces):
      raise UnprotectedError(
        f"{_counted(len(faces), len(faces))} left unprotected, nothing is"
        f" written: {unprotected[0]}",
        faces,
      )
    place = self.write(job.source, attempt.data, photo.suffix)
    try:
      written = self._results.read(job.source.relative + photo.suffix, place)
    except OSError as error:
      raise types.PhotoError(
        f"the result cannot be read: {files.reason(error)}"
      ) from error
    if written != attempt.data:
      raise types.PhotoError("the result is not what was written")
    reason = photo.note
    if unprotected:
      which = _counted(len(unprotected), len(faces))
      bare = f"{which} left unprotected: {unprotected[0]}"
      reason = f"{bare}; {reason}" if reason else bare
    return Saved(
      sha256=hashlib.sha256(written).hexdigest(),
      place=place,
      faces=faces,
      reason=reason,
      suffix=photo.suffix,
      lost=attempt.lost,
      names=not options.strip_names and codec.names_people(photo),
    )

  def _best(
    self, job: Job, photo: Photo
  ) -> tuple["_Attempt", tuple[dict, ...]]:
    """The file in which the faces' cloaks are, and what is measured of it.

    What the format takes away, or uses up of the budget, a finer encoding
    leaves; it is taken where it helps.
    """
    step = self._options.solver.jpeg_step
    best = faces = None
    for finer in range(1 + codec.refinements(photo, largest_step=step)):
      attempt = self._fit(job, photo, finer)
      measured = self._measure(job, photo, attempt)
      bare = sum(map(_is_bare, measured))
      if best is not None and faces is not None:
        before = sum(map(_is_bare, faces))
        if bare > before or (
          bare == before and attempt.weakest < _WORTHWHILE * best.weakest
        ):
          continue
      best, faces = attempt, measured
      helpless = sum(
        fitting.is_nothing(s.change) for s in job.solutions.values()
      )
      if bare <= helpless and attempt.weakest >= _STRONG:
        break
    assert best is not None and faces is not None
    return best, faces

  def _fit(self, job: Job, photo: Photo, finer: int) -> "_Attempt":
    """Encodes a photo so that no face exceeds the budget once decoded.

    See `fitting.fit`.
    """
    return fitting.fit(
      lambda scales: self._attempt(job, photo, scales, finer),
      [job.solutions[i] for i in range(len(job.faces))],
      self._options.solver.rho,
    )

  def _attempt(
    self,
    job: Job,
    photo: Photo,
    scales: np.ndarray,
    finer: int,
  ) -> "_Attempt":
    """Encodes a photo with scaled changes, and looks at the faces of that."""
    lost: set[str] = set()
    data = self._encode(job, photo, scales, finer, lost)
    cloaked = codec.decode(data, max_pixels=self._options.max_pixels)
    crops = self._cloaker.recognition.finder.crops(cloaked.pixels, job.faces)
    dssim = [
      self._cloaker.cost(face, crop)
      for face, crop in zip(job.faces, crops, strict=True)
    ]
    return _Attempt(
      data=data,
      pixels=cloaked.pixels,
      crops=crops,
      dssim=np.array(dssim),
      scales=scales,
      lost=tuple(sorted(lost)),
      weakest=min(
        (
          float(scale)
          for i, scale in enumerate(scales)
          if not fitting.is_nothing(job.solutions[i].change)
        ),
        default=1.0,
      ),
    )

  def _encode(
    self,
    job: Job,
    photo: Photo,
    scales: np.ndarray,
    finer: int,
    lost: set[str],
  ) -> bytes:
    linf = np.float32(self._options.solver.linf)
    patches = []
    for i, face in enumerate(job.faces):
      side = face.alignment.side
      change = np.float32(scales[i]) * job.solutions[i].change[:side, :side]
      left, top, change = geometry.paste(
        np.clip(change, -linf, linf),
        face.alignment,
        face.shape,
      )
      if change.size:
        patches.append(types.Patch(left=left, top=top, change=change))
    return codec.encode(
      photo,
      patches,
      largest_step=self._options.solver.jpeg_step,
      strip_location=self._options.strip_location,
      strip_names=self._options.strip_names,
      lost=lost,
      finer=finer,
    )

  def _measure(
    self, job: Job, photo: Photo, attempt: "_Attempt"
  ) -> tuple[dict, ...]:
    """An encoded photo's faces for its row, measured on what it decodes to."""
    raw = self._cloaker.recognition.embedder.embed(
      attempt.crops, recognition.sides(job.faces)
    )
    after = self._cloaker.normalised(raw)
    faces = []
    for i, face in enumerate(job.faces):
      extractors = {
        name: {
          "shift": float(np.linalg.norm(raw[name][i] - job.raw[name][i])),
          "cosine": float(job.own[name][i] @ after[name][i]),
        }
        for name in raw
      }
      why = fitting.why_unprotected(
        job.solutions[i],
        f"the format {photo.format}",
        float(np.mean([e["cosine"] for e in extractors.values()])),
        changed=bool(attempt.scales[i]),
      )
      faces.append(
        {
          "box": list(face.box),
          "target": job.target_names[i],
          "steps": job.solutions[i].steps,
          "dssim": float(attempt.dssim[i]),
          "linf": _largest_change(photo.pixels, attempt.pixels, face.box),
          "extractors": extractors,
        }
        | ({} if why is None else {"unprotected": why})
      )
    return tuple(faces)


def _is_bare(face: dict) -> bool:
  return "unprotected" in face


def _counted(count: int, total: int) -> str:
  """So many faces, and how many there are."""
  if total == 1:
    return "its face is"
  if count == total:
    return f"all its {total} faces are"
  return f"{count} of {total} faces {'is' if count == 1 else 'are'}"


def _largest_change(
  before: np.ndarray, after: np.ndarray, box: tuple[int, int, int, int]
) -> int:
  left, top, right, bottom = box
  part = np.s_[top:bottom, left:right]
  difference = np.abs(after[part].astype(np.int16) - before[part])
  return int(difference.max(initial=0))
