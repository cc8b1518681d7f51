"""Whom the faces of an archive show, and whom they are cloaked against.

A tracker learns a person from several photos; so all photos of a person are
cloaked against what they have in common, and towards one target. Who is who is
found out once for the whole archive, by the process that leads the others, and
written beside the index: two tables, of people and of the faces that are
theirs.
"""

import collections
import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int32, Int64

from fawkes_jax import types
from fawkes_jax.archive import files, manifest, names, storage
from fawkes_jax.archive import index as index_lib
from fawkes_jax.cloaking import solver, targets
from fawkes_jax.faces import cloaker as cloaker_lib
from fawkes_jax.faces import grouping
from fawkes_jax.models import yunet
from fawkes_jax.runs import saving
from fawkes_jax.runs.failures import one_photo

_SAME_PHOTO = 0.98
"""Faces that are nearer than this are one photograph, cut or saved anew."""
_SAME_PLACE = 0.3
"""Boxes of two detectors are of one face from this part of their union on."""
_MOST = 64
"""So many photos of a person make its mean, those that differ most."""
_FACES = f"{index_lib.FOLDER}/people-faces.parquet"
_PEOPLE = f"{index_lib.FOLDER}/people.parquet"
_BLOCK = 65_536

Problem = tuple[tuple[saving.Job, int], solver.Problem]
"""Of a face of a job, by its number."""


def arrange(
  index: index_lib.Index,
  store: storage.Store,
  cloaker: cloaker_lib.Cloaker,
  rows: manifest.Rows,
  *,
  mapping: grouping.Map = map,
) -> None:
  """Finds out who is who in an archive, and writes it down.

  Args:
    index: of the faces of all photos.
    store: the output folder.
    cloaker: of the run.
    rows: of the manifest; a person keeps the target that its photos have.
    mapping: does the searches of `grouping.groups`.

  Raises:
    FawkesError: the folder cannot be used.
  """
  photos = list(index.photos())
  counts = np.array([count for _, count in photos], np.int64)
  total = int(counts.sum())
  whose = np.repeat(np.arange(len(photos)), counts)
  # Grouping uses the vectors up, as there is no room for two of each.
  labels = grouping.groups(
    _codes(index, cloaker, total),
    whose,
    threshold=cloaker_lib.SAME_PERSON,
    mapping=mapping,
  )
  vectors = _codes(index, cloaker, total)
  chosen = _differing(vectors, labels)
  goals = _goals(vectors, labels, chosen, cloaker)
  del vectors
  for person, target in _former(index, rows, labels, counts, cloaker):
    goals[person] = target
  means = _means(index, cloaker, labels, chosen, len(goals))
  people = pa.table(
    {
      "person": np.arange(len(goals), dtype=np.int32),
      "target": goals.astype(np.int32),
      "photos": np.bincount(labels, minlength=len(goals)).astype(np.int32),
      "differing": np.bincount(
        labels, weights=chosen, minlength=len(goals)
      ).astype(np.int32),
      **{
        f"mean {name}": pa.FixedSizeListArray.from_arrays(
          pa.array(mean.reshape(-1)), mean.shape[1]
        )
        for name, mean in means.items()
      },
    }
  )
  offsets = np.concatenate([[0], np.cumsum(counts)])
  faces = pa.table(
    {
      "sha256": [sha256 for sha256, _ in photos],
      "people": pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(labels, pa.int32())
      ),
      "boxes": pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()),
        pa.FixedSizeListArray.from_arrays(
          pa.array(index.boxes().reshape(-1)), 4
        ),
      ),
    }
  )
  try:
    # Where there are people, there are their faces.
    index_lib.write(store, _FACES, faces, {})
    index_lib.write(store, _PEOPLE, people, {})
  except OSError as error:
    raise types.FawkesError(
      f"{store.address}/{index_lib.FOLDER} cannot be written:"
      f" {files.reason(error)}"
    ) from error


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Whose:
  """Who is on each photo of an archive.

  Attributes:
    sha256: of the photos, in order.
    first: of each photo, the place of its first face; and the end.
    people: the person of each face.
    boxes: where each face is on its photo.
  """

  sha256: np.ndarray
  first: Int64[np.ndarray, " m"]
  people: Int64[np.ndarray, " n"]
  boxes: Int32[np.ndarray, "n 4"]

  def of(self, sha256: str) -> Int64[np.ndarray, " k"] | None:
    """The person of each face of a photo; None where it is not known."""
    faces = self._faces(sha256)
    return None if faces is None else self.people[faces]

  def called(self, known: names.Names) -> dict[int, str]:
    """What people are called: what most of their faces are that have a name.

    A name of which no face is here is nobody's.

    Args:
      known: the names, and the faces that have them.

    Returns:
      The names of those who have one.
    """
    votes: dict[int, collections.Counter[str]] = collections.defaultdict(
      collections.Counter
    )
    for name, faces in sorted(known.items()):
      for face in faces:
        if (person := self.person(face)) is not None:
          votes[person][name] += 1
    return {
      person: max(votes[person].items(), key=lambda item: item[1])[0]
      for person in sorted(votes)
    }

  def person(self, face: names.Face) -> int | None:
    """Whose a face is, also if another detector had found it.

    Args:
      face: as a name knows it.

    Returns:
      The person; None where there is no such face.
    """
    sha256, box = face
    places = self._faces(sha256)
    if places is None or places.start == places.stop:
      return None
    shared = yunet.overlaps(np.array(box), self.boxes[places])
    best = int(np.argmax(shared))
    if shared[best] < _SAME_PLACE:
      return None
    return int(self.people[places.start + best])

  def faces_of(self, person: int) -> Iterator[names.Face]:
    """The faces of a person, as names know them."""
    for place in np.flatnonzero(self.people == person).tolist():
      photo = int(np.searchsorted(self.first, place, side="right")) - 1
      left, top, right, bottom = self.boxes[place].tolist()
      yield self.sha256[photo].decode(), (left, top, right, bottom)

  def _faces(self, sha256: str) -> slice | None:
    """The places of a photo's faces; None where it is not known."""
    key = np.bytes_(sha256.encode())
    place = int(np.searchsorted(self.sha256, key))
    if place == len(self.sha256) or self.sha256[place] != key:
      return None
    return slice(int(self.first[place]), int(self.first[place + 1]))


def whose(store: storage.Store) -> Whose:
  """Reads who is on each photo of an archive.

  Raises:
    FileNotFoundError: that was not found out.
    FawkesError: it cannot be read.
  """
  faces = _read(store, _FACES)
  people = faces["people"].combine_chunks()
  return Whose(
    sha256=np.array(faces["sha256"].to_pylist(), "S64"),
    first=people.offsets.to_numpy().astype(np.int64),
    people=people.flatten().to_numpy().astype(np.int64),
    boxes=index_lib.numbers(faces["boxes"].combine_chunks().flatten()),
  )


def are_known(store: storage.Store) -> bool:
  """Whether it was found out who is on the photos of an archive.

  Raises:
    FawkesError: the folder cannot be read.
  """
  try:
    return _PEOPLE.rpartition("/")[2] in store.names(index_lib.FOLDER)
  except OSError as error:
    raise types.FawkesError(
      f"{store.address}/{index_lib.FOLDER} cannot be read:"
      f" {files.reason(error)}"
    ) from error


def _read(store: storage.Store, name: str) -> pa.Table:
  try:
    return index_lib.read(store, name)[0]
  except FileNotFoundError:
    raise
  except OSError as error:
    raise types.FawkesError(
      f"{store.address}/{index_lib.FOLDER} cannot be read:"
      f" {files.reason(error)}"
    ) from error
  except types.FawkesError as error:
    raise types.FawkesError(
      f"{store.address}/{name} is {error}: `fawkes-jax index` makes it anew"
    ) from error


class People:
  """The people of an archive.

  Attributes:
    targets: of each person, its number among the cloaker's.
    photos: how many of each person there are.
    differing: how many of them its mean is made of.
    names: what people are called who have a name.
  """

  def __init__(
    self,
    cloaker: cloaker_lib.Cloaker,
    store: storage.Store,
    *,
    seed: int,
  ):
    """Reads who is who.

    Args:
      cloaker: of the run.
      store: the output folder.
      seed: of the run.

    Raises:
      FawkesError: it cannot be read.
    """
    self._cloaker = cloaker
    self._seed = seed
    try:
      people, self._whose = _read(store, _PEOPLE), whose(store)
    except FileNotFoundError as error:
      raise types.FawkesError(
        f"{store.address}/{index_lib.FOLDER} cannot be read:"
        f" {files.reason(error)}"
      ) from error
    self.targets, self.photos, self.differing = (
      people[name].to_numpy() for name in ("target", "photos", "differing")
    )
    self.names = self._whose.called(names.read(store))
    self._means: dict[str, np.ndarray] = {
      name: index_lib.numbers(people[f"mean {name}"])
      for name in cloaker.candidates
    }

  def __len__(self) -> int:
    return len(self.targets)

  def of(self, sha256: str) -> np.ndarray | None:
    """The person of each face of a photo; None where it is not known."""
    return self._whose.of(sha256)

  def mean(self, person: int) -> dict[str, Float32[np.ndarray, " d"]]:
    """The normalised mean embedding of a person, by extractor."""
    return {
      name: normalised(mean[person : person + 1].astype(np.float32))[0]
      for name, mean in self._means.items()
    }

  def nearest(
    self, own: Mapping[str, Float32[np.ndarray, "n d"]]
  ) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """Whose mean is the nearest to each of some faces.

    Args:
      own: normalised embeddings, by extractor.

    Returns:
      The people, and the cosines as the mean over the extractors.
    """
    faces = len(next(iter(own.values())))
    person = np.zeros(faces, np.int64)
    likeness = np.full(faces, -1, np.float32)
    for start in range(0, len(self), _BLOCK):
      cosines = np.mean(
        [
          own[name] @ normalised(mean[start : start + _BLOCK].astype("f4")).T
          for name, mean in self._means.items()
        ],
        axis=0,
      )
      best = cosines.max(axis=1)
      nearer = best > likeness
      person[nearer] = start + cosines.argmax(axis=1)[nearer]
      likeness[nearer] = best[nearer]
    return person, likeness

  def state(self, job: saving.Job) -> None:
    """Says against whom, and towards whom, the faces of a photo are cloaked.

    One that nobody has seen before is cloaked for itself.

    Args:
      job: gets the means of its people, their numbers of photos and names,
        and the targets.
    """
    cloaker, people = self._cloaker, self.of(job.sha256)
    if people is None:
      job.means = job.own
      job.targets = [
        targets.farthest(
          {name: e[i : i + 1] for name, e in job.own.items()},
          cloaker.candidates,
        )
        for i in range(len(job.faces))
      ]
      job.photos = [1] * len(job.faces)
      job.called = [None] * len(job.faces)
    else:
      job.targets = self.targets[people].tolist()
      job.photos = self.photos[people].tolist()
      job.called = [self.names.get(person) for person in people.tolist()]
      job.means = {
        name: normalised(mean[people].astype(np.float32))
        for name, mean in self._means.items()
      }
    job.target_names = [cloaker.target_names[goal] for goal in job.targets]

  def problems(self, job: saving.Job) -> list[Problem]:
    """What the solver is to do for the faces of a photo.

    Args:
      job: of which `state` has been said.

    Returns:
      A problem a face.

    Raises:
      PhotoError: one cannot be stated.
    """
    with one_photo("preparing its faces"):
      return [
        (
          (job, index),
          self._cloaker.problem(
            face,
            own={name: e[index] for name, e in job.means.items()},
            target=goal,
            grey=job.grey,
            seed=cloaker_lib.face_seed(
              self._seed, job.sha256, job.numbers[index]
            ),
            jpeg_tables=job.jpeg_tables,
          ),
        )
        for index, (face, goal) in enumerate(
          zip(job.faces, job.targets, strict=True)
        )
      ]


def normalised(rows: np.ndarray) -> np.ndarray:
  """Rows of length one."""
  lengths = np.linalg.norm(rows, axis=1, keepdims=True)
  return rows / np.maximum(lengths, np.finfo(rows.dtype).tiny)


def _centred(
  raw: Mapping[str, np.ndarray], cloaker: cloaker_lib.Cloaker
) -> dict[str, Float32[np.ndarray, "n d"]]:
  """Embeddings of the index as they are compared."""
  return {
    name: normalised(e.astype(np.float32) - cloaker.centres[name])
    for name, e in raw.items()
  }


def _codes(
  index: index_lib.Index, cloaker: cloaker_lib.Cloaker, total: int
) -> Float32[np.ndarray, "n c"]:
  """All faces of an index as vectors, in the order of their places."""
  names = sorted(cloaker.candidates)
  length = sum(cloaker.candidates[name].shape[1] for name in names)
  maker = grouping.Coder(length, faces=total)
  vectors = np.empty((total, maker.length), np.float32)
  for places, raw in index.shards(names):
    vectors[places] = maker.codes(_centred(raw, cloaker))
  return vectors


def _differing(
  vectors: Float32[np.ndarray, "n c"], labels: Int64[np.ndarray, " n"]
) -> np.ndarray:
  """Which faces the means are made of.

  Of a photograph that is there more than once, one; and of many, those that
  are farthest from one another.
  """
  chosen = np.ones(len(labels), bool)
  for rows in _members(labels):
    if len(rows) > 1:
      chosen[rows] = False
      chosen[rows[_spread(vectors[rows])]] = True
  return chosen


def _spread(vectors: Float32[np.ndarray, "n c"]) -> list[int]:
  """Vectors that differ: first the nearest to the mean, then the farthest."""
  likeness = vectors @ vectors.sum(axis=0)
  picked: list[int] = [int(np.argmax(np.round(likeness, 5)))]
  nearest = vectors @ vectors[picked[0]]
  while len(picked) < _MOST:
    farthest = int(np.argmin(np.round(nearest, 5)))
    if nearest[farthest] > _SAME_PHOTO or farthest in picked:
      break
    picked.append(farthest)
    nearest = np.maximum(nearest, vectors @ vectors[farthest])
  return picked


def _members(labels: Int64[np.ndarray, " n"]) -> Iterator[np.ndarray]:
  """The faces of each person."""
  if len(labels):
    order = np.argsort(labels, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _goals(
  vectors: Float32[np.ndarray, "n c"],
  labels: Int64[np.ndarray, " n"],
  chosen: np.ndarray,
  cloaker: cloaker_lib.Cloaker,
) -> Int64[np.ndarray, " p"]:
  """The target of each person, by `targets.farthest`'s rule."""
  names = sorted(cloaker.candidates)
  length = sum(cloaker.candidates[name].shape[1] for name in names)
  maker = grouping.Coder(length, faces=len(labels))
  candidates = maker.codes(cloaker.candidates)
  people = int(labels.max(initial=-1)) + 1
  nearest = np.full((people, len(candidates)), -np.inf, np.float32)
  some = np.flatnonzero(chosen)
  for start in range(0, len(some), _BLOCK):
    part = some[start : start + _BLOCK]
    np.maximum.at(nearest, labels[part], vectors[part] @ candidates.T)
  return np.argmin(np.round(nearest, 5), axis=1)


def _former(
  index: index_lib.Index,
  rows: manifest.Rows,
  labels: Int64[np.ndarray, " n"],
  counts: Int64[np.ndarray, " m"],
  cloaker: cloaker_lib.Cloaker,
) -> Iterator[tuple[int, int]]:
  """People some of whose photos are cloaked already, and their targets."""
  numbers = {name: i for i, name in enumerate(cloaker.target_names)}
  first = dict(
    zip(
      (sha256 for sha256, _ in index.photos()),
      np.cumsum(counts) - counts,
      strict=True,
    )
  )
  votes: dict[int, collections.Counter[int]] = collections.defaultdict(
    collections.Counter
  )
  for row in rows:
    place = first.get(row.source_sha256 or "")
    if row.status != "cloaked" or place is None:
      continue
    for person, face in zip(labels[place:], row.faces, strict=False):
      target = numbers.get(str(face.get("target")))
      if target is not None:
        votes[int(person)][target] += 1
  for person, counted in votes.items():
    most = max(counted.values())
    yield person, min(t for t, count in counted.items() if count == most)


def _means(
  index: index_lib.Index,
  cloaker: cloaker_lib.Cloaker,
  labels: Int64[np.ndarray, " n"],
  chosen: np.ndarray,
  people: int,
) -> dict[str, np.ndarray]:
  """The mean embedding of each person, by extractor, as half floats.

  Sums are of double precision, so that they do not depend on their order once
  they are rounded.
  """
  means = {}
  for name in sorted(cloaker.candidates):
    length = cloaker.candidates[name].shape[1]
    sums = np.zeros((people, length), np.float64)
    for places, raw in index.shards([name]):
      own = _centred(raw, cloaker)[name]
      taken = chosen[places]
      np.add.at(sums, labels[places[taken]], own[taken])
    means[name] = normalised(sums).astype(np.float16)
  return means
