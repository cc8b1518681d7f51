import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fawkes_jax.imaging import geometry
from fawkes_jax.models import students
from fawkes_jax.training import cloaks, losses

KEY = jax.random.key(0)


@pytest.fixture
def crops(people) -> jax.Array:
  return jnp.asarray(people.crops[::3], jnp.float32)


@pytest.fixture
def embed(tiny):
  module = students.STUDENTS["tiny"]()
  variables = students.initialise(module, 0)

  def embed(crops):
    view = cloaks.still(crops, students.TEMPLATE, students.INPUT_SIZE)
    return module.apply(variables, view)

  return embed


@pytest.mark.slow
def test_a_cloak_moves_the_student_further_than_noise(crops, embed):
  cloaked = cloaks.cloaked(crops, embed, bound=jnp.float32(8), steps=4, key=KEY)
  assert cloaked.dtype == jnp.uint8
  change = cloaked.astype(jnp.float32) - crops
  sizes = jnp.abs(change).max(axis=(1, 2, 3))
  assert 6 < sizes.max() <= 8.5
  assert sizes.min() < 2  # Some faces are left nearly as they are.
  signs = jax.random.rademacher(KEY, crops.shape, jnp.float32)
  noisy = jnp.clip(crops + jnp.abs(change) * signs, 0, 255)
  own = losses.normalised(embed(crops))

  def moved(images):
    return (1 - (losses.normalised(embed(images)) * own).sum(-1)).mean()

  assert moved(cloaked.astype(jnp.float32)) > 5 * moved(noisy)


def test_without_a_bound_nothing_changes(crops, embed):
  cloaked = cloaks.cloaked(crops, embed, bound=jnp.float32(0), steps=2, key=KEY)
  np.testing.assert_array_equal(cloaked, crops.astype(jnp.uint8))


def test_about_half_of_the_faces_are_mixed(crops):
  crops = jnp.tile(crops, (8, 1, 1, 1))
  mixed = cloaks.mixed(crops, KEY)
  same = (mixed == crops).all(axis=(1, 2, 3))
  assert 0.3 < same.mean() < 0.7
  other = jnp.roll(crops, 1, axis=0)
  # No mixed face is nearer to the second than to the first.
  first = jnp.abs(mixed - crops).mean(axis=(1, 2, 3))
  second = jnp.abs(mixed - other).mean(axis=(1, 2, 3))
  assert (first <= second + 1e-3).all()


@pytest.mark.slow
def test_moved_views_differ_a_little_from_the_still_one(crops):
  still = cloaks.still(crops, geometry.CROP, 64)
  np.testing.assert_allclose(still, crops, atol=1e-2)
  moved = cloaks.moved(crops, geometry.CROP, 64, KEY)
  again = cloaks.moved(crops, geometry.CROP, 64, KEY)
  np.testing.assert_array_equal(moved, again)
  for one, other in zip(moved, crops, strict=True):
    assert 0.7 < np.corrcoef(one.ravel(), other.ravel())[0, 1] < 0.9999
