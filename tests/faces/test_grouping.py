"""Faces of made-up people, and who is taken for whom."""

import numpy as np
import pytest

from fawkes_jax.faces import grouping


def unit(*shape, seed=0):
  vectors = np.random.default_rng(seed).normal(0, 1, shape)
  return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(
    np.float32
  )


def crowd(people, each, *, length=64, spread=0.6, seed=0):
  """Faces around so many centres, and whose they are, in random order."""
  who = np.repeat(np.arange(people), each)
  np.random.default_rng(seed).shuffle(who)
  faces = unit(people, length, seed=seed)[who]
  faces = faces + spread * unit(len(who), length, seed=seed + 1)
  faces /= np.linalg.norm(faces, axis=1, keepdims=True)
  return faces.astype(np.float32), who


def group(faces, photos=None, threshold=0.5):
  photos = np.arange(len(faces)) if photos is None else np.array(photos)
  return grouping.groups(faces.copy(), photos, threshold=threshold).tolist()


def same(labels, others):
  """Whether the groups are the same, whatever their numbers."""
  return (
    len(set(zip(labels, others, strict=True)))
    == len(set(labels))
    == len(set(others))
  )


def test_who_is_who():
  faces, who = crowd(20, 5)
  labels = group(faces)
  assert same(labels, who.tolist())
  assert list(dict.fromkeys(labels)) == list(range(20))


def test_a_person_of_more_photos_than_neighbours_is_one():
  faces, who = crowd(3, 200)
  assert same(group(faces), who.tolist())


@pytest.mark.parametrize("seed", range(3))
def test_the_order_does_not_matter(seed):
  faces, _ = crowd(30, 8, spread=1.2)
  order = np.random.default_rng(seed).permutation(len(faces))
  labels = np.array(group(faces, threshold=0.3))
  assert 30 < len(set(labels.tolist())) < len(faces)
  assert same(labels[order].tolist(), group(faces[order], threshold=0.3))


def test_a_search_that_does_not_compare_all_finds_the_same(monkeypatch):
  faces, who = crowd(400, 10)
  monkeypatch.setattr(grouping, "_EXACT", 100)
  assert same(group(faces), who.tolist())


def test_faces_of_one_photo_are_of_several_people():
  faces, _ = crowd(1, 3)
  assert group(faces, photos=[5, 5, 7])[:2] == [0, 1]
  assert len(set(group(faces, photos=[5, 5, 7]))) == 2
  assert group(faces, photos=[5, 5, 5]) == [0, 1, 2]


def test_people_of_one_photo_are_never_joined_by_others():
  """Not by way of faces of other photos that are near to both."""
  faces, _ = crowd(1, 41, spread=0.3)
  photos = [0, 0, *range(1, 40)]
  labels = group(faces, photos)
  assert labels[0] != labels[1]
  assert len(set(labels)) == 2


@pytest.mark.parametrize("count", [0, 1, 2000])
def test_everybody_is_the_same(count):
  """One photo, again and again."""
  faces = np.repeat(unit(1, 16), count, axis=0)
  assert set(group(faces)) == ({0} if count else set())


def test_how_near_is_the_mean_over_all_pairs():
  faces = np.array([[1, 0], [1, 0], [0.6, 0.8], [-0.6, 0.8]], np.float32)
  # The third is .6 from both of the first two; the fourth .28 from the third.
  assert group(faces, threshold=0.59) == [0, 0, 0, 1]
  assert group(faces, threshold=0.61) == [0, 0, 1, 2]


def test_products_of_vectors_are_mean_cosines():
  embeddings = {"a": unit(5, 32), "b": unit(5, 8, seed=1)}
  vectors = grouping.Coder(40, faces=5).codes(embeddings)
  mean = sum(e @ e.T for e in embeddings.values()) / 2
  np.testing.assert_allclose(vectors @ vectors.T, mean, atol=1e-6)


def test_long_vectors_of_many_faces_are_projected():
  embeddings = {"a": unit(50, 1000), "b": unit(50, 500, seed=1)}
  vectors = grouping.Coder(1500, faces=1_000_000).codes(embeddings)
  assert vectors.shape == (50, 512)
  mean = sum(e @ e.T for e in embeddings.values()) / 2
  assert np.abs(vectors @ vectors.T - mean).std() < 0.04
