import numpy as np
import pytest

from fawkes_jax.cloaking import targets


def unit(*shape, seed=0):
  vectors = np.random.default_rng(seed).normal(0, 1, shape)
  return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(
    np.float32
  )


def near(person, seed, spread=0.02):
  """Another face of the person of a face."""
  moved = person + spread * unit(len(person), seed=seed)
  return moved / np.linalg.norm(moved)


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


def group(faces, photos=None, threshold=0.5):
  photos = np.arange(len(faces)) if photos is None else np.array(photos)
  return targets.people({"a": faces}, photos, threshold=threshold).tolist()


def test_who_is_who():
  person, other, stranger = unit(3, 64)
  faces = np.stack(
    [near(person, 1), near(other, 2), near(person, 3), stranger, near(other, 4)]
  )
  assert group(faces) == [0, 1, 0, 2, 1]


def test_faces_of_one_photo_are_of_several_people():
  twins = np.stack([near(unit(64), seed) for seed in range(3)])
  assert group(twins, photos=[5, 5, 7]) == [0, 1, 0]


def test_a_person_is_known_by_the_mean():
  """The third face is near to both together, to neither alone."""
  first = np.array([1, 0.8, 0], np.float32)
  second = np.array([1, -0.8, 0], np.float32)
  third = np.array([0.6, 0, 0.8], np.float32)
  faces = np.stack([f / np.linalg.norm(f) for f in (first, second, third)])
  assert (faces[:2] @ faces[2]).max() < 0.5 < faces[2] @ [1, 0, 0]
  assert group(faces, threshold=0.2)[2] == 0
  assert group(faces, threshold=0.5) == [0, 1, 2]
  assert group(faces[[0, 2]], threshold=0.5) == [0, 1]


def test_threshold():
  faces = np.array([[1, 0], [0.6, 0.8]], np.float32)
  assert group(faces, threshold=0.59) == [0, 0]
  assert group(faces, threshold=0.61) == [0, 1]


def test_all_extractors_decide():
  """One of two takes them for the same."""
  same, apart = np.ones((2, 1), np.float32), np.eye(2, dtype=np.float32)
  faces, photos = {"a": same, "b": apart}, np.arange(2)
  assert targets.people(faces, photos, threshold=0.49).tolist() == [0, 0]
  assert targets.people(faces, photos, threshold=0.51).tolist() == [0, 1]


def test_identities_are_means():
  faces, labels = {"a": unit(5, 16)}, np.array([0, 1, 0, 1, 2])
  means = targets.identities(faces, labels)["a"]
  np.testing.assert_array_equal(means[0], means[2])
  expected = faces["a"][[1, 3]].mean(axis=0)
  expected /= np.linalg.norm(expected)
  np.testing.assert_allclose(means[1], expected, rtol=1e-5)
  np.testing.assert_allclose(means[4], faces["a"][4], rtol=1e-5)


def test_one_person_has_one_target():
  """The farthest candidate of each, whoever else is there."""
  faces = np.eye(4, dtype=np.float32)[[0, 1, 2, 0, 3]]
  candidates = {"a": -np.eye(4, dtype=np.float32)[::-1]}
  labels = np.array([0, 1, 2, 0, 3])
  chosen = targets.choose({"a": faces}, labels, candidates)
  assert chosen.tolist() == [3, 2, 1, 3, 0]


def test_a_target_is_far_from_all_of_a_persons_faces():
  person = unit(64)
  faces = {"a": np.stack([near(person, s, 0.5) for s in range(6)])}
  candidates = {"a": unit(40, 64, seed=9)}
  chosen = targets.choose(faces, np.zeros(6, np.int64), candidates)
  assert set(chosen) == {targets.farthest(faces, candidates)}


def test_no_faces():
  none = {"a": np.zeros((0, 16), np.float32)}
  labels = targets.people(none, np.zeros(0, np.int64), threshold=0.5)
  assert labels.shape == (0,)
  assert targets.identities(none, labels)["a"].shape == (0, 16)
  assert targets.choose(none, labels, {"a": unit(10, 16)}).shape == (0,)
