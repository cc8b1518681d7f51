"""Heads of trackers: from the features of known faces to a name for a new one.

A tracker is a frozen recogniser with a head on top (Shan et al. 2020). Every
head takes the features of faces to train on, [n, d], the labels of the people
they show, [n], and the features of faces to recognise, [m, d]; it returns a
label for each of the latter, [m].
"""

from collections.abc import Callable

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Float32, Int

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
  x = np.pad((train - centre) / scale, ((0, 0), (0, 1)), constant_values=1)
  y = np.pad((test - centre) / scale, ((0, 0), (0, 1)), constant_values=1)
  weights = _trained(
    np.float32(x), truth, np.zeros((x.shape[1], len(people)), np.float32)
  )
  return people[(y @ np.asarray(weights)).argmax(axis=1)]


@jax.jit
def _trained(
  x: Float32[Array, "n d"],
  labels: Int[Array, " n"],
  weights: Float32[Array, "d k"],
) -> Float32[Array, "d k"]:
  """The weights of a softmax, trained on features x."""
  adam = optax.adam(_LEARNING_RATE)
  gradient = jax.grad(
    lambda weights: optax.softmax_cross_entropy_with_integer_labels(
      x @ weights, labels
    ).mean()
  )

  def step(_, state):
    weights, memory = state
    updates, memory = adam.update(gradient(weights), memory)
    return optax.apply_updates(weights, updates), memory

  state = weights, adam.init(weights)
  return jax.lax.fori_loop(0, _STEPS, step, state)[0]


def _distances(
  a: Float[np.ndarray, "m d"], b: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "m n"]:
  """Squared L2 distances between all rows."""
  squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)
  return squares - 2 * a @ b.T
