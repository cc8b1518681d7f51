"""The people of an album, and their targets."""

import dataclasses
import itertools
import time
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int

from fawkes_jax.cloaking import solver, targets
from fawkes_jax.faces import cloaker as cloaker_lib
from fawkes_jax.runs import saving
from fawkes_jax.runs.failures import one_photo

Problem = tuple[tuple[saving.Job, int], solver.Problem]
"""Of a face of a job, by its number."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class People:
  """The people of an album.

  Attributes:
    means: by extractor, what each face has in common with its person's others.
    targets: of each face, its number among the cloaker's.
    photos: how many there are of each face's person.
    first: by job, the number of its first face.
  """

  means: dict[str, Float32[np.ndarray, "n d"]]
  targets: Int[np.ndarray, " n"]
  photos: Int[np.ndarray, " n"]
  first: dict[saving.Job, int]


def tell_apart(
  jobs: Sequence[saving.Job], cloaker: cloaker_lib.Cloaker
) -> People:
  """Groups the faces of an album by person, and chooses their targets.

  Args:
    jobs: the photos with faces, in the order of their names: results do not
      depend on which of them were looked at first.
    cloaker: of the run.

  Returns:
    The people.
  """
  own = {
    name: np.concatenate([job.own[name] for job in jobs])
    for name in cloaker.candidates
  }
  counts = [len(job.faces) for job in jobs]
  people = targets.people(
    own,
    np.repeat(np.arange(len(counts)), counts),
    threshold=cloaker_lib.SAME_PERSON,
  )
  starts = itertools.accumulate(counts, initial=0)
  return People(
    means=targets.identities(own, people),
    targets=targets.choose(own, people, cloaker.candidates),
    photos=np.bincount(people)[people],  # No photo shows a person twice.
    first=dict(zip(jobs, starts, strict=False)),
  )


def problems(
  job: saving.Job, people: People, cloaker: cloaker_lib.Cloaker, *, seed: int
) -> list[Problem]:
  """What the solver is to do for the faces of a photo.

  Args:
    job: gets the names of the targets, what is known of people, and the time.
    people: of its album.
    cloaker: of the run.
    seed: of the run.

  Returns:
    A problem a face.

  Raises:
    PhotoError: one cannot be stated.
  """
  first = people.first[job]
  chosen = people.targets[first : first + len(job.faces)]
  job.photos = people.photos[first : first + len(job.faces)].tolist()
  job.target_names = [cloaker.target_names[target] for target in chosen]
  job.started = time.monotonic()
  with one_photo("preparing its faces"):
    return [
      (
        (job, index),
        cloaker.problem(
          face,
          own={name: e[first + index] for name, e in people.means.items()},
          target=target,
          grey=job.grey,
          seed=cloaker_lib.face_seed(seed, job.sha256, index),
          jpeg_tables=job.jpeg_tables,
        ),
      )
      for index, (face, target) in enumerate(
        zip(job.faces, chosen, strict=True)
      )
    ]
