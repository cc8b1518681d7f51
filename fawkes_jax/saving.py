"""Saves cloaked photos: within the budget, and measured on what was saved."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from fawkes_jax import cloaker as cloaker_lib
from fawkes_jax import config, recognition, types
from fawkes_jax.archive import codec, files, results
from fawkes_jax.archive.photo import Photo
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.engine import executor, finder
from fawkes_jax.imaging import geometry, ssim

# Saving costs or adds a little: the change is scaled until the saved file is
# between this fraction of what it aims at and the budget, in so many tries.
_BUDGET_BAND = 0.95
_MAX_TRIES = 5
_AIM = 0.985


@dataclasses.dataclass(kw_only=True, eq=False)
class Job:
  """A photo with faces on its way through the solver.

  Attributes:
    source: its file.
    sha256: of the file.
    grey: whether it is greyscale.
    jpeg_tables: of the file, see `Photo`.
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
  faces: list[finder.AlignedFace]
  raw: dict[str, np.ndarray]
  own: dict[str, np.ndarray]
  target_names: list[str] = dataclasses.field(default_factory=list)
  solutions: dict[int, executor.Solution] = dataclasses.field(
    default_factory=dict
  )
  started: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Saved:
  """A cloaked photo, as it was read back from the disk.

  Attributes:
    photo: decoded.
    sha256: of the file.
    place: of the file in a tar file, or None.
    linf: the largest change in the box of each face.
  """

  photo: Photo
  sha256: str
  place: results.Place | None
  linf: list[int]


class Saver:
  """Makes files of solved photos; threads may share it."""

  def __init__(
    self,
    options: config.CloakOptions,
    cloaker: cloaker_lib.Cloaker,
    kept: results.Results,
  ):
    self._options = options
    self._cloaker = cloaker
    self._results = kept

  def write(self, source: SourceFile, data: bytes) -> results.Place | None:
    """Writes a result; raises PhotoError."""
    try:
      return self._results.write(source.relative, data, source.stamped())
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
    """Saves a cloaked photo and reads it back from the disk."""
    options = self._options
    data = recognition.read(job.source)
    if hashlib.sha256(data).hexdigest() != job.sha256:
      raise types.PhotoError("changed while it was being cloaked")
    photo = codec.decode(data, max_pixels=options.max_pixels)
    data = self._encode_within_budget(job, photo)
    place = self.write(job.source, data)
    try:
      written = self._results.read(job.source.relative, place)
    except OSError as error:
      raise types.PhotoError(
        f"the result cannot be read: {files.reason(error)}"
      ) from error
    cloaked = codec.decode(written, max_pixels=options.max_pixels)
    return Saved(
      photo=cloaked,
      sha256=hashlib.sha256(written).hexdigest(),
      place=place,
      linf=[
        _largest_change(photo.pixels, cloaked.pixels, face.box)
        for face in job.faces
      ],
    )

  def _encode_within_budget(self, job: Job, photo: Photo) -> bytes:
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
      data = self._encode(job, photo, scales)
      cloaked = codec.decode(data, max_pixels=self._options.max_pixels)
      dssim = self._dssim(job, self._crops(job, cloaked))
      over = dssim > rho
      if not over.any() and dssim.sum() > most:
        best, most = data, dssim.sum()
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
    return self._encode(job, photo, np.zeros(len(job.faces)))

  def _encode(self, job: Job, photo: Photo, scales: np.ndarray) -> bytes:
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
    )

  def _crops(self, job: Job, photo: Photo) -> np.ndarray:
    return self._cloaker.recognition.finder.crops(photo.pixels, job.faces)

  def _dssim(self, job: Job, crops: np.ndarray) -> np.ndarray:
    return np.array(
      [
        float(ssim.measure(face.crop, crop, face.weights))
        for face, crop in zip(job.faces, crops, strict=True)
      ]
    )

  def measure(self, job: Job, saved: Saved) -> tuple[dict, ...]:
    """A saved photo's faces for its row, measured on what was read back."""
    crops = self._crops(job, saved.photo)
    dssim = self._dssim(job, crops)
    raw = self._cloaker.recognition.embedder.embed(
      crops, recognition.sides(job.faces)
    )
    after = self._cloaker.normalised(raw)
    return tuple(
      {
        "box": list(face.box),
        "target": job.target_names[i],
        "steps": job.solutions[i].steps,
        "dssim": float(dssim[i]),
        "linf": saved.linf[i],
        "extractors": {
          name: {
            "shift": float(np.linalg.norm(raw[name][i] - job.raw[name][i])),
            "cosine": float(job.own[name][i] @ after[name][i]),
          }
          for name in raw
        },
      }
      for i, face in enumerate(job.faces)
    )


def _largest_change(
  before: np.ndarray, after: np.ndarray, box: tuple[int, int, int, int]
) -> int:
  left, top, right, bottom = box
  part = np.s_[top:bottom, left:right]
  difference = np.abs(after[part].astype(np.int16) - before[part])
  return int(difference.max(initial=0))
