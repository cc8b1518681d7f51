"""Heads of trackers: from the features of known faces to a name for a new one.

A tracker is a frozen recogniser with a head on top (Shan et al. 2020). Every
head takes the features of faces to train on, [n, d], the labels of the people
they show, [n], and the features of faces to recognise, [m, d]; it returns a
label for each of the latter, [m].
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

Head = Callable[
  [
    Float[np.ndarray, "n d"],
    Int[np.ndarray, " n"],
    Float[np.ndarray, "m d"],
  ],
  Int[np.ndarray, " m"],
]

# Of the softmax head: full-batch Adam.
_STEPS = 300
_LEARNING_RATE = 0.05


def nearest_neighbour(
  train: Float[np.ndarray, "n d"],
  labels: Int[np.ndarray, " n"],
  test: Float[np.ndarray, "m d"],
) -> Int[np.ndarray, " m"]:
  """The label of the nearest face (L2)."""
  return labels[_distances(test, train).argmin(axis=1)]


def nearest_centroid(
  train: Float[np.ndarray, "n d"],
  labels: Int[np.ndarray, " n"],
  test: Float[np.ndarray, "m d"],
) -> Int[np.ndarray, " m"]:
  """The person whose mean feature is nearest (L2)."""
  people = np.unique(labels)
  centroids = np.stack([train[labels == i].mean(axis=0) for i in people])
  return people[_distances(test, centroids).argmin(axis=1)]


def softmax(
  train: Float[np.ndarray, "n d"],
  labels: Int[np.ndarray, " n"],
  test: Float[np.ndarray, "m d"],
) -> Int[np.ndarray, " m"]:
  """A linear layer and a softmax, trained without regularisation.

  The paper's head. Features are standardised as a whole (their mean to zero,
  their mean length to one), and the cross entropy is brought down by 300 full
  steps of Adam from zero.
  """
  people, truth = np.unique(labels, return_inverse=True)
  centre = train.mean(axis=0)
  scale = max(float(np.linalg.norm(train - centre, axis=1).mean()), 1e-12)
  x = np.concatenate([(train - centre) / scale, np.ones((len(train), 1))], 1)
  wanted = np.eye(len(people))[truth]
  weights = np.zeros((x.shape[1], len(people)))
  first, second = np.zeros_like(weights), np.zeros_like(weights)
  for step in range(1, _STEPS + 1):
    scores = x @ weights
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    error = odds / odds.sum(axis=1, keepdims=True) - wanted
    gradient = x.T @ error / len(x)
    first = 0.9 * first + 0.1 * gradient
    second = 0.999 * second + 0.001 * gradient**2
    change = first / (1 - 0.9**step)
    change /= np.sqrt(second / (1 - 0.999**step)) + 1e-8
    weights -= _LEARNING_RATE * change
  y = np.concatenate([(test - centre) / scale, np.ones((len(test), 1))], 1)
  return people[(y @ weights).argmax(axis=1)]


def _distances(
  a: Float[np.ndarray, "m d"], b: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "m n"]:
  """Squared L2 distances between all rows."""
  squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)
  return squares - 2 * a @ b.T
