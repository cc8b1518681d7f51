"""Protection success rates, their uncertainty, cosines, 1:1 verification.

The unit of what is measured is a person, not a photo: photos of one person are
alike, and so is what a tracker makes of them. Confidence intervals therefore
come from drawing people, with all their photos, at random with replacement
(the bootstrap; Efron and Tibshirani, "An Introduction to the Bootstrap",
1993, chapter 13).
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

LEVEL = 0.95
"""Of the confidence intervals."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rate:
  """A mean over photos with its confidence interval over people.

  Attributes:
    value: the mean over all photos; NaN where there is none.
    low: the lower end of the 95 % interval.
    high: its upper end.
    people: how many people it was measured on.
    photos: on how many photos, or pairs of photos.
  """

  value: float
  low: float
  high: float
  people: int
  photos: int


def rate(
  values: Float[np.ndarray, " n"] | Bool[np.ndarray, " n"],
  people: Int[np.ndarray, " n"],
  *,
  draws: int = 1000,
  seed: int = 0,
) -> Rate:
  """The mean of a measure of photos, and how sure it is.

  Args:
    values: the values of each photo; truth values count as 0 and 1.
    people: who is on each photo.
    draws: of people, in the bootstrap.
    seed: the seed of the draws; the same gives the same.

  Returns:
    The mean, and the interval that holds the middle 95 % of the means of the
    drawn people. With one person the interval is empty of information: its
    ends are the mean.
  """
  names, index = np.unique(people, return_inverse=True)
  if not len(names):
    return Rate(value=np.nan, low=np.nan, high=np.nan, people=0, photos=0)
  sums = np.bincount(index, weights=np.asarray(values, np.float64))
  counts = np.bincount(index)
  rng = np.random.default_rng(seed)
  drawn = rng.integers(len(names), size=(draws, len(names)))
  means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
  low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  return Rate(
    value=float(sums.sum() / counts.sum()),
    low=float(low),
    high=float(high),
    people=len(names),
    photos=int(counts.sum()),
  )


def cosines(
  before: Float[np.ndarray, "n d"],
  after: Float[np.ndarray, "n d"],
  centre: Float[np.ndarray, " d"] | float = 0.0,
) -> Float[np.ndarray, " n"]:
  """Cosines between the features of photos before and after cloaking.

  Args:
    before: features.
    after: features of the same photos.
    centre: what is subtracted from both: the mean of a recogniser's features,
      which for some (dlib) is far from zero, so that the cosine of any two
      faces is high.

  Returns:
    A cosine for each row; 0 where a feature is zero.
  """
  a, b = before - centre, after - centre
  lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
  return (a * b).sum(axis=1) / np.maximum(lengths, 1e-12)


def pair_distances(
  a: Float[np.ndarray, "m d"], b: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "m n"]:
  """L2 distances between all rows: how unlike faces are in verification."""
  squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
  return np.sqrt(np.maximum(squares, 0))


def impostor_distances(
  features: Float[np.ndarray, "n d"], people: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " k"]:
  """Distances of all pairs of photos of two different people, sorted."""
  distances = pair_distances(features, features)
  others = people[:, None] < people  # Each pair once.
  return np.sort(distances[others])


def threshold(
  impostors: Float[np.ndarray, " k"], false_matches: float
) -> float:
  """The distance below which two faces are taken for one person.

  Args:
    impostors: distances of pairs of different people, sorted.
    false_matches: the share of them that may lie below, the false match rate.

  Returns:
    The largest threshold that keeps the rate; NaN where there are too few
    pairs for one of them to be allowed.
  """
  allowed = int(np.floor(len(impostors) * false_matches + 1e-9))
  if not allowed:
    return np.nan
  if allowed >= len(impostors):
    return np.inf
  return float(impostors[allowed])
