import jax.numpy as jnp
import numpy as np
import pytest

from fawkes_jax.imaging import views as jax_views
from fawkes_jax.models import students
from fawkes_jax.training import views


@pytest.fixture
def crop(small_astronaut) -> np.ndarray:
  return np.ascontiguousarray(small_astronaut[20:180, 50:210])


def test_a_still_view_is_the_one_of_the_solver(crop):
  view = views.still(crop, students.TEMPLATE, 112)
  expected = jax_views.still_view(
    jnp.asarray(crop, jnp.float32),
    jnp.float32(len(crop)),
    students.TEMPLATE,
    112,
  )
  assert np.abs(view - np.asarray(expected)).mean() < 1


def test_augmented_views_stay_near_the_still_one(crop):
  still = views.still(crop, students.TEMPLATE, 112)
  rng = np.random.default_rng(0)
  correlations = []
  for _ in range(50):
    view = views.augmented(crop, students.TEMPLATE, 112, rng)
    assert view.shape == (112, 112, 3)
    assert view.dtype == np.uint8
    correlations.append(np.corrcoef(view.ravel(), still.ravel())[0, 1])
  assert min(correlations) > 0.3
  assert np.mean(correlations) > 0.6
  assert np.mean(correlations) < 0.98


def test_the_generator_decides_the_view(crop):
  one, same, other = (
    views.augmented(crop, students.TEMPLATE, 112, np.random.default_rng(seed))
    for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(one, same)
  assert (one != other).mean() > 0.5
