"""Whom a person's faces shall look like to a machine.

The Fawkes paper (section 4.2) cloaks all photos of a user together: the target
is, of many candidate identities, the one whose images are farthest from all of
the user's. A tracker, too, learns a person from several photos; so what a cloak
leaves behind is the person's mean embedding, not that of one photo, which is as
much of a pose and of the light.

Where several people are cloaked together, each approaches another one of them,
as the decoys of FoggySight do (Evtimov, Sturmfels and Kohno, PoPETs 2021): a
tracker that has learned all of them finds a clean photo of one nearer to the
cloaks of whoever approaches them than to their own.
"""

from collections.abc import Mapping

import numpy as np
import scipy.optimize
from jaxtyping import Bool, Float32, Int64

Embeddings = Mapping[str, Float32[np.ndarray, "n d"]]
"""By extractor, normalised embeddings, one face or identity a row."""

NOBODY = -1

_MOST_ALIKE = 0.15
"""People whose cosine is larger may be relatives, or one person: they are no
targets for each other."""
_DOUBLE = 0.1
"""Twice as many photos of one as of the other weigh as much as this in cosine:
a decoy should be as strong as those it stands in for."""
_NEVER = 100.0
_AT_ONCE = 256
"""The assignment's time grows with the cube of the people."""


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
  """Gives each person a stranger as a target.

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


def exchange(
  means: Embeddings,
  photos: Int64[np.ndarray, " p"],
  *,
  cloaked: Bool[np.ndarray, " p"] | None = None,
  settled: Bool[np.ndarray, " p"] | None = None,
  standing: Mapping[int, int] | None = None,
  called: Mapping[int, str] | None = None,
) -> Int64[np.ndarray, " p"]:
  """Gives each person another one as a target, so that each is one's target.

  Of all ways to do so the one with the largest sum of cosines, less what
  different numbers of photos cost: whoever is like somebody already gets
  nearer to them. People who are too much alike are left out. Many people are
  divided by their numbers of photos.

  Args:
    means: of people, normalised.
    photos: how many of each there are, at least 1.
    cloaked: who takes part; None for everybody.
    settled: who of these has a stranger as a target, and keeps it: only others
      approach such people; None for nobody.
    standing: targets that people have already, by their indices; one that may
      not be is dropped.
    called: what people are called who have a name; those of one name are one
      person, such as a child and the adult, and no targets for each other.

  Returns:
    The index of each person's target; `NOBODY` for whom there is none.
  """
  if cloaked is None:
    cloaked = np.ones(len(photos), bool)
  own = np.arange(len(photos))
  first: dict[str, int] = {}
  for person, name in sorted((called or {}).items()):
    own[person] = first.setdefault(name, person)
  chosen = np.full(len(photos), NOBODY, np.int64)
  for person, target in (standing or {}).items():
    if cloaked[person] and cloaked[target] and own[person] != own[target]:
      chosen[person] = target
  order = np.argsort(-photos, kind="stable")
  order = order[cloaked[order]]
  whom = order[~np.isin(order, chosen)]
  who = order[chosen[order] == NOBODY]
  if settled is not None:
    who = who[~settled[who]]
  parts = max(1, -(-max(len(who), len(whom)) // _AT_ONCE))
  for some, others in zip(
    np.array_split(who, parts), np.array_split(whom, parts), strict=True
  ):
    alike = np.mean(
      [e[some].astype(np.float32) @ e[others].T for e in means.values()], axis=0
    )
    ratio = np.log2(photos[some])[:, None] - np.log2(photos[others])[None]
    cost = np.round(_DOUBLE * np.abs(ratio) - alike, 5)
    one = own[some][:, None] == own[others][None]
    cost[(alike > _MOST_ALIKE) | one] = _NEVER
    rows, columns = scipy.optimize.linear_sum_assignment(cost)
    fit = cost[rows, columns] < _NEVER
    chosen[some[rows[fit]]] = others[columns[fit]]
  return chosen


def _mean(embeddings: np.ndarray) -> np.ndarray:
  total = embeddings.sum(axis=0)
  return total / np.linalg.norm(total)
