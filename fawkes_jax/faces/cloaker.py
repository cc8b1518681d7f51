"""Images in, cloaks out: recognition, targets and the solver put together.

`fawkes_jax.Cloaker` is for arrays. A run of an archive finds, embeds, targets
and solves its faces with one, too, and saves them as its files ask for
(`runs/saving.py`).
"""

import dataclasses
import hashlib
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt16

from fawkes_jax import types
from fawkes_jax.archive import files
from fawkes_jax.cloaking import objective, solver, targets
from fawkes_jax.engine import embedder, executor
from fawkes_jax.faces import arrays, finder, fitting, grouping, recognition
from fawkes_jax.imaging import geometry, ssim
from fawkes_jax.models import architectures
from fawkes_jax.options import (
  MODES,
  CloakerOptions,
  ModeOptions,
  OptionError,
)
from fawkes_jax.photos.regions import regions
from fawkes_jax.weights import averages, ensembles
from fawkes_jax.weights import bank as bank_lib

SAME_PERSON = 0.46
"""The least mean cosine between the faces of two groups that are of one person,
of centred embeddings; docs/cloaking.md has the measurement."""

# Images in which faces are looked for at once.
_WAVE = 16

# A small face is measured in a part of its crop, whose side is a multiple.
_SIDES = 32

# The example tables of the JPEG standard (ITU-T T.81, annex K) at libjpeg's
# quality of 75, which halves them.
_ANNEX_K = np.array(
  [
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *[(99,) * 8] * 4,
  ]
).reshape(2, 8, 8)
_QUALITY_75 = (_ANNEX_K + 1) // 2


class Cloaker:
  """Cloaks the faces of images; loads its networks once.

      cloaker = fawkes_jax.Cloaker(mode="mid")
      results = cloaker.cloak(images)
      results[0].image, results[0].faces[0].dssim

  Programs are compiled when they are first needed, and kept: in this object,
  and in the cache directory for the next process.

  Attributes:
    options: what it does.
    recognition: what finds and embeds faces.
    centres: by extractor, the mean identity of the bank.
    executor: the executor of the solver, for these options.
    candidates: by extractor, normalised embeddings of the possible targets,
      one identity a row.
    target_names: what each of them is called.
    exchanges: whether people who are cloaked together are each other's targets.
  """

  def __init__(
    self,
    options: CloakerOptions | None = None,
    *,
    mode: str | None = None,
    extractors: Iterable[str | Path | architectures.Extractor] | None = None,
    loss: objective.Loss | None = None,
    budget: objective.Budget | None = None,
    photos: int | None = None,
  ):
    """Loads weights and targets; compiles nothing yet.

    Args:
      options: what it does; None for the defaults.
      mode: "low", "mid" or "high", in the place of `options.solver`.
      extractors: what the cloaks are computed against, in the place of
        `options.extractors`: names and files, see `load_extractor`, or
        extractors, see `Extractor.from_apply`.
      loss: a function of (embedding, own, target, key) that is minimised, in
        the place of the package's own, see `objective.Loss`.
      budget: a function of (original, changed, weights) that stays within
        `options.solver.rho`, in the place of DSSIM, see `objective.Budget`.
      photos: how many there are, where that is known, see
        `Recognition`.

    Raises:
      FawkesError: an argument breaks its rule; or weights, the target bank or
        the target's photos cannot be used.
    """
    options = CloakerOptions() if options is None else options
    if not isinstance(options, CloakerOptions):
      raise types.FawkesError(
        f"options must be CloakerOptions, got {options!r}; a mode is given by"
        ' its name: Cloaker(mode="mid")'
      )
    if mode is not None:
      options = dataclasses.replace(
        options, solver=MODES[ModeOptions(mode=mode).mode]
      )
    loaded: dict[str, architectures.Extractor] = {}
    if extractors is not None:
      if isinstance(extractors, str | Path | architectures.Extractor):
        extractors = (extractors,)
      names = []
      for one in extractors:
        if isinstance(one, architectures.Extractor):
          loaded[one.name] = one
          names.append(one.name)
        else:
          names.append(str(one))
      options = dataclasses.replace(options, extractors=tuple(names))
    self.options = options = ensembles.resolved(options)
    self.recognition = recognition.Recognition(
      options, photos=photos, loaded=loaded
    )
    bank = _bank(self.recognition, options.bank)
    self.centres = bank.centres
    self._goal = objective.Goal(loss=loss, budget=budget)
    self._goal.check(len(centre) for centre in self.centres.values())
    self._executors: dict[int, executor.Executor[Any]] = {}
    self.executor = self._executor(self.recognition.batch_size)
    self.exchanges = options.target_dir is None and options.targets == "archive"
    if options.target_dir is None:
      self.candidates = self.normalised(bank.embeddings)
      count = len(next(iter(self.candidates.values())))
      self.target_names = [f"bank/{index}" for index in range(count)]
    else:
      mean = self.recognition.mean_embedding(
        options.target_dir, flag="target_dir"
      )
      if mean is None:
        raise OptionError(
          CloakerOptions,
          "target_dir",
          "a folder with a photo of a face",
          files.printable(options.target_dir),
        )
      self.candidates = self.normalised({k: e[None] for k, e in mean.items()})
      self.target_names = [files.printable(options.target_dir)]

  def cloak(
    self, images: Iterable[Any], people: Sequence[Any] | None = None
  ) -> list[arrays.Cloaked]:
    """Cloaks every face of some images.

    The images of a person should come in one call: they are cloaked against
    what they have in common, as in an archive, and so protect better. Several
    people of one call approach each other, unless `options.targets` is "bank".

    Args:
      images: of any sizes, upright; each uint8 RGB [height, width, 3],
        greyscale [height, width] or [height, width, 1], or RGBA [height,
        width, 4]; or floating point in 0..1.
      people: a label for each image, the same for the same person, of whom it
        is the largest face; None, for all or for some, to group the faces by
        how much they look alike. Other faces of an image are grouped so, too.

    Returns:
      For each image what became of it, in their order.

    Raises:
      FawkesError: an argument is something else.
    """
    pictures = arrays.pictures(images)
    labels = arrays.labels(people, len(pictures))
    found: list[list[finder.AlignedFace]] = []
    for first in range(0, len(pictures), _WAVE):
      wave = pictures[first : first + _WAVE]
      found += self.recognition.finder.find([p.pixels for p in wave])
    if not any(found):
      return [arrays.Cloaked(image=p.given.copy(), faces=()) for p in pictures]
    faces = [face for some in found for face in some]
    own = self.normalised(self.recognition.embed(faces))
    persons = _persons(found, own, labels)
    leave = targets.identities(own, persons)
    reach, exchanged, names = self._goals(own, leave, persons)
    return self._cloaked(
      pictures,
      found,
      own=own,
      leave=leave,
      reach=reach,
      exchanged=exchanged,
      persons=persons,
      names=names,
    )

  def cloak_crops(
    self,
    crops: Iterable[Any],
    *,
    own: Mapping[str, Any] | None = None,
    target: Mapping[str, Any] | None = None,
  ) -> list[arrays.Cloaked]:
    """Cloaks aligned faces, without looking for them; for experiments.

    Args:
      crops: square images of one face each, as in `cloak`, which show the
        square `geometry.CROP` of the face frame; at least 24 pixels and at
        most `options.crop_size` wide.
      own: by extractor, the embedding [d] or [n, d] that the faces leave, as
        `embed` gives it; None for each crop's own.
      target: likewise the embedding that they approach; None for the farthest
        identity of the bank.

    Returns:
      For each crop what became of it, with one face.

    Raises:
      FawkesError: an argument is something else.
    """
    pictures = arrays.pictures(crops, name="crops")
    if not pictures:
      return []
    faces = [self._whole(i, p) for i, p in enumerate(pictures)]
    raw = self.recognition.embed(faces)
    normal = leave = self.normalised(raw)
    if own is not None:
      leave = self.normalised(arrays.embeddings(own, raw, name="own"))
    persons = np.arange(len(faces))
    if target is None:
      chosen = targets.choose(leave, persons, self.candidates)
      reach = {name: e[chosen] for name, e in self.candidates.items()}
      names = [self.target_names[index] for index in chosen]
    else:
      reach = self.normalised(arrays.embeddings(target, raw, name="target"))
      names = ["given"] * len(faces)
    return self._cloaked(
      pictures,
      [[face] for face in faces],
      own=normal,
      leave=leave,
      reach=reach,
      exchanged=np.zeros(len(faces), bool),
      persons=persons,
      names=names,
    )

  def embed(self, crops: Iterable[Any]) -> dict[str, np.ndarray]:
    """The embeddings of aligned faces.

    Args:
      crops: as in `cloak_crops`.

    Returns:
      By extractor, float32 [n, d], not normalised.

    Raises:
      FawkesError: the crops are something else.
    """
    pictures = arrays.pictures(crops, name="crops")
    faces = [self._whole(i, p) for i, p in enumerate(pictures)]
    if faces:
      return self.recognition.embed(faces)
    return {
      n: np.zeros((0, len(c)), np.float32) for n, c in self.centres.items()
    }

  def _goals(
    self,
    own: Mapping[str, Float32[np.ndarray, "n d"]],
    means: Mapping[str, Float32[np.ndarray, "n d"]],
    persons: Int64[np.ndarray, " n"],
  ) -> tuple[
    dict[str, Float32[np.ndarray, "n d"]], Bool[np.ndarray, " n"], list[str]
  ]:
    """What faces approach, whether that is cloaked, too, and its name.

    Args:
      own: by extractor, their normalised embeddings.
      means: likewise, of their people.
      persons: whose they are.
    """
    chosen = targets.choose(own, persons, self.candidates)
    people, first, index = np.unique(
      persons, return_index=True, return_inverse=True
    )
    goal = np.full(len(persons), targets.NOBODY)
    if self.exchanges:
      goal = targets.exchange(
        {name: e[first] for name, e in means.items()}, np.bincount(index)
      )[index]
    exchanged = goal != targets.NOBODY
    reach = {
      name: np.where(
        exchanged[:, None], means[name][first[goal]], candidates[chosen]
      )
      for name, candidates in self.candidates.items()
    }
    names = [
      f"person {people[goal[i]]}"
      if exchanged[i]
      else self.target_names[chosen[i]]
      for i in range(len(persons))
    ]
    return reach, exchanged, names

  def cost(
    self,
    face: finder.AlignedFace,
    original: Float32[np.ndarray, "size size 3"],
  ) -> Callable[[Float32[np.ndarray, "size size 3"]], float]:
    """What changes of a face cost of the budget.

    Args:
      face: known in the photo.
      original: its crop from the photo as it was.

    Returns:
      A function of the crop as it is now; it gives the DSSIM, or what replaces
      it.
    """
    measure: Any = self._goal.budget
    if measure is not None:
      old, weights = jax.device_put((original, face.weights))
      return lambda crop: float(measure(old, crop, weights))
    # Where the crop is filled; each size is compiled once.
    side = min(-(-face.alignment.side // _SIDES) * _SIDES, len(original))
    here = slice(side)
    old = original[here, here]
    known = ssim.moments(old, face.weights[here, here])
    return lambda crop: float(ssim.compare(old, crop[here, here], known))

  def normalised(
    self, embeddings: Mapping[str, Float32[np.ndarray, "n d"]]
  ) -> dict[str, Float32[np.ndarray, "n d"]]:
    """Embeddings centred and scaled to length one, by extractor."""
    return embedder.normalised(embeddings, self.centres)

  def problem(
    self,
    face: finder.AlignedFace,
    *,
    own: Mapping[str, Float32[np.ndarray, " d"]],
    target: Mapping[str, Float32[np.ndarray, " d"]],
    exchanged: bool,
    grey: bool,
    seed: int,
    jpeg_tables: UInt16[np.ndarray, "2 8 8"] | None = None,
  ) -> solver.Problem:
    """What the solver needs to know of a face.

    Args:
      face: found by `recognition.finder`.
      own: by extractor, its person's normalised embedding.
      target: likewise, of whom it approaches.
      exchanged: whether that is somebody who is cloaked, too.
      grey: whether its photo is greyscale.
      seed: the seed of its random views, 0..2**32 - 1.
      jpeg_tables: the quantisation tables of its file; None where that is no
        JPEG, to prepare for one of quality 75.

    Returns:
      The problem, with numpy leaves.
    """
    options = self.options.solver
    return solver.Problem(
      original=face.crop,
      coverage=face.coverage,
      weights=face.weights,
      side=np.float32(face.alignment.side),
      tables=_tables_in_crop(jpeg_tables, face.alignment.scale),
      colour=np.float32(not grey),
      budget=np.float32(self._budget(face, jpeg=jpeg_tables is not None)),
      own=dict(own),
      target=dict(target),
      own_weight=np.float32(
        options.exchange_weight if exchanged else options.own_weight
      ),
      seed=np.uint32(seed),
    )

  def _budget(self, face: finder.AlignedFace, *, jpeg: bool) -> float:
    """What the solver may use of the budget, so that saving has the rest."""
    rho = self.options.solver.rho
    if self._goal.budget is not None:
      return rho
    return fitting.budget(rho, face.alignment.scale, jpeg=jpeg)

  def seconds_for(self, faces: int) -> float:
    """How long so many faces take here, all steps of each, and to begin.

    Measured on random faces, in a first round that compiles and a second one.
    """
    random = random_problem(
      self.options.crop_size,
      own={name: e[0] for name, e in self.candidates.items()},
      target={name: e[-1] for name, e in self.candidates.items()},
    )
    problems = [(i, random) for i in range(self.recognition.batch_size)]
    rounds = []
    for _ in range(2):
      started = time.monotonic()
      steps = sum(s.steps for _, s in self.executor.solve(problems))
      rounds.append(time.monotonic() - started)
    compiling = max(0.0, rounds[0] - rounds[1])
    per_face = rounds[1] / steps * self.options.solver.steps
    # The last ones have as many slots to themselves as the first.
    return compiling + per_face * (-(-faces // len(problems)) * len(problems))

  def _executor(self, slots: int) -> executor.Executor[Any]:
    """The solver for so many faces at once."""
    if slots not in self._executors:
      self._executors[slots] = executor.Executor(
        self.recognition.extractors,
        self.centres,
        self.options.solver,
        slots=slots,
        mesh=self.recognition.mesh,
        goal=self._goal,
      )
    return self._executors[slots]

  def _whole(self, index: int, picture: arrays.Picture) -> finder.AlignedFace:
    """A crop as the face of an image that is nothing but the crop."""
    height, width = picture.pixels.shape[:2]
    most = self.options.crop_size
    if height != width or not finder.LEAST_SIDE <= width <= most:
      raise types.FawkesError(
        f"crops[{index}] must be square, {finder.LEAST_SIDE} to {most} pixels"
        f" wide (crop_size), got {width} x {height}"
      )
    return finder.AlignedFace(
      box=(0, 0, width, height),
      score=1.0,
      alignment=geometry.Alignment(origin=0j, axis=1 + 0j, side=width),
      shape=(height, width),
      size=most,
      pixels=picture.pixels,
    )

  def _cloaked(
    self,
    pictures: Sequence[arrays.Picture],
    found: Sequence[Sequence[finder.AlignedFace]],
    *,
    own: Mapping[str, Float32[np.ndarray, "n d"]],
    leave: Mapping[str, Float32[np.ndarray, "n d"]],
    reach: Mapping[str, Float32[np.ndarray, "n d"]],
    exchanged: Bool[np.ndarray, " n"],
    persons: Int64[np.ndarray, " n"],
    names: Sequence[str],
  ) -> list[arrays.Cloaked]:
    """Cloaks known faces.

    Args:
      pictures: that they are in.
      found: the faces of each, n in all.
      own: by extractor, their normalised embeddings.
      leave: likewise, of what they leave.
      reach: likewise, of what they approach.
      exchanged: whether that is somebody who is cloaked, too.
      persons: whose they are.
      names: of their targets.
    """
    solutions = self._solve(
      pictures, found, leave=leave, reach=reach, exchanged=exchanged
    )
    fitted, first = [], 0
    for picture, faces in zip(pictures, found, strict=True):
      some = solutions[first : first + len(faces)]
      first += len(faces)
      fitted.append(self._fit(picture, faces, some))
    crops = [crop for one in fitted for crop in one.crops]
    sides = recognition.sides([face for faces in found for face in faces])
    after = self.normalised(
      self.recognition.embedder.embed(np.stack(crops), sides)
    )
    results, number = [], 0
    for picture, faces, one in zip(pictures, found, fitted, strict=True):
      told = []
      for i, face in enumerate(faces):
        cosine = {
          name: float(own[name][number] @ after[name][number]) for name in own
        }
        solution = solutions[number]
        told.append(
          arrays.Face(
            box=face.box,
            person=int(persons[number]),
            target=names[number],
            dssim=float(
              ssim.measure(one.before[i], one.crops[i], face.weights)
            ),
            cost=float(one.dssim[i]),
            cosine=cosine,
            steps=solution.steps,
            unprotected=fitting.why_unprotected(
              solution,
              "an array of 8 bits",
              float(np.mean(list(cosine.values()))),
              changed=bool(one.scales[i]),
            ),
          )
        )
        number += 1
      results.append(
        arrays.Cloaked(image=picture.changed(one.pixels), faces=tuple(told))
      )
    return results

  def _solve(
    self,
    pictures: Sequence[arrays.Picture],
    found: Sequence[Sequence[finder.AlignedFace]],
    *,
    leave: Mapping[str, Float32[np.ndarray, "n d"]],
    reach: Mapping[str, Float32[np.ndarray, "n d"]],
    exchanged: Bool[np.ndarray, " n"],
  ) -> list[executor.Solution]:
    """Solves faces, see `_cloaked`."""
    problems: list[tuple[int, solver.Problem]] = []
    for picture, faces in zip(pictures, found, strict=True):
      digest = hashlib.sha256(picture.pixels.tobytes()).hexdigest()
      for index, face in enumerate(faces):
        number = len(problems)
        problem = self.problem(
          face,
          own={name: e[number] for name, e in leave.items()},
          target={name: e[number] for name, e in reach.items()},
          exchanged=bool(exchanged[number]),
          grey=picture.grey,
          seed=face_seed(self.options.solver.seed, digest, index),
        )
        problems.append((number, problem))
    engine = self._executor(self.recognition.slots(len(problems)))
    solved = dict(engine.solve(problems, warn=_warn))
    return [solved[number] for number, _ in problems]

  def _fit(
    self,
    picture: arrays.Picture,
    faces: Sequence[finder.AlignedFace],
    solutions: Sequence[executor.Solution],
  ) -> "_Attempt":
    """Changes an image so that no face exceeds the budget."""
    linf = np.float32(self.options.solver.linf)
    height, width = picture.pixels.shape[:2]
    before = [face.cut(picture.pixels) for face in faces]
    cost = [self.cost(*one) for one in zip(faces, before, strict=True)]

    def attempt(scales: np.ndarray) -> _Attempt:
      patches = []
      for face, solution, scale in zip(faces, solutions, scales, strict=True):
        side = face.alignment.side
        change = np.float32(scale) * solution.change[:side, :side]
        left, top, pasted = geometry.paste(
          np.clip(change, -linf, linf), face.alignment, face.shape
        )
        if pasted.size:
          patches.append(types.Patch(left=left, top=top, change=pasted))
      pixels = picture.pixels.copy()
      for patch in regions(patches, width=width, height=height):
        left, top, right, bottom = patch.box
        part = pixels[top:bottom, left:right]
        part[...] = np.clip(np.rint(part + patch.change), 0, 255)
      crops = [face.cut(pixels) for face in faces]
      costs = [of(crop) for of, crop in zip(cost, crops, strict=True)]
      return _Attempt(
        pixels=pixels,
        before=before,
        crops=crops,
        dssim=np.array(costs),
        scales=scales,
      )

    if not faces:
      return attempt(np.zeros(0))
    return fitting.fit(attempt, list(solutions), self.options.solver.rho)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Attempt:
  """An image with scaled changes.

  Attributes:
    pixels: uint8 [height, width, 3].
    before: the crops of its faces as they were.
    crops: as they are now.
    dssim: of each face, or what another budget measures.
    scales: the scales of the changes, by face.
  """

  pixels: np.ndarray
  before: list[np.ndarray]
  crops: list[np.ndarray]
  dssim: np.ndarray
  scales: np.ndarray


def face_seed(seed: int, sha256: str, index: int) -> int:
  """A face's own seed: the same wherever and whenever it is cloaked.

  Args:
    seed: the seed of the run.
    sha256: the SHA-256 of the photo.
    index: the index of the face in it.
  """
  digest = hashlib.sha256(f"{seed} {sha256} {index}".encode()).digest()
  return int.from_bytes(digest[:4], "little")


def random_problem(
  size: int,
  *,
  own: Mapping[str, Float32[np.ndarray, " d"]],
  target: Mapping[str, Float32[np.ndarray, " d"]],
) -> solver.Problem:
  """A face of random pixels, to measure time with.

  Args:
    size: the crop's side in pixels, all of it filled.
    own: by extractor, its normalised embedding.
    target: by extractor, the target's.

  Returns:
    The problem, always the same, with numpy leaves.
  """
  pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3))
  return solver.Problem(
    original=pixels.astype(np.float32),
    coverage=np.ones((size, size), np.float32),
    weights=np.full((size, size), 1 / size**2, np.float32),
    side=np.float32(size),
    tables=_tables_in_crop(None, 1.0),
    colour=np.float32(1),
    budget=np.float32(MODES["mid"].rho),
    own=dict(own),
    target=dict(target),
    own_weight=np.float32(MODES["mid"].own_weight),
    seed=np.uint32(0),
  )


def _persons(
  found: Sequence[Sequence[finder.AlignedFace]],
  own: Mapping[str, Float32[np.ndarray, "n d"]],
  labels: Sequence[Any],
) -> Int64[np.ndarray, " n"]:
  """Whose face each is: by its label where it has one, else by its looks."""
  photos = np.repeat(np.arange(len(found)), [len(faces) for faces in found])
  told: dict[Any, list[int]] = {}
  number = 0
  for faces, label in zip(found, labels, strict=True):
    if faces and label is not None:
      extents = [face.alignment.extent for face in faces]
      told.setdefault(label, []).append(number + int(np.argmax(extents)))
    number += len(faces)
  persons = np.full(len(photos), -1)
  for person, numbers in enumerate(told.values()):
    persons[numbers] = person
  rest = np.flatnonzero(persons < 0)
  if len(rest):
    some = {name: e[rest] for name, e in own.items()}
    length = sum(e.shape[1] for e in some.values())
    codes = grouping.Coder(length, faces=len(rest)).codes(some)
    persons[rest] = len(told) + grouping.groups(
      codes, photos[rest], threshold=SAME_PERSON
    )
  return persons


def _warn(message: str) -> None:
  warnings.warn(message, stacklevel=2)


def _bank(known: recognition.Recognition, file: Path | None) -> bank_lib.Bank:
  """The bank for all extractors.

  To those that the package's does not cover its averaged faces are shown.
  """
  names = [extractor.name for extractor in known.extractors]
  # Whatever a caller's own function is called, the package does not know it.
  own = {
    extractor.name
    for extractor in known.extractors
    if isinstance(extractor.module, architectures.Function)
  }
  missing = set(names) - (bank_lib.names(file) - own)
  if file is not None or not missing:
    return bank_lib.load(names, file=file)
  covered = bank_lib.load([name for name in names if name not in missing])
  averaged = averages.load()
  seen = known.embed_pictures(averaged.faces)
  rest = {name: seen[name][averaged.groups] for name in sorted(missing)}
  return bank_lib.Bank(embeddings={**covered.embeddings, **rest})


def _tables_in_crop(
  tables: UInt16[np.ndarray, "2 8 8"] | None, scale: float
) -> Float32[np.ndarray, "2 8 8"]:
  """Quantisation tables as they act on a crop that was scaled down.

  A frequency of the crop's blocks is `scale` times lower in the photo's.
  """
  if tables is None:
    tables = _QUALITY_75
  index = np.round(np.arange(8) / max(scale, 1)).astype(int)
  return np.maximum(tables[:, index][:, :, index], 1).astype(np.float32)
