import numpy as np
import pytest

from fawkes_jax.training import verification


def test_accuracy_of_separable_scores_is_one():
  same = np.arange(100) % 2 == 0
  accuracy = verification.accuracy(np.where(same, 0.4, 0.1), same)
  assert accuracy == pytest.approx(1)


def test_accuracy_of_scores_without_meaning_is_a_half():
  rng = np.random.default_rng(0)
  same = rng.random(4000) < 0.5
  accuracy = verification.accuracy(rng.normal(size=4000), same)
  assert accuracy == pytest.approx(0.5, abs=0.06)


def test_a_rare_kind_of_pairs_weighs_as_much():
  # A recogniser that takes every pair for one person is right half the time.
  same = np.ones(200, bool)
  same[::20] = False
  scores = np.zeros(200)
  assert verification.accuracy(scores, same) == pytest.approx(0.5, abs=0.05)


def test_accuracy_is_that_of_overlapping_normal_scores():
  rng = np.random.default_rng(0)
  same = np.arange(20_000) % 2 == 0
  scores = rng.normal(size=20_000) + np.where(same, 2, 0)
  # The best threshold is in the middle: Phi(1).
  accuracy = verification.accuracy(scores, same)
  assert accuracy == pytest.approx(0.8413, abs=0.01)


@pytest.mark.parametrize("same", [np.ones(50, bool), np.arange(9) % 2 == 0])
def test_too_few_pairs_are_refused(same):
  with pytest.raises(ValueError, match="needs 10 pairs"):
    verification.accuracy(np.zeros(len(same)), same)


def test_drawn_pairs_are_what_they_say_and_of_the_rows():
  identities = np.repeat(np.arange(6), 4)
  rows = np.flatnonzero(identities > 1)
  pairs = verification.draw_pairs(identities, rows, count=50, seed=3)
  assert len(pairs) == 100
  assert np.isin(pairs[:, 1:], rows).all()
  same = identities[pairs[:, 1]] == identities[pairs[:, 2]]
  np.testing.assert_array_equal(same, pairs[:, 0] == 1)
  assert (pairs[:, 1] != pairs[:, 2]).all()
  again = verification.draw_pairs(identities, rows, count=50, seed=3)
  np.testing.assert_array_equal(pairs, again)


@pytest.mark.parametrize("identities", [[0, 0, 0], [0, 1, 2], []])
def test_no_pairs_are_drawn_where_there_are_none(identities):
  identities = np.array(identities, np.int64)
  rows = np.arange(len(identities))
  assert not len(verification.draw_pairs(identities, rows, count=5, seed=0))
