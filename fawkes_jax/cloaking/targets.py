"""Whom a cloaked face shall look like to a machine.

The Fawkes paper (section 4.2): of many candidate identities, the one whose
images are farthest from all of the user's; one target for all photos of a
person, or the person's cloaks would pull in different directions.
"""

import numpy as np
from jaxtyping import Float32, Int64


def farthest(
  faces: dict[str, Float32[np.ndarray, "n d"]],
  candidates: dict[str, Float32[np.ndarray, "k d"]],
) -> int:
  """The max-min rule: the candidate whose nearest of some faces is farthest.

  Args:
    faces: by extractor, normalised embeddings of one person's faces.
    candidates: by extractor, normalised embeddings of the candidates, one
      identity a row, the same in each.

  Returns:
    The index of the candidate; the distance is the mean over extractors.
  """
  distances = [1 - faces[name] @ candidates[name].T for name in sorted(faces)]
  return int(np.argmax(np.mean(distances, axis=0).min(axis=0)))


class People:
  """The people met so far in a run, each with one target.

  A face belongs to the known person whose reference embedding is nearest, if
  that is near enough; otherwise a new person begins. Faces are compared in
  one extractor's space.
  """

  def __init__(self, *, extractor: str, threshold: float):
    """Starts without people.

    Args:
      extractor: whose embeddings are compared.
      threshold: the least cosine between two faces of the same person.
    """
    self._extractor = extractor
    self._threshold = threshold
    self.references: list[np.ndarray] = []
    self.targets: list[int] = []

  def assign(
    self,
    faces: dict[str, Float32[np.ndarray, "n d"]],
    candidates: dict[str, Float32[np.ndarray, "k d"]],
  ) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Finds whose faces these are and gives each person a target.

    Args:
      faces: by extractor, normalised embeddings.
      candidates: as in `farthest`.

    Returns:
      The person and the target of each face. The order of calls, and of
      faces in a call, decides who becomes a person's reference; the same
      calls give the same answer.
    """
    people = [self._person(face) for face in faces[self._extractor]]
    for person in range(len(self.targets), len(self.references)):
      own = [i for i, other in enumerate(people) if other == person]
      self.targets.append(
        farthest({name: f[own] for name, f in faces.items()}, candidates)
      )
    return (
      np.array(people, np.int64),
      np.array([self.targets[p] for p in people], np.int64),
    )

  def _person(self, face: np.ndarray) -> int:
    """The index of a face's person; adds one where nobody is near."""
    if self.references:
      cosines = np.stack(self.references) @ face
      nearest = int(np.argmax(cosines))
      if cosines[nearest] >= self._threshold:
        return nearest
    self.references.append(face)
    return len(self.references) - 1
