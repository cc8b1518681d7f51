"""Saves cloaked photos: within the budget, and measured on what was saved."""

import contextlib
import dataclasses
import hashlib
from pathlib import Path

import jax
import numpy as np

from fawkes_jax import types
from fawkes_jax.archive import files, results
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.engine import executor
from fawkes_jax.faces import cloaker as cloaker_lib
from fawkes_jax.faces import finder, fitting, recognition
from fawkes_jax.imaging import geometry
from fawkes_jax.options import CloakOptions
from fawkes_jax.photos import codec, drafts
from fawkes_jax.photos.photo import Photo
from fawkes_jax.runs.room import Room
from fawkes_jax.xla import memory

# A finer encoding is tried where a face gets less than this part of its
# change, and taken where that makes it so many times as large.
_STRONG = 0.6
_WORTHWHILE = 1.25


# What a pixel takes while it is saved: the coefficients of a JPEG in 4:2:0,
# once more as they are written, and once more in libjpeg, are nine bytes. So
# much may photos take that are saved at the same time, for each thread; and so
# much a step of the solver, where it is computed in the same memory.
_BYTES_A_PIXEL = 12
_ROOM = 192 << 20


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
    targets: what each face approaches, like `own`.
    exchanged: whether each face approaches somebody who is cloaked, too.
    target_names: of each face's target.
    solutions: by the index of the face.
    photos: how many there are of each face's person, as far as that is known.
    called: the name of each face's person, where it has one.
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
  targets: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  exchanged: list[bool] = dataclasses.field(default_factory=list)
  target_names: list[str] = dataclasses.field(default_factory=list)
  solutions: dict[int, executor.Solution] = dataclasses.field(
    default_factory=dict
  )
  photos: list[int] = dataclasses.field(default_factory=list)
  called: list[str | None] = dataclasses.field(default_factory=list)
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
    targets=rows(job.targets),
    exchanged=[job.exchanged[i] for i in indices if job.exchanged],
    target_names=[job.target_names[i] for i in indices],
    photos=[job.photos[i] for i in indices if job.photos],
    called=[job.called[i] for i in indices if job.called],
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
class Attempt:
  """A way to encode a photo, and what its faces will be.

  Attributes:
    finer: how much less of the changes is lost than usual, see `codec.encode`.
    scales: of the changes, by face.
    patches: the scaled changes.
    parts: of the photo, by face: what its `area` is decoded to.
    crops: of the faces.
    dssim: the DSSIM of each face, or what another budget measures.
    weakest: the smallest scale of a face that the solver has changed, as of a
      change that uses the whole budget.
  """

  finer: int
  scales: np.ndarray
  patches: list[types.Patch]
  parts: list[np.ndarray]
  crops: list[np.ndarray]
  dssim: np.ndarray
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
    self._on_cpu = jax.default_backend() == "cpu"
    self._room = Room((options.threads + self._on_cpu) * _ROOM)

  def step(self) -> contextlib.AbstractContextManager[None]:
    """What the solver enters for a step, which may have to wait for memory."""
    return self._room.taken(_ROOM) if self._on_cpu else contextlib.nullcontext()

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
    height, width = job.faces[0].shape
    amount = _BYTES_A_PIXEL * height * width
    with self._room.taken(amount):
      if amount > _ROOM:  # What is free is in pieces that are too small.
        memory.give_back_freed()
      return self._save(job)

  def _save(self, job: Job) -> Saved:
    options = self._options
    data = recognition.read(job.source)
    if hashlib.sha256(data).hexdigest() != job.sha256:
      raise types.PhotoError("changed while it was being cloaked")
    photo = recognition.decode(data, options, again=True)
    fitting = Fitting(job, photo, options, self._cloaker)
    attempt, faces = fitting.best()
    unprotected = [face["unprotected"] for face in faces if _is_bare(face)]
    if len(unprotected) == len(faces):
      raise UnprotectedError(
        f"{_counted(len(faces), len(faces))} left unprotected, nothing is"
        f" written: {unprotected[0]}",
        faces,
      )
    file, lost, faces = fitting.encode(attempt, faces)
    place = self.write(job.source, file, photo.suffix)
    try:
      written = self._results.read(job.source.relative + photo.suffix, place)
    except OSError as error:
      raise types.PhotoError(
        f"the result cannot be read: {files.reason(error)}"
      ) from error
    if written != file:
      raise types.PhotoError("the result is not what was written")
    reason = photo.note
    if unprotected:
      which = _counted(len(unprotected), len(faces))
      bare = f"{which} left unprotected: {unprotected[0]}"
      reason = f"{bare}; {reason}" if reason else bare
    return Saved(
      sha256=hashlib.sha256(file).hexdigest(),
      place=place,
      faces=faces,
      reason=reason,
      suffix=photo.suffix,
      lost=lost,
      names=not options.strip_names and codec.names_people(photo),
    )


class Fitting:
  """Fits the changes of a photo's faces into its file and the budget."""

  def __init__(
    self,
    job: Job,
    photo: Photo,
    options: CloakOptions,
    cloaker: cloaker_lib.Cloaker,
  ):
    """Looks at the photo as it is.

    Args:
      job: all faces of which are solved.
      photo: of the job.
      options: of the run.
      cloaker: of the same options.

    Raises:
      PhotoError: the photo cannot be changed.
    """
    self._job = job
    self._photo = photo
    self._options = options
    self._cloaker = cloaker
    self._draft = drafts.Draft(
      photo,
      largest_step=options.solver.jpeg_step,
      strip_location=options.strip_location,
      strip_names=options.strip_names,
      max_pixels=options.max_pixels,
    )
    self._areas = [face.area for face in job.faces]
    self._largest = [float(np.abs(s.change).max()) for s in self._solutions]
    self._before = self._draft.preview((), self._areas)
    crops = self._crops(self._before)
    self._costs = [
      cloaker.cost(*one) for one in zip(job.faces, crops, strict=True)
    ]
    self._pasted: dict[int, types.Patch] = {}

  def best(self) -> tuple[Attempt, tuple[dict, ...]]:
    """How the faces' cloaks get into the file, and what is measured of it.

    What the format takes away, or uses up of the budget, a finer encoding
    leaves; it is taken where it helps.
    """
    step = self._options.solver.jpeg_step
    best = faces = None
    for finer in range(1 + codec.refinements(self._photo, largest_step=step)):
      attempt = self._fit(finer)
      measured = self._measure(attempt)
      bare = sum(map(_is_bare, measured))
      if best is not None and faces is not None:
        before = sum(map(_is_bare, faces))
        if bare > before or (
          bare == before and attempt.weakest < _WORTHWHILE * best.weakest
        ):
          continue
      best, faces = attempt, measured
      helpless = sum(fitting.is_nothing(s.change) for s in self._solutions)
      if bare <= helpless and attempt.weakest >= _STRONG:
        break
    assert best is not None and faces is not None
    return best, faces

  def encode(
    self, attempt: Attempt, faces: tuple[dict, ...]
  ) -> tuple[bytes, tuple[str, ...], tuple[dict, ...]]:
    """Encodes a photo, and looks at what its faces are decoded to.

    Where a decoder makes something else of them than was foreseen, and that
    is over the budget, the changes get smaller.

    Args:
      attempt: what `best` gave.
      faces: likewise.

    Returns:
      The file, in words what of the photo is not in it, and what is measured
      of its faces.

    Raises:
      PhotoError: it cannot be written, or not within the budget.
    """
    rho = self._options.solver.rho
    for _ in range(fitting.MAX_TRIES):
      lost: set[str] = set()
      file = self._draft.encode(attempt.patches, finer=attempt.finer, lost=lost)
      parts = drafts.read_back(
        file, self._areas, max_pixels=self._options.max_pixels
      )
      if not all(map(np.array_equal, parts, attempt.parts)):
        attempt = self._seen(
          attempt.scales, attempt.finer, attempt.patches, parts
        )
        faces = self._measure(attempt)
      over = attempt.dssim > rho
      if not over.any():
        return file, tuple(sorted(lost)), faces
      ratio = np.sqrt(fitting.AIM * rho / np.maximum(attempt.dssim, 1e-6))
      scales = np.where(over, attempt.scales * ratio, attempt.scales)
      attempt = self._attempt(scales, attempt.finer)
      faces = self._measure(attempt)
    raise types.PhotoError("its file is decoded to more than the budget allows")

  @property
  def _solutions(self) -> list[executor.Solution]:
    return [self._job.solutions[i] for i in range(len(self._job.faces))]

  def _fit(self, finer: int) -> Attempt:
    """Scales the changes so that no face exceeds the budget once decoded.

    See `fitting.fit`.
    """
    return fitting.fit(
      lambda scales: self._attempt(scales, finer),
      self._solutions,
      self._options.solver.rho,
    )

  def _attempt(self, scales: np.ndarray, finer: int) -> Attempt:
    """Looks at what faces become with scaled changes."""
    patches = self._patches(scales)
    parts = self._draft.preview(patches, self._areas, finer=finer)
    return self._seen(scales, finer, patches, parts)

  def _seen(
    self,
    scales: np.ndarray,
    finer: int,
    patches: list[types.Patch],
    parts: list[np.ndarray],
  ) -> Attempt:
    """An attempt, measured on what the faces' areas are decoded to."""
    rho = self._options.solver.rho
    crops = self._crops(parts)
    dssim = [cost(crop) for cost, crop in zip(self._costs, crops, strict=True)]
    return Attempt(
      finer=finer,
      scales=scales,
      patches=patches,
      parts=parts,
      crops=crops,
      dssim=np.array(dssim),
      weakest=min(
        (
          float(scale * np.sqrt(solution.budget / rho))
          for scale, solution in zip(scales, self._solutions, strict=True)
          if not fitting.is_nothing(solution.change)
        ),
        default=1.0,
      ),
    )

  def _crops(self, parts: list[np.ndarray]) -> list[np.ndarray]:
    """The faces' crops from what their areas are decoded to."""
    return [
      face.cut(part, corner=area[:2])
      for face, part, area in zip(
        self._job.faces, parts, self._areas, strict=True
      )
    ]

  def _patches(self, scales: np.ndarray) -> list[types.Patch]:
    """The changes, each times its scale and none of a pixel above `linf`."""
    linf = np.float32(self._options.solver.linf)
    patches = []
    for i, scale in enumerate(scales.astype(np.float32)):
      change = self._solutions[i].change
      if scale * self._largest[i] > linf:
        pasted = self._paste(i, np.clip(scale * change, -linf, linf))
      else:
        # Resampling is linear: a change is pasted once for all its scales.
        if i not in self._pasted:
          self._pasted[i] = self._paste(i, change)
        whole = self._pasted[i]
        pasted = dataclasses.replace(whole, change=scale * whole.change)
      if pasted.change.size:
        patches.append(pasted)
    return patches

  def _paste(self, i: int, change: np.ndarray) -> types.Patch:
    """The change of a face's crop as one of the photo."""
    face = self._job.faces[i]
    side = face.alignment.side
    left, top, change = geometry.paste(
      change[:side, :side], face.alignment, face.shape
    )
    return types.Patch(left=left, top=top, change=change)

  def _measure(self, attempt: Attempt) -> tuple[dict, ...]:
    """An encoded photo's faces for its row, measured on what it decodes to."""
    job = self._job
    raw = self._cloaker.recognition.embedder.embed(
      np.stack(attempt.crops), recognition.sides(job.faces)
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
        f"the format {self._photo.format}",
        float(np.mean([e["cosine"] for e in extractors.values()])),
        changed=bool(attempt.scales[i]),
      )
      faces.append(
        {
          "box": list(face.box),
          "target": job.target_names[i],
          "steps": job.solutions[i].steps,
          "dssim": float(attempt.dssim[i]),
          "linf": _largest_change(
            self._before[i], attempt.parts[i], face.box, self._areas[i][:2]
          ),
          "extractors": extractors,
        }
        | ({"photos": job.photos[i]} if job.photos else {})
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
  before: np.ndarray,
  after: np.ndarray,
  box: tuple[int, int, int, int],
  corner: tuple[int, int],
) -> int:
  """The largest change of a pixel in a box of two versions of a part.

  Args:
    before: uint8 [h, w, 3].
    after: the same of the other version.
    box: in the photo.
    corner: x and y of the part's first pixel in the photo.
  """
  left, top, right, bottom = box
  x, y = corner
  part = np.s_[top - y : bottom - y, left - x : right - x]
  difference = np.abs(after[part].astype(np.int16) - before[part])
  return int(difference.max(initial=0))
