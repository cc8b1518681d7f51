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
from fawkes_jax.faces import finder, recognition
from fawkes_jax.imaging import geometry, ssim
from fawkes_jax.options import CloakOptions
from fawkes_jax.photos import codec
from fawkes_jax.photos.photo import Photo

# Saving costs or adds a little: the change is scaled until the saved file is
# between this fraction of what it aims at and the budget, in so many tries.
_BUDGET_BAND = 0.95
_MAX_TRIES = 5
_AIM = 0.985
# A face whose embeddings keep this cosine, as the mean over the extractors, is
# known nearly as well as before; docs/cloaking.md has the measurement.
_NEARLY_THE_SAME = 0.95
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
    numbers: of the faces, among all that are on the photo.
    means: what each face is cloaked against, like `own`.
    targets: of each face, its number among the cloaker's.
    target_names: of each face's target.
    solutions: by the index of the face.
    started: when the first face went to the solver.
    decisions: whom to cloak, see `Row`.
  """

  source: SourceFile
  sha256: str
  grey: bool
  jpeg_tables: np.ndarray | None
  smallest_face: float
  faces: list[finder.AlignedFace]
  raw: dict[str, np.ndarray]
  own: dict[str, np.ndarray]
  numbers: list[int]
  means: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  targets: list[int] = dataclasses.field(default_factory=list)
  target_names: list[str] = dataclasses.field(default_factory=list)
  solutions: dict[int, executor.Solution] = dataclasses.field(
    default_factory=dict
  )
  started: float = 0.0
  decisions: tuple[dict, ...] = ()


def part(job: Job, indices: list[int]) -> Job:
  """A job for some of the faces of a photo."""

  def rows(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array[indices] for name, array in arrays.items()}

  return dataclasses.replace(
    job,
    faces=[job.faces[i] for i in indices],
    numbers=[job.numbers[i] for i in indices],
    raw=rows(job.raw),
    own=rows(job.own),
    means=rows(job.means),
    targets=[job.targets[i] for i in indices],
    target_names=[job.target_names[i] for i in indices],
  )


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
    dssim: of each face.
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
      helpless = sum(_is_nothing(s.change) for s in job.solutions.values())
      if bare <= helpless and attempt.weakest >= _STRONG:
        break
    assert best is not None and faces is not None
    return best, faces

  def _fit(self, job: Job, photo: Photo, finer: int) -> "_Attempt":
    """Encodes a photo so that no face exceeds the budget once decoded.

    Resampling and the file's own quantisation swallow some of a change or add
    to it, so the changes are scaled, each by its own factor; to nothing where
    the format itself (lossy WebP, HEIC) uses up a very small budget.
    """
    rho = self._options.solver.rho
    solved = np.array([job.solutions[i].dssim for i in range(len(job.faces))])
    # Use all of the budget where the solver came close to it.
    wanted = np.where(solved > 0.8 * rho, _AIM * rho, solved)
    scales = np.ones(len(job.faces))
    best, most = None, -1.0
    for tried in range(1, 4 * _MAX_TRIES):
      attempt = self._attempt(job, photo, scales, finer)
      dssim = attempt.dssim
      over = dssim > rho
      if not over.any() and dssim.sum() > most:
        best, most = attempt, float(dssim.sum())
      settled = (dssim >= _BUDGET_BAND * wanted).all()
      if best is not None and (tried >= _MAX_TRIES or settled):
        return best
      # Whoever goes over the budget aims lower, in the end at nothing.
      wanted = np.where(
        over, (_AIM if tried < _MAX_TRIES else 0.5) * wanted, wanted
      )
      wanted = np.where(wanted > 0.05 * rho, wanted, 0)
      ratio = np.sqrt(wanted / np.maximum(dssim, 1e-6))
      scales = np.clip(scales * np.clip(ratio, 0, 1.5), 0, 2)
    # The format alone costs more than the budget allows: no change at all.
    return self._attempt(job, photo, np.zeros(len(job.faces)), finer)

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
      float(ssim.measure(face.crop, crop, face.weights))
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
          if not _is_nothing(job.solutions[i].change)
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
      why = _why_unprotected(
        job.solutions[i],
        photo.format,
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


def _why_unprotected(
  solution: executor.Solution, kind: str, cosine: float, *, changed: bool
) -> str | None:
  """Why a face is as it was for those that are to take it for another's.

  Args:
    solution: of the solver.
    kind: the format of the file.
    cosine: between its embeddings before and after, as saved, as the mean over
      the extractors.
    changed: whether the file got any of the solution.

  Returns:
    None where it is protected.
  """
  if cosine <= _NEARLY_THE_SAME:
    return None
  if _is_nothing(solution.change):
    return f"no cloak was found in {solution.steps} steps"
  if not changed:
    return f"the format {kind} has no room for a cloak within the budget"
  return f"the cloak moves it by nearly nothing (cosine {cosine:.2f})"


def _is_nothing(change: np.ndarray) -> bool:
  return not np.any(change)


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
