"""Whom a person's faces shall look like to a machine.

The Fawkes paper (section 4.2) cloaks all photos of a user together: the target
is, of many candidate identities, the one whose images are farthest from all of
the user's. A tracker, too, learns a person from several photos; so what a cloak
leaves behind is the person's mean embedding, not that of one photo, which is as
much of a pose and of the light.
"""

import numpy as np
from jaxtyping import Float32, Int64

Embeddings = dict[str, Float32[np.ndarray, "n d"]]
"""By extractor, normalised embeddings, one face or identity a row."""


def identities(
  faces: Embeddings, labels: Int64[np.ndarray, " n"]
) -> Embeddings:
  """The mean embeddings of the people that faces are of.

  Args:
    faces: of some photos.
    labels: the person of each, counted from 0.

  Returns:
    For each face its person's, normalised.
  """
  if not len(labels):
    return faces
  known = range(labels.max() + 1)
  return {
    name: np.stack([_mean(e[labels == label]) for label in known])[labels]
    for name, e in faces.items()
  }


def choose(
  faces: Embeddings, labels: Int64[np.ndarray, " n"], candidates: Embeddings
) -> Int64[np.ndarray, " n"]:
  """Gives each person a target.

  Args:
    faces: of some photos.
    labels: the person of each, counted from 0.
    candidates: the same identities in each extractor's space.

  Returns:
    For each face the index of its person's target, by `farthest`.
  """
  chosen = {
    label: farthest(
      {name: e[labels == label] for name, e in faces.items()}, candidates
    )
    for label in set(labels.tolist())
  }
  return np.array([chosen[label] for label in labels.tolist()], np.int64)


def farthest(faces: Embeddings, candidates: Embeddings) -> int:
  """The max-min rule: the candidate whose nearest of some faces is farthest.

  Args:
    faces: of one person.
    candidates: the same identities in each extractor's space.

  Returns:
    The index of the candidate; the distance is the mean over extractors.
  """
  distances = [1 - faces[name] @ candidates[name].T for name in sorted(faces)]
  return int(np.argmax(np.mean(distances, axis=0).min(axis=0)))


def _mean(embeddings: np.ndarray) -> np.ndarray:
  total = embeddings.sum(axis=0)
  return total / np.linalg.norm(total)
