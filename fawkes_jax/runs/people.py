"""Whom the faces of an archive show, and whom they are cloaked against.

A tracker learns a person from several photos; so all photos of a person are
cloaked against what they have in common, and towards one target: another person
of the archive, or where nobody suits, an identity of the bank. Who is who is
found out once for the whole archive, by the process that leads the others, and
written beside the index: two tables, of people and of the faces that are
theirs.
"""

import collections
import dataclasses
import typing
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int32, Int64

from fawkes_jax import types
from fawkes_jax.archive import files, manifest, names, storage
from fawkes_jax.archive import index as index_lib
from fawkes_jax.cloaking import solver, targets
from fawkes_jax.faces import cloaker as cloaker_lib
from fawkes_jax.faces import grouping
from fawkes_jax.models import yunet
from fawkes_jax.runs import saving
from fawkes_jax.runs.failures import one_photo

if typing.TYPE_CHECKING:
  from fawkes_jax.runs import choosing

_SAME_PHOTO = 0.98
"""Faces that are nearer than this are one photograph, cut or saved anew."""
_SAME_PLACE = 0.3
"""Boxes of two detectors are of one face from this part of their union on."""
_MOST = 64
"""So many photos of a person make its mean, those that differ most."""
_FACES = f"{index_lib.FOLDER}/people-faces.parquet"
_PEOPLE = f"{index_lib.FOLDER}/people.parquet"
_BLOCK = 65_536
_AMONG = "archive/"
_DIGITS = 16
"""Of the digest of the photo that a target's name has."""

Problem = tuple[tuple[saving.Job, int], solver.Problem]
"""Of a face of a job, by its number."""


def arrange(
  index: index_lib.Index,
  store: storage.Store,
  cloaker: cloaker_lib.Cloaker,
  rows: manifest.Rows,
  *,
  config: str | None = None,
  choice: "choosing.Choice | None" = None,
  mapping: grouping.Map = map,
) -> None:
  """Finds out who is who in an archive, and writes it down.

  Args:
    index: of the faces of all photos.
    store: the output folder.
    cloaker: of the run.
    rows: of the manifest; a person keeps the target that its photos have.
    config: of the run, see `Row`: photos of other rows are cloaked anew; None
      for all rows.
    choice: who is cloaked, and can be another one's target; None for everybody.
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
  boxes = index.boxes()
  known = Whose(
    sha256=np.array([sha256 for sha256, _ in photos], "S64"),
    first=np.concatenate([[0], np.cumsum(counts)]),
    people=labels,
    boxes=boxes,
  )
  former = _former(rows, known, config)
  numbers = {name: i for i, name in enumerate(cloaker.target_names)}
  for person, name in former.items():
    goals[person] = numbers.get(name, goals[person])
  means = _means(index, cloaker, labels, chosen, len(goals))
  people = pa.table(
    {
      "person": np.arange(len(goals), dtype=np.int32),
      "target": goals.astype(np.int32),
      "towards": np.full(len(goals), targets.NOBODY, np.int32),
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
  if cloaker.exchanges:
    everybody = People(cloaker, people, known, names.read(store), seed=0)
    settled = np.zeros(len(goals), bool)
    settled[[who for who, name in former.items() if name in numbers]] = True
    towards = _exchanged(
      everybody, _cloaked(choice, everybody), settled, former, store
    )
    people = people.set_column(
      people.schema.get_field_index("towards"), "towards", pa.array(towards)
    )
  offsets = pa.array(known.first, pa.int32())
  faces = pa.table(
    {
      "sha256": [sha256 for sha256, _ in photos],
      "people": pa.ListArray.from_arrays(offsets, pa.array(labels, pa.int32())),
      "boxes": pa.ListArray.from_arrays(
        offsets,
        pa.FixedSizeListArray.from_arrays(pa.array(boxes.reshape(-1)), 4),
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

  def target_names(self) -> list[str]:
    """What each person is called where it is another one's target.

    By its first face, as people have other numbers when photos join.
    """
    _, places = np.unique(self.people, return_index=True)
    photos = np.searchsorted(self.first, places, side="right") - 1
    return [
      f"{_AMONG}{self.sha256[photo].decode()[:_DIGITS]}/{place}"
      for photo, place in zip(
        photos.tolist(), (places - self.first[photos]).tolist(), strict=True
      )
    ]

  def target(self, name: str) -> int | None:
    """The person whom `target_names` call so, also if photos have joined.

    Args:
      name: of a target.

    Returns:
      The person; None where there is no such face.
    """
    if not name.startswith(_AMONG):
      return None
    digits, _, number = name.removeprefix(_AMONG).partition("/")
    photo = int(np.searchsorted(self.sha256, np.bytes_(digits.encode())))
    if photo == len(self.sha256) or not number.isdecimal():
      return None
    place = int(self.first[photo]) + int(number)
    there = self.sha256[photo].decode().startswith(digits)
    if not there or place >= self.first[photo + 1]:
      return None
    return int(self.people[place])

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
    towards: instead of that, the person that it approaches; or
      `targets.NOBODY`.
    photos: how many of each person there are.
    differing: how many of them its mean is made of.
    means: by extractor, the mean embedding of each person, as half floats.
    names: what people are called who have a name.
  """

  def __init__(
    self,
    cloaker: cloaker_lib.Cloaker,
    people: pa.Table,
    whose: Whose,
    named: names.Names,
    *,
    seed: int,
  ):
    """Knows who is who, see `read`.

    Args:
      cloaker: of the run.
      people: the table of them.
      whose: who is on each photo.
      named: the names, and the faces that have them.
      seed: of the run.
    """
    self._cloaker = cloaker
    self._whose = whose
    self._seed = seed
    self.targets, self.towards, self.photos, self.differing = (
      people[name].to_numpy()
      for name in ("target", "towards", "photos", "differing")
    )
    self.names = whose.called(named)
    self._target_names = whose.target_names()
    self.means: dict[str, np.ndarray] = {
      name: index_lib.numbers(people[f"mean {name}"])
      for name in cloaker.candidates
    }

  def __len__(self) -> int:
    return len(self.targets)

  def of(self, sha256: str) -> np.ndarray | None:
    """The person of each face of a photo; None where it is not known."""
    return self._whose.of(sha256)

  def target(self, name: str) -> int | None:
    """The person whom `target_name` calls so, see `Whose.target`."""
    return self._whose.target(name)

  def target_name(self, person: int) -> str:
    """What a person is called as a target, see `Whose.target_names`."""
    return self._target_names[person]

  def mean(self, person: int) -> dict[str, Float32[np.ndarray, " d"]]:
    """The normalised mean embedding of a person, by extractor."""
    return {
      name: normalised(mean[person : person + 1].astype(np.float32))[0]
      for name, mean in self.means.items()
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
          for name, mean in self.means.items()
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
      goals = targets.choose(
        job.own, np.arange(len(job.faces)), cloaker.candidates
      )
      job.targets = {n: e[goals] for n, e in cloaker.candidates.items()}
      job.exchanged = [False] * len(job.faces)
      job.target_names = [cloaker.target_names[goal] for goal in goals]
      job.photos = [1] * len(job.faces)
      job.called = [None] * len(job.faces)
    else:
      self._aim(job, self.targets[people], self.towards[people])
      job.photos = self.photos[people].tolist()
      job.called = [self.names.get(person) for person in people.tolist()]
      job.means = {
        name: normalised(mean[people].astype(np.float32))
        for name, mean in self.means.items()
      }

  def _aim(
    self,
    job: saving.Job,
    goals: Int64[np.ndarray, " n"],
    towards: Int64[np.ndarray, " n"],
  ) -> None:
    """Says towards whom faces are cloaked, see `targets` and `towards`."""
    bank = self._cloaker
    among = towards != targets.NOBODY
    job.targets = {
      name: np.where(
        among[:, None],
        normalised(mean[towards].astype(np.float32)),
        bank.candidates[name][goals],
      )
      for name, mean in self.means.items()
    }
    job.exchanged = among.tolist()
    job.target_names = [
      self._target_names[person] if there else bank.target_names[goal]
      for there, person, goal in zip(among, towards, goals, strict=True)
    ]

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
            target={name: e[index] for name, e in job.targets.items()},
            exchanged=job.exchanged[index],
            grey=job.grey,
            seed=cloaker_lib.face_seed(
              self._seed, job.sha256, job.numbers[index]
            ),
            jpeg_tables=job.jpeg_tables,
          ),
        )
        for index, face in enumerate(job.faces)
      ]


def read(
  cloaker: cloaker_lib.Cloaker, store: storage.Store, *, seed: int
) -> People:
  """Reads who is who.

  Args:
    cloaker: of the run.
    store: the output folder.
    seed: of the run.

  Raises:
    FawkesError: it cannot be read.
  """
  try:
    people, known = _read(store, _PEOPLE), whose(store)
  except FileNotFoundError as error:
    raise types.FawkesError(
      f"{store.address}/{index_lib.FOLDER} cannot be read:"
      f" {files.reason(error)}"
    ) from error
  if "towards" not in people.column_names:
    raise types.FawkesError(
      f"{store.address}/{_PEOPLE} is of an earlier version: `fawkes-jax index`"
      " makes it anew"
    )
  return People(cloaker, people, known, names.read(store), seed=seed)


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
  rows: manifest.Rows, known: Whose, config: str | None
) -> dict[int, str]:
  """The targets of people some of whose photos are cloaked already, by name."""
  votes: dict[int, collections.Counter[str]] = collections.defaultdict(
    collections.Counter
  )
  for row in rows:
    if row.status != "cloaked" or config not in (None, row.config):
      continue
    for face in row.faces:
      whose_face = row.source_sha256 or "", tuple(face["box"])
      person = known.person(whose_face)
      if person is not None:
        votes[person][str(face["target"])] += 1
  return {
    person: min(votes[person], key=lambda name: (-votes[person][name], name))
    for person in sorted(votes)
  }


def _cloaked(
  choice: "choosing.Choice | None", everybody: People
) -> Bool[np.ndarray, " p"]:
  """Who is cloaked."""
  if choice is None:
    return np.ones(len(everybody), bool)
  try:
    return choice.among(everybody).cloaked(everybody)
  except types.FawkesError:  # Each process says so when it cloaks.
    return np.zeros(len(everybody), bool)


def _exchanged(
  everybody: People,
  cloaked: Bool[np.ndarray, " p"],
  settled: Bool[np.ndarray, " p"],
  former: Mapping[int, str],
  store: storage.Store,
) -> Int32[np.ndarray, " p"]:
  """Whom each person approaches.

  Args:
    everybody: in the archive.
    cloaked: who is.
    settled: who of these has a stranger as a target, and keeps it.
    former: targets that people have already, by name.
    store: where an earlier run may have written down who approaches whom.
  """
  standing = _written(store) | {
    everybody.target_name(who): target for who, target in former.items()
  }
  kept = {}
  for one, other in standing.items():
    who, whom = everybody.target(one), everybody.target(other)
    if who is not None and whom is not None:
      kept[who] = whom
  return targets.exchange(
    everybody.means,
    everybody.photos,
    cloaked=cloaked,
    settled=settled,
    standing=kept,
    called=everybody.names,
  ).astype(np.int32)


def _written(store: storage.Store) -> dict[str, str]:
  """Who approaches whom in what is written down, by name."""
  try:
    towards = _read(store, _PEOPLE)["towards"].to_pylist()
    called = whose(store).target_names()
  except (FileNotFoundError, KeyError, types.FawkesError):
    return {}  # By an earlier version, or not yet.
  return {
    called[who]: called[whom]
    for who, whom in enumerate(towards)
    if whom != targets.NOBODY
  }


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
