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


def people():
  return targets.People(extractor="a", threshold=0.5)


def test_one_person_has_one_target():
  person, other = unit(2, 64)
  candidates = {"a": unit(40, 64, seed=9)}
  faces = {"a": np.stack([near(person, 1), near(other, 2), near(person, 3)])}
  known = people()
  who, chosen = known.assign(faces, candidates)
  assert who.tolist() == [0, 1, 0]
  assert chosen[0] == chosen[2]
  # In later photos too, and among strangers.
  stranger = unit(64, seed=77)
  later = {"a": np.stack([stranger, near(other, 4), near(person, 5)])}
  who_later, chosen_later = known.assign(later, candidates)
  assert who_later.tolist() == [2, 1, 0]
  assert chosen_later[1:].tolist() == [chosen[1], chosen[0]]


def test_a_target_is_far_from_all_of_a_persons_faces():
  person = unit(64)
  faces = {"a": np.stack([near(person, s, 0.5) for s in range(6)])}
  candidates = {"a": unit(40, 64, seed=9)}
  _, chosen = people().assign(faces, candidates)
  assert set(chosen) == {targets.farthest(faces, candidates)}


def test_people_apart_have_targets_of_their_own():
  """Each one's farthest candidate, whoever else is in the call."""
  persons = np.eye(4, dtype=np.float32)
  candidates = {"a": -np.eye(4, dtype=np.float32)[::-1]}
  who, chosen = people().assign({"a": persons}, candidates)
  assert who.tolist() == [0, 1, 2, 3]
  assert chosen.tolist() == [3, 2, 1, 0]


def test_threshold():
  face = np.array([1, 0], np.float32)
  other = np.array([0.6, 0.8], np.float32)
  candidates = {"a": unit(3, 2)}
  for threshold, count in ((0.59, 1), (0.61, 2)):
    known = targets.People(extractor="a", threshold=threshold)
    known.assign({"a": face[None]}, candidates)
    known.assign({"a": other[None]}, candidates)
    assert len(known.references) == len(known.targets) == count


def test_same_calls_same_answer():
  calls = [{"a": unit(3, 16, seed=s)} for s in range(4)]
  candidates = {"a": unit(10, 16, seed=99)}
  first, second = people(), people()
  for faces in calls:
    for one, other in zip(
      first.assign(faces, candidates),
      second.assign(faces, candidates),
      strict=True,
    ):
      np.testing.assert_array_equal(one, other)


def test_no_faces():
  who, chosen = people().assign(
    {"a": np.zeros((0, 16), np.float32)}, {"a": unit(10, 16)}
  )
  assert who.shape == chosen.shape == (0,)
