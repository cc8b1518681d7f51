import itertools

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
  none, labels = {"a": np.zeros((0, 16), np.float32)}, np.zeros(0, np.int64)
  assert targets.identities(none, labels)["a"].shape == (0, 16)
  assert targets.choose(none, labels, {"a": unit(10, 16)}).shape == (0,)


def people(count, length=64, seed=0):
  """Means of people in two spaces; no two are too much alike."""
  return {
    "a": unit(count, length, seed=seed),
    "b": unit(count, length, seed=seed + 100),
  }


def alike(means, i, j):
  return np.mean([e[i] @ e[j] for e in means.values()])


@pytest.mark.parametrize("seed", range(3))
def test_each_person_of_many_approaches_another_and_is_approached_once(seed):
  means = people(30, seed=seed)
  chosen = targets.exchange(means, np.full(30, 5))
  assert sorted(chosen) == list(range(30))
  assert not np.any(chosen == np.arange(30))


@pytest.mark.parametrize("seed", range(3))
def test_an_exchange_has_the_largest_sum_of_cosines(seed):
  means = people(6, seed=seed)
  ways = [
    way
    for way in itertools.permutations(range(6))
    if all(i != j for i, j in enumerate(way))
    and max(alike(means, i, j) for i, j in enumerate(way)) <= 0.15
  ]
  best = max(ways, key=lambda w: sum(alike(means, *ij) for ij in enumerate(w)))
  assert tuple(targets.exchange(means, np.full(6, 4))) == best


def test_nobody_approaches_whom_is_too_much_alike():
  """Two halves of a person, a relative of it, and somebody else."""
  person = unit(64)
  relative = near(person, 1, 2.0)
  means = {"a": np.stack([person, near(person, 2, 0.1), relative, -person])}
  chosen = targets.exchange(means, np.full(4, 3))
  assert 0.15 < means["a"][0] @ relative < 0.6
  assert chosen[3] in (0, 1, 2) and list(chosen).count(3) == 1
  assert set(chosen) == {targets.NOBODY, chosen[3], 3}


def test_people_of_many_photos_approach_each_other():
  """Not the strangers of one photo, though these are nearer."""
  person, other, one, two = np.eye(4, dtype=np.float32)
  means = {
    "a": np.stack([person, one + 0.1 * person, other, two + 0.1 * other])
  }
  chosen = targets.exchange(means, np.array([20, 1, 18, 1]))
  assert chosen.tolist() == [2, 3, 0, 1]


def test_whoever_has_a_target_keeps_it_when_others_join():
  few, many = np.full(9, 2), np.full(10, 2)
  means = people(10)
  before = targets.exchange({n: e[:9] for n, e in means.items()}, few)
  standing = dict(enumerate(before.tolist()))
  after = targets.exchange(means, many, standing=standing)
  assert after[:9].tolist() == before.tolist()
  part = {i: j for i, j in standing.items() if i < 4}
  again = targets.exchange(
    {n: e[:9] for n, e in means.items()}, few, standing=part
  )
  assert again.tolist() == before.tolist()


@pytest.mark.parametrize("count", [0, 1, 300, 1000])
def test_any_number_of_people_find_somebody(count):
  photos = np.random.default_rng(0).integers(1, 50, count)
  chosen = targets.exchange(people(count, 256), photos)
  found = chosen[chosen != targets.NOBODY]
  assert len(set(found)) == len(found) == (0 if count < 2 else count)


def test_who_takes_no_part_has_no_target_and_is_none():
  cloaked = np.arange(12) % 3 > 0
  chosen = targets.exchange(people(12), np.full(12, 2), cloaked=cloaked)
  assert (chosen[~cloaked] == targets.NOBODY).all()
  assert sorted(chosen[cloaked]) == np.flatnonzero(cloaked).tolist()


def test_whoever_is_settled_is_only_approached():
  """As when one person after the other comes to an archive."""
  settled = np.arange(3) < 1
  means, photos = people(3), np.full(3, 2)
  two = targets.exchange(
    {n: e[:2] for n, e in means.items()}, photos[:2], settled=settled[:2]
  )
  assert two.tolist() == [targets.NOBODY, 0]
  three = targets.exchange(means, photos, settled=settled, standing={1: 0})
  assert three.tolist() == [targets.NOBODY, 0, 1]


def test_people_of_one_name_are_no_targets_for_each_other():
  """A child and the adult, who are nearest to each other, and somebody else."""
  child, other = np.eye(3, dtype=np.float32)[:2]
  adult = np.array([0.1, 0, 0.995], np.float32)
  means = {"a": np.stack([child, adult, other])}
  photos = np.full(3, 4)
  assert targets.exchange(means, photos).tolist()[:2] != [2, 2]
  chosen = targets.exchange(means, photos, called={0: "anna", 1: "anna"})
  assert sorted(chosen[:2]) == [targets.NOBODY, 2]
  assert chosen[2] in (0, 1)
