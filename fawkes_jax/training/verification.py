"""Face verification: whether two faces show one person."""

import numpy as np
from jaxtyping import Bool, Float, Int

FOLDS = 10


def draw_pairs(
  identities: Int[np.ndarray, " n"],
  rows: Int[np.ndarray, " k"],
  *,
  count: int,
  seed: int,
) -> Int[np.ndarray, "p 3"]:
  """Draws pairs of faces, half of them of one person.

  Args:
    identities: the identities of all faces.
    rows: the faces to draw from.
    count: how many pairs of each kind.
    seed: the same seed draws the same.

  Returns:
    Rows of 1 (same person) or 0 and the two faces; none where there are no
    two identities, or none with two faces.
  """
  groups = [
    rows[identities[rows] == identity]
    for identity in np.unique(identities[rows])
  ]
  several = [group for group in groups if len(group) > 1]
  if len(groups) < 2 or not several:
    return np.zeros((0, 3), np.int64)
  rng = np.random.default_rng(seed)
  pairs = []
  for _ in range(count):
    group = several[rng.integers(len(several))]
    pairs.append([1, *rng.choice(group, 2, replace=False)])
    one, other = rng.choice(len(groups), 2, replace=False)
    pairs.append([0, rng.choice(groups[one]), rng.choice(groups[other])])
  return np.array(pairs, np.int64)


def accuracy(
  scores: Float[np.ndarray, " p"], same: Bool[np.ndarray, " p"]
) -> float:
  """Accuracy over ten folds, as on Labeled Faces in the Wild.

  The threshold of each fold is the one that is best on the other nine. Both
  kinds of pairs count the same, however many there are of each.

  Args:
    scores: how alike the faces of each pair are.
    same: whether they are one person. A tenth of the pairs in their order is
      a fold.

  Returns:
    The share of right answers, 0..1.

  Raises:
    ValueError: there are fewer pairs than folds, or of one kind only.
  """
  if len(scores) < FOLDS or same.all() or not same.any():
    raise ValueError(f"needs {FOLDS} pairs or more, and pairs of both kinds")
  weights = np.where(same, 0.5 / same.sum(), 0.5 / (~same).sum())
  fold = np.arange(len(scores)) * FOLDS // len(scores)
  right = np.zeros(len(scores), bool)
  for i in range(FOLDS):
    rest, part = fold != i, fold == i
    threshold = _best_threshold(scores[rest], same[rest], weights[rest])
    right[part] = (scores[part] > threshold) == same[part]
  return float(weights[right].sum())


def _best_threshold(
  scores: np.ndarray, same: np.ndarray, weights: np.ndarray
) -> float:
  """Between which two neighbouring scores most answers are right."""
  order = np.argsort(scores)
  ordered = scores[order]
  worth = np.where(same, -weights, weights)[order]
  # What is gained when the first k pairs are taken for different people.
  k = int(np.argmax(np.concatenate([[0], np.cumsum(worth)])))
  edges = np.concatenate([[ordered[0] - 1], ordered, [ordered[-1] + 1]])
  return float((edges[k] + edges[k + 1]) / 2)
