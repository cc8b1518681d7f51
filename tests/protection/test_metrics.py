import numpy as np
import pytest

from fawkes_jax.protection import metrics


def test_a_rate_is_the_mean_over_photos():
  rate = metrics.rate(np.array([1, 1, 0, 0, 1]), np.array([7, 7, 7, 9, 9]))
  assert rate.value == pytest.approx(0.6)
  assert (rate.people, rate.photos) == (2, 5)
  # Either of the two alone, or both.
  assert rate.low == pytest.approx(0.5)
  assert rate.high == pytest.approx(2 / 3)


def test_a_rate_is_always_the_same():
  rng = np.random.default_rng(0)
  values, people = rng.random(60), np.repeat(np.arange(12), 5)
  assert metrics.rate(values, people) == metrics.rate(values, people)
  assert metrics.rate(values, people) != metrics.rate(values, people, seed=1)
  order = rng.permutation(60)
  shuffled = metrics.rate(values[order], people[order])
  assert shuffled.low == pytest.approx(metrics.rate(values, people).low)


def test_certain_and_missing_rates():
  certain = metrics.rate(np.ones(6, bool), np.repeat([0, 1, 2], 2))
  assert (certain.value, certain.low, certain.high) == (1, 1, 1)
  alone = metrics.rate(np.array([1, 0]), np.array([4, 4]))
  assert (alone.low, alone.high, alone.people) == (0.5, 0.5, 1)
  nobody = metrics.rate(np.zeros(0), np.zeros(0, int))
  assert np.isnan([nobody.value, nobody.low, nobody.high]).all()
  assert (nobody.people, nobody.photos) == (0, 0)


def test_the_interval_covers_the_truth():
  """Photos of a person are alike: people are the unit that is drawn.

  The percentile bootstrap of 20 people covers a little less than 95 %; an
  interval over photos would cover about 60 %.
  """
  rng = np.random.default_rng(0)
  people = np.repeat(np.arange(20), 5)
  covered = 0
  for i in range(300):
    own = rng.beta(2, 2, 20)  # Of each person; 0.5 in the mean.
    wrong = rng.random(100) < np.where(own > 0.5, 0.95, 0.05)[people]
    rate = metrics.rate(wrong, people, draws=400, seed=i)
    covered += rate.low <= 0.5 <= rate.high
  assert 0.88 < covered / 300 < 0.99


def test_cosines():
  a = np.array([[1.0, 0], [1, 1], [0, 0]])
  b = np.array([[2.0, 0], [-1, 1], [3, 4]])
  np.testing.assert_allclose(metrics.cosines(a, b), [1, 0, 0], atol=1e-12)
  centred = metrics.cosines(a, b, np.array([0.0, 1]))
  np.testing.assert_allclose(centred[1], -1)
  assert metrics.cosines(a[:0], b[:0]).shape == (0,)


def test_distances():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(5, 7)), rng.normal(size=(3, 7))
  expected = np.linalg.norm(a[:, None] - b, axis=-1)
  np.testing.assert_allclose(metrics.pair_distances(a, b), expected)
  assert (np.diag(metrics.pair_distances(a, a)) < 1e-6).all()


def test_impostors_are_pairs_of_different_people_once():
  x = np.array([[0.0], [1], [3], [7]])
  distances = metrics.impostor_distances(x, np.array([2, 2, 0, 1]))
  np.testing.assert_allclose(distances, [2, 3, 4, 6, 7])


@pytest.mark.parametrize(
  ("rate", "matches"), [(0.01, 1), (0.05, 5), (0.019, 1), (0.5, 50)]
)
def test_a_threshold_keeps_the_false_match_rate(rate, matches):
  impostors = np.sort(np.random.default_rng(0).random(100))
  assert (impostors < metrics.threshold(impostors, rate)).sum() == matches


def test_thresholds_at_the_ends():
  impostors = np.arange(100.0)
  assert np.isnan(metrics.threshold(impostors, 0.001))
  assert metrics.threshold(impostors, 1) == np.inf
  assert np.isnan(metrics.threshold(np.zeros(0), 0.5))
