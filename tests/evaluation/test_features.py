"""What trackers make of photos and of their cloaks."""

import numpy as np
import pytest
from PIL import Image

from fawkes_jax.evaluation import people
from fawkes_jax.evaluation.features import Features


@pytest.fixture
def some():
  return Features(x=np.arange(8.0).reshape(4, 2), labels=np.array([3, 1, 3, 2]))


def test_features_of_some_people(some):
  chosen = some.of([3, 2])
  np.testing.assert_array_equal(chosen.labels, [3, 3, 2])
  np.testing.assert_array_equal(chosen.x, [[0, 1], [4, 5], [6, 7]])
  both = chosen + some.of([1])
  np.testing.assert_array_equal(both.labels, [3, 3, 2, 1])
  np.testing.assert_array_equal(both.x[-1], [2, 3])


def test_other_features_of_the_same_faces(some):
  moved = some.mapped(lambda x: -x)
  np.testing.assert_array_equal(moved.x, -some.x)
  np.testing.assert_array_equal(moved.labels, some.labels)


def test_pairs_are_of_photos_that_are_found_before_and_after(fakes, begin):
  def hides(pixels, path):
    return np.zeros_like(pixels) if path.endswith("1.png") else pixels ^ 1

  fakes.use(hides)
  study = begin()
  [recipe] = study.wardrobe.recipes()
  cloaks = study.wardrobe.cloak(recipe)
  photos = people.train_photos(study.people.protected)
  # One photo more that is not found before.
  Image.new("RGB", (48, 48)).save(photos[0].path)
  [tracker] = study.trackers
  before, after = study.gallery.pairs(tracker, photos, cloaks)
  assert len(before.labels) == len(photos) - 3
  np.testing.assert_array_equal(before.labels, after.labels)
  assert before.x.shape == after.x.shape
  missing = study.gallery.not_found(tracker, cloaks.published(photos))
  assert len(missing) == 2
  assert all(name.endswith("1.png") for name in missing)
