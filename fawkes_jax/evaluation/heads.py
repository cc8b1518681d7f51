"""The heads of trackers by name: the pure ones, and scikit-learn's."""

import warnings

import numpy as np
from jaxtyping import Bool, Float, Int

from fawkes_jax.evaluation import runtimes
from fawkes_jax.evaluation.features import Features
from fawkes_jax.protection import heads


def logistic(
  train: Float[np.ndarray, "n d"],
  labels: Int[np.ndarray, " n"],
  test: Float[np.ndarray, "m d"],
) -> Int[np.ndarray, " m"]:
  """scikit-learn's multinomial logistic regression with C = 100."""
  linear_model = runtimes.load("sklearn.linear_model")
  model = linear_model.LogisticRegression(C=100, max_iter=5000)
  with warnings.catch_warnings():
    # It may not have converged to the last digit.
    warnings.simplefilter("ignore")
    return model.fit(train, labels).predict(test)


HEADS: dict[str, heads.Head] = {
  "neighbour": heads.nearest_neighbour,
  "centroid": heads.nearest_centroid,
  "logistic": logistic,
  "softmax": heads.softmax,
}
"""By the names of `HEADS`."""


def right(name: str, train: Features, test: Features) -> Bool[np.ndarray, " m"]:
  """Whether a head on a tracker names the faces to recognise rightly.

  Args:
    name: the name of the head.
    train: what the tracker trains on; it may lack people.
    test: what it is to recognise.

  Returns:
    The truth for each row of `test`; nobody is recognised by a tracker that
    found no face to train on.
  """
  if not len(test.labels):
    return np.zeros(0, bool)
  known = np.unique(train.labels)
  if len(known) < 2:
    return test.labels == known[0] if len(known) else test.labels < 0
  return HEADS[name](train.x, train.labels, test.x) == test.labels
