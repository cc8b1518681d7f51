import numpy as np
import pytest

from fawkes_jax.cloaking import targets


def unit(*shape, seed=0):
  vectors = np.random.default_rng(seed).normal(0, 1, shape)
  return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(
    np.float32
  )


@pytest.mark.parametrize("seed", range(5))
def test_farthest_is_the_max_min_rule(seed):
  faces = {"a": unit(4, 16, seed=seed), "b": unit(4, 8, seed=seed + 100)}
  candidates = {
    "a": unit(30, 16, seed=seed + 200),
    "b": unit(30, 8, seed=seed + 300),
  }
  best, best_distance = None, -np.inf
  for k in range(30):
    distances = []
    for i in range(4):
      cosines = [faces[name][i] @ candidates[name][k] for name in faces]
      distances.append(1 - np.mean(cosines))
    if min(distances) > best_distance:
      best, best_distance = k, min(distances)
  assert targets.farthest(faces, candidates) == best


def test_farthest_is_not_the_farthest_on_average():
  """A candidate close to one of the faces is no good."""
  faces = {"a": np.array([[1, 0], [0, 1]], np.float32)}
  candidates = {"a": np.array([[-1, 0], [-0.6, -0.8], [0.6, 0.8]], np.float32)}
  # Mean cosines -0.5, -0.7, 0.7; greatest cosines 0, -0.6, 0.8.
  assert targets.farthest(faces, candidates) == 1
  candidates = {"a": np.array([[-1, 0.9], [-0.4, -0.4]], np.float32)}
  # Mean cosines -0.05, -0.4; greatest 0.9, -0.4.
  assert targets.farthest(faces, candidates) == 1
