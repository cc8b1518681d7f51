"""Who is cloaked, where only some people shall be.

Somebody is shown by photos in a folder. A person of the archive is taken for
them where the cosine between both means, as the mean over the extractors, is
large enough. Between two thresholds that is not sure, and what then happens can
be chosen; docs/cloaking.md has the measurement.
"""

import collections
import contextlib
import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from fawkes_jax import types
from fawkes_jax.archive import files, scan
from fawkes_jax.faces import cloaker as cloaker_lib
from fawkes_jax.faces import finder, recognition
from fawkes_jax.options import CloakOptions
from fawkes_jax.runs import saving

UNLIKE, LIKE = 0.45, 0.55
"""Below the first a person is somebody else, from the second on the same."""
_AS_LARGE = 0.5
"""A face in a reference photo of at least this part of the largest's size is a
second person, and nobody in the background."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
  """Somebody whom photos show.

  Attributes:
    name: the folder of the photos.
    mean: normalised, by extractor.
  """

  name: str
  mean: dict[str, Float32[np.ndarray, " d"]]


class Choice:
  """Decides for each face of a photo."""

  def __init__(self, shown: list[Shown], *, protect: bool, unsure: bool):
    """Begins with those who were shown.

    Args:
      shown: whom.
      protect: whether they are cloaked, or all others.
      unsure: whether somebody is cloaked who may be one of them or not.
    """
    self._shown = shown
    self._protect = protect
    self._unsure = unsure

  def apply(self, job: saving.Job) -> saving.Job:
    """A photo with the faces that are to be cloaked.

    Args:
      job: with the means of its people.

    Returns:
      The job for these faces, maybe none; all decisions are in it.
    """
    decisions = [self._decide(job, i) for i in range(len(job.faces))]
    wanted = [i for i, decision in enumerate(decisions) if decision["cloak"]]
    return dataclasses.replace(
      saving.part(job, wanted), decisions=tuple(decisions)
    )

  def _decide(self, job: saving.Job, index: int) -> dict:
    likeness = [
      float(np.mean([e[index] @ one.mean[n] for n, e in job.means.items()]))
      for one in self._shown
    ]
    nearest = int(np.argmax(likeness))
    cosine = likeness[nearest]
    unsure = UNLIKE <= cosine < LIKE
    cloak = self._unsure if unsure else (cosine >= LIKE) == self._protect
    # Where it is unsure, the threshold is on the side that was chosen.
    low = self._unsure == self._protect
    return {
      "box": list(job.faces[index].box),
      "cloak": cloak,
      "nearest": self._shown[nearest].name,
      "likeness": cosine,
      "threshold": UNLIKE if low else LIKE,
      "unsure": unsure,
    }


def of(options: CloakOptions, cloaker: cloaker_lib.Cloaker) -> Choice | None:
  """What the options say; None where everybody is cloaked.

  Raises:
    FawkesError: a folder does not show whom it should.
  """
  folders, flag = options.protect, "protect"
  if folders is None:
    folders, flag = options.spare, "spare"
  if folders is None:
    return None
  shown = [one for folder in folders for one in _people(folder, flag, cloaker)]
  return Choice(
    shown,
    protect=options.protect is not None,
    unsure=options.unsure == "protect",
  )


def _people(
  folder: str, flag: str, cloaker: cloaker_lib.Cloaker
) -> list[Shown]:
  """The people of a folder, or of the folders in it.

  Raises:
    FawkesError: somebody has no face there, or a photo shows two people.
  """
  found: dict[str, list[finder.AlignedFace]] = collections.defaultdict(list)
  names: set[str] = set()
  for source in scan.scan(Path(folder), flag=flag):
    inner, slash, _ = source.relative.partition("/")
    name = f"{folder}/{inner}" if slash else folder
    with contextlib.suppress(types.PhotoError):
      photo = recognition.load_photo(source, cloaker.options)
      names.add(name)
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
  if empty := sorted(names - found.keys()) or ([] if names else [folder]):
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
