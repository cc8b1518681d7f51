"""What a tracker can learn from the cloaks of other people.

A tracker that owns the cloaking tool makes pairs of its own, clean and cloaked
photos of people who are not protected, and learns to see through cloaks
(Radiya-Dixit et al., "Data Poisoning Won't Save You From Facial Recognition",
2021). Here it learns a linear map of a frozen recogniser's features;
how strongly it trusts its pairs it decides itself, on people that it leaves
out.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from fawkes_jax.protection import heads

_STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)
_FOLDS = 5


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Adaptation:
  """Linear maps around a centre.

  Attributes:
    centre: the centre of the features, [d].
    known: of features to train on, some of which may be cloaked, [d, d].
    new: of features to recognise, which are clean, [d, d].
  """

  centre: Float[np.ndarray, " d"]
  known: Float[np.ndarray, "d d"]
  new: Float[np.ndarray, "d d"]

  def map_known(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Maps features to train on."""
    return (x - self.centre) @ self.known + self.centre

  def map_new(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Maps features to recognise."""
    return (x - self.centre) @ self.new + self.centre


def denoiser(
  before: Float[np.ndarray, "n d"],
  after: Float[np.ndarray, "n d"],
  labels: Int[np.ndarray, " n"],
) -> Adaptation:
  """A map from cloaked features to clean ones, which leaves clean ones alone.

  Ridge regression towards the identity.

  Args:
    before: features of clean photos.
    after: features of the same photos, cloaked.
    labels: the labels of the people on them.
  """
  return _best(_denoiser, before, after, labels)


def projection(
  before: Float[np.ndarray, "n d"],
  after: Float[np.ndarray, "n d"],
  labels: Int[np.ndarray, " n"],
) -> Adaptation:
  """A map that shrinks what differs between the photos of one person.

  Within-class covariance normalisation (Hatch et al. 2006), where clean and
  cloaked photos of a person are one class.

  Args:
    before: features of clean photos.
    after: features of the same photos, cloaked.
    labels: the labels of the people on them.
  """
  return _best(_projection, before, after, labels)


# Learns from features, clean and cloaked, and labels; what it returns takes how
# strongly not to trust them.
_Fit = Callable[
  [np.ndarray, np.ndarray, np.ndarray], Callable[[float], Adaptation]
]


def _denoiser(
  before: np.ndarray, after: np.ndarray, labels: np.ndarray
) -> Callable[[float], Adaptation]:
  centre = before.mean(axis=0)
  x = np.concatenate([after, before]) - centre
  y = np.concatenate([before, before]) - centre
  values, vectors = np.linalg.eigh(x.T @ x)
  change = vectors.T @ (x.T @ (y - x))
  identity = np.eye(x.shape[1])

  def learned(strength: float) -> Adaptation:
    ridge = max(strength * values.mean(), 1e-12)
    known = identity + vectors @ (change / (values + ridge)[:, None])
    return Adaptation(centre=centre, known=known, new=identity)

  return learned


def _projection(
  before: np.ndarray, after: np.ndarray, labels: np.ndarray
) -> Callable[[float], Adaptation]:
  centre = before.mean(axis=0)
  _, index = np.unique(np.concatenate([labels, labels]), return_inverse=True)
  x = np.concatenate([before, after])
  means = np.zeros((int(np.max(index)) + 1, x.shape[1]))
  np.add.at(means, index, x)
  means /= np.bincount(index)[:, None]
  rest = x - means[index]
  values, vectors = np.linalg.eigh(rest.T @ rest)

  def learned(strength: float) -> Adaptation:
    scatter = values + max(strength * values.mean(), 1e-12)
    # Features keep their scale, on which a head's regularisation depends.
    known = (vectors * np.sqrt(scatter.mean() / scatter)) @ vectors.T
    return Adaptation(centre=centre, known=known, new=known)

  return learned


def _best(
  fit: _Fit, before: np.ndarray, after: np.ndarray, labels: np.ndarray
) -> Adaptation:
  """The fit whose strength makes the fewest errors on people left out."""
  people = np.unique(labels)
  folds = min(_FOLDS, len(people))
  errors = np.zeros(len(_STRENGTHS))
  for fold in range(folds if folds > 1 else 0):
    out = np.isin(labels, people[fold::folds])
    learned = fit(before[~out], after[~out], labels[~out])
    for i, strength in enumerate(_STRENGTHS):
      errors[i] += _errors(learned(strength), before, after, labels, out)
  # Where several are equally good, the middle one of them.
  good = np.flatnonzero(errors == np.min(errors))
  strength = _STRENGTHS[good[len(good) // 2]]
  return fit(before, after, labels)(strength)


def _errors(
  learned: Adaptation,
  before: np.ndarray,
  after: np.ndarray,
  labels: np.ndarray,
  out: np.ndarray,
) -> int:
  """Wrong names for clean photos of people known by other, cloaked photos."""
  even = np.zeros(len(labels), bool)
  for person in np.unique(labels):
    even[np.flatnonzero(labels == person)[::2]] = True
  known = learned.map_known(
    np.concatenate([after[out & even], before[~out & even]])
  )
  names = np.concatenate([labels[out & even], labels[~out & even]])
  asked = out & ~even
  if not asked.any():
    return 0
  new = learned.map_new(before[asked])
  return int((heads.nearest_centroid(known, names, new) != labels[asked]).sum())
