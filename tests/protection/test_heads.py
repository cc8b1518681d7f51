import numpy as np
import pytest

from fawkes_jax.evaluation import heads as named
from fawkes_jax.protection import heads

ALL = [*named.HEADS.values()]


def clouds(rng, *, people=4, photos=6, width=8, spread=0.1):
  """Features around one point for each person; labels that are no indices."""
  points = rng.normal(size=(people, width))
  labels = np.repeat(np.arange(people) * 3 + 5, photos)
  x = points[(labels - 5) // 3] + spread * rng.normal(size=(len(labels), width))
  return x, labels


@pytest.mark.parametrize("head", ALL)
def test_people_apart_are_told_apart(head):
  x, labels = clouds(np.random.default_rng(0))
  np.testing.assert_array_equal(
    head(x[::2], labels[::2], x[1::2]), labels[1::2]
  )


@pytest.mark.parametrize("head", ALL)
def test_nobody_is_recognised_where_labels_are_exchanged(head):
  """What a perfect cloak does."""
  x, labels = clouds(np.random.default_rng(1))
  wrong = np.where(labels == 5, 8, np.where(labels == 8, 5, labels))
  answers = head(x[::2], wrong[::2], x[1::2])
  mixed = np.isin(labels[1::2], (5, 8))
  assert (answers[mixed] != labels[1::2][mixed]).all()
  assert (answers[~mixed] == labels[1::2][~mixed]).all()


@pytest.mark.parametrize(
  "head", [head for head in ALL if head is not named.logistic]
)
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_scale_of_features_hardly_matters(head, scale):
  x, labels = clouds(np.random.default_rng(2), spread=0.05)
  answers = head(scale * x[::2], labels[::2], scale * x[1::2])
  np.testing.assert_array_equal(answers, labels[1::2])


def test_nearest_neighbour_and_centroid_differ():
  """An outlier of one person is the neighbour, not the centroid."""
  train = np.array([[0.0], [0.1], [5.0], [4.0]])
  labels = np.array([1, 1, 1, 2])
  test = np.array([[4.9]])
  assert heads.nearest_neighbour(train, labels, test) == [1]
  assert heads.nearest_centroid(train, labels, test) == [2]


def test_softmax_finds_a_small_direction():
  """Where one direction is loud and says nothing, centroids fail."""
  rng = np.random.default_rng(3)
  labels = np.repeat([0, 1], 40)
  x = np.stack(
    [10 * rng.normal(size=80), labels + 0.05 * rng.normal(size=80)], 1
  )
  centroid = heads.nearest_centroid(x[::2], labels[::2], x[1::2])
  linear = heads.softmax(x[::2], labels[::2], x[1::2])
  assert (linear == labels[1::2]).mean() > 0.95
  assert (centroid == labels[1::2]).mean() < 0.8
