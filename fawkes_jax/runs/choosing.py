"""Who is cloaked, where only some people shall be.

Somebody is shown by photos in a folder, or is a person of the archive who has
been given a name. Another person of the archive is taken for them where the
cosine between both means, as the mean over the extractors, is large enough.
Between two thresholds that is not sure, and what then happens can be chosen;
docs/cloaking.md has the measurement.
"""

import collections
import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from fawkes_jax import types
from fawkes_jax.archive import files, names, scan, stores
from fawkes_jax.faces import cloaker as cloaker_lib
from fawkes_jax.faces import finder, recognition
from fawkes_jax.options import CloakOptions
from fawkes_jax.runs import people as people_lib
from fawkes_jax.runs import saving

UNLIKE, LIKE = 0.45, 0.55
"""Below the first a person is somebody else, from the second on the same."""
_AS_LARGE = 0.5
"""A face in a reference photo of at least this part of the largest's size is a
second person, and nobody in the background."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
  """Somebody who is meant.

  Attributes:
    name: the person's, or the folder of photos that show who it is.
    mean: normalised, by extractor.
    named: whether it is a person of the archive, by name.
  """

  name: str
  mean: dict[str, Float32[np.ndarray, " d"]]
  named: bool = False


class Choice:
  """Decides for each face of a photo."""

  def __init__(
    self,
    shown: list[Shown],
    *,
    protect: bool,
    unsure: bool,
    names: Sequence[str] = (),
  ):
    """Begins with those who were shown.

    Args:
      shown: whom.
      protect: whether they are cloaked, or all others.
      unsure: whether somebody is cloaked who may be one of them or not.
      names: who else is meant; they are looked for `among` the people.
    """
    self._shown = shown
    self._protect = protect
    self._unsure = unsure
    self._names = tuple(names)

  def among(self, everybody: people_lib.People) -> "Choice":
    """The same, when it is known who is in the archive.

    Raises:
      FawkesError: nobody has one of the names.
    """
    shown = list(self._shown)
    for name in self._names:
      own = [who for who, called in everybody.names.items() if called == name]
      if not own:
        flag = "protect" if self._protect else "spare"
        raise types.FawkesError(
          f"--{flag}={files.printable(name)} must name somebody in the archive:"
          f" none of the photos in which {files.printable(name)} was named is"
          " there now"
        )
      shown += [
        Shown(name=name, mean=everybody.mean(who), named=True) for who in own
      ]
    return Choice(shown, protect=self._protect, unsure=self._unsure)

  def absent(self, everybody: people_lib.People) -> Iterator[str]:
    """Says, in words, which folders show somebody who is not in the archive."""
    flag = "protect" if self._protect else "spare"
    for one in self._shown:
      if not one.named:
        _, likeness = everybody.nearest(
          {name: mean[None] for name, mean in one.mean.items()}
        )
        if (most := float(likeness[0])) < UNLIKE:
          yield (
            f"--{flag}: nobody in the archive is like the person in {one.name};"
            f" the cosine is at most {most:.2f} and must be {UNLIKE} at least"
          )

  def cloaked(self, everybody: people_lib.People) -> Bool[np.ndarray, " p"]:
    """Whether each person of the archive is cloaked."""
    return np.array(
      [
        self._decide(everybody.mean(who), everybody.names.get(who))["cloak"]
        for who in range(len(everybody))
      ],
      bool,
    )

  def apply(self, job: saving.Job) -> saving.Job:
    """A photo with the faces that are to be cloaked.

    Args:
      job: with the means and names of its people.

    Returns:
      The job for these faces, maybe none; all decisions are in it.
    """
    decisions = [
      {"box": list(face.box)}
      | self._decide(
        {name: e[i] for name, e in job.means.items()},
        job.called[i] if job.called else None,
      )
      for i, face in enumerate(job.faces)
    ]
    wanted = [i for i, decision in enumerate(decisions) if decision["cloak"]]
    return dataclasses.replace(
      saving.part(job, wanted), decisions=tuple(decisions)
    )

  def _decide(
    self, mean: Mapping[str, Float32[np.ndarray, " d"]], called: str | None
  ) -> dict:
    """Decides about a person by its mean, and its name if it has one."""
    # Whoever has a name is nobody of another name, however alike they are.
    shown = [
      one
      for one in self._shown
      if called is None or not one.named or one.name == called
    ]
    likeness = [
      float(np.mean([e @ one.mean[name] for name, e in mean.items()]))
      for one in shown
    ]
    nearest = int(np.argmax(likeness)) if shown else None
    cosine = -1.0 if nearest is None else likeness[nearest]
    unsure = UNLIKE <= cosine < LIKE
    cloak = self._unsure if unsure else (cosine >= LIKE) == self._protect
    # Where it is unsure, the threshold is on the side that was chosen.
    low = self._unsure == self._protect
    return {
      "cloak": cloak,
      "nearest": called if nearest is None else shown[nearest].name,
      "likeness": None if nearest is None else cosine,
      "threshold": UNLIKE if low else LIKE,
      "unsure": unsure,
    }


def resolved(options: CloakOptions) -> CloakOptions:
  """Options that tell names of people from folders.

  A word is a name where somebody in the output folder has it, and a folder
  otherwise; one with a slash is a folder.

  Raises:
    FawkesError: a word is neither or both, or the names cannot be read.
  """
  words, flag = _said(options)
  if words is None:
    return options
  known = names.read(stores.open_store(options.output))
  # Another name for somebody else can change what becomes of this one.
  said = repr([(name, sorted(faces)) for name, faces in sorted(known.items())])
  digest = hashlib.sha256(said.encode()).hexdigest()[:12]
  meant = []
  for word in words:
    name = names.plain(word)
    there = os.path.exists(word)
    if "/" in word or (there and name not in known):
      continue
    said = f"--{flag}={files.printable(word)} must be"
    if name not in known and known:
      raise types.FawkesError(
        f"{said} a folder, or the name of a person; these have one:"
        f" {names.shown(known)}"
      )
    if name not in known:
      raise types.FawkesError(
        f"{said} a folder, or the name of a person; nobody in"
        f" {files.printable(options.output)} has one, `fawkes-jax people"
        " --name` gives them"
      )
    if there:
      raise types.FawkesError(
        f"{said} the name of a person or a folder, it is both:"
        f" ./{files.printable(word)} is the folder"
      )
    meant.append((name, digest))
  return dataclasses.replace(options, named=tuple(meant))


def of(options: CloakOptions, cloaker: cloaker_lib.Cloaker) -> Choice | None:
  """What the options say; None where everybody is cloaked.

  Raises:
    FawkesError: a folder does not show whom it should.
  """
  words, flag = _said(options)
  if words is None:
    return None
  meant = [name for name, _ in options.named]
  folders = [word for word in words if names.plain(word) not in meant]
  shown = [one for folder in folders for one in _people(folder, flag, cloaker)]
  return Choice(
    shown,
    protect=options.protect is not None,
    unsure=options.unsure == "protect",
    names=meant,
  )


def _said(options: CloakOptions) -> tuple[tuple[str, ...] | None, str]:
  """Who is meant, and the flag that says it."""
  if options.protect is not None:
    return options.protect, "protect"
  return options.spare, "spare"


def _people(
  folder: str, flag: str, cloaker: cloaker_lib.Cloaker
) -> list[Shown]:
  """The people of a folder, or of the folders in it.

  Raises:
    FawkesError: somebody has no face there, or a photo shows two people.
  """
  found: dict[str, list[finder.AlignedFace]] = collections.defaultdict(list)
  seen: set[str] = set()
  for source in scan.scan(Path(folder), flag=flag):
    inner, slash, _ = source.relative.partition("/")
    name = f"{folder}/{inner}" if slash else folder
    with contextlib.suppress(types.PhotoError):
      photo = recognition.load_photo(source, cloaker.options)
      seen.add(name)
      faces = cloaker.recognition.finder.find([photo.pixels])[0]
      faces.sort(key=lambda face: face.alignment.extent, reverse=True)
      if not faces:
        continue
      largest = faces[0].alignment.extent
      if len(faces) > 1 and faces[1].alignment.extent > _AS_LARGE * largest:
        raise types.FawkesError(
          f"--{flag}={files.printable(folder)}: {source.name} shows more than"
          " one person; each photo must show only who is meant"
        )
      found[name].append(faces[0])
  if empty := sorted(seen - found.keys()) or ([] if seen else [folder]):
    raise types.FawkesError(
      f"--{flag} must show the face of everybody who is meant, none was found"
      f" in {files.printable(empty[0])}"
    )
  return [
    Shown(name=files.printable(name), mean=_mean(faces, cloaker))
    for name, faces in sorted(found.items())
  ]


def _mean(
  faces: list[finder.AlignedFace], cloaker: cloaker_lib.Cloaker
) -> dict[str, Float32[np.ndarray, " d"]]:
  own = cloaker.normalised(cloaker.recognition.embed(faces))
  sums = {name: e.sum(axis=0) for name, e in own.items()}
  return {name: e / np.linalg.norm(e) for name, e in sums.items()}
