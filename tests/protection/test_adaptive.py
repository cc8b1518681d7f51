import numpy as np
import pytest

from fawkes_jax.protection import adaptive, heads

LEARN = [adaptive.denoiser, adaptive.projection]


def cloaked(rng, people, photos, *, cloak, width=16):
  """Features of people, clean and cloaked, and their labels.

  Args:
    cloak: how far cloaks move, along directions that all people share.
  """
  labels = np.repeat(np.arange(people), photos)
  points = rng.normal(size=(people, width))
  before = points[labels] + 0.2 * rng.normal(size=(len(labels), width))
  towards = np.zeros((people, width))
  towards[:, :3] = rng.normal(size=(people, 3))
  return before, before + cloak * towards[labels], labels


def errors(train, labels, test, truth):
  return (heads.nearest_centroid(train, labels, test) != truth).mean()


@pytest.mark.parametrize("learn", LEARN)
def test_a_common_direction_is_seen_through(learn):
  rng = np.random.default_rng(0)
  learned = learn(*cloaked(rng, 20, 6, cloak=6))
  before, after, labels = cloaked(rng, 10, 6, cloak=6)
  even = np.arange(len(labels)) % 2 == 0
  plain = errors(after[even], labels[even], before[~even], labels[~even])
  adapted = errors(
    learned.map_known(after[even]),
    labels[even],
    learned.map_new(before[~even]),
    labels[~even],
  )
  assert plain > 0.5
  assert adapted < 0.15


@pytest.mark.parametrize("learn", LEARN)
def test_without_cloaks_nothing_is_lost(learn):
  rng = np.random.default_rng(1)
  learned = learn(*cloaked(rng, 12, 4, cloak=0))
  before, _, labels = cloaked(rng, 8, 6, cloak=0)
  even = np.arange(len(labels)) % 2 == 0
  assert not errors(
    learned.map_known(before[even]),
    labels[even],
    learned.map_new(before[~even]),
    labels[~even],
  )


def test_the_denoiser_is_near_the_cloak_s_inverse():
  """And leaves what is to be recognised alone."""
  rng = np.random.default_rng(2)
  before = rng.normal(size=(400, 6))
  bias = np.array([2.0, 0, 0, 0, 0, 0])
  noise = 3 * rng.normal(size=(400, 1)) * [0, 1, 0, 0, 0, 0]
  learned = adaptive.denoiser(
    before, before + bias + noise, np.arange(400) // 4
  )
  np.testing.assert_array_equal(learned.new, np.eye(6))
  kept = np.diag(learned.known)
  assert kept[1] < 0.5
  assert (kept[2:] > 0.9).all()


@pytest.mark.parametrize("learn", LEARN)
def test_few_people_and_fewer_photos_than_dimensions(learn):
  rng = np.random.default_rng(3)
  for people, photos in ((1, 3), (2, 1), (3, 2)):
    learned = learn(*cloaked(rng, people, photos, cloak=1, width=40))
    assert np.isfinite(learned.known).all()
