import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.metrics

from fawkes_jax.imaging import ssim


def pair(astronaut, size=64, amplitude=8.0, seed=0):
  """A piece of a photo and a change that keeps it in 0..255."""
  original = astronaut[100 : 100 + size, 190 : 190 + size].astype(np.float32)
  change = np.random.default_rng(seed).normal(0, amplitude, original.shape)
  change = np.clip(np.round(change), -original, 255 - original)
  return original, change.astype(np.float32)


def even(shape):
  """Weights under which DSSIM is the plain mean over full windows."""
  half = ssim.WINDOW // 2
  weights = np.zeros(shape, np.float32)
  weights[half:-half, half:-half] = 1
  return weights / weights.sum()


def dssim(original, change, weights):
  known = ssim.moments(jnp.asarray(original), jnp.asarray(weights))
  return float(ssim.dssim(jnp.asarray(original), jnp.asarray(change), known))


@pytest.mark.slow
@pytest.mark.parametrize("amplitude", [0.5, 3.0, 12.0, 60.0])
def test_equals_the_references(astronaut, amplitude):
  original, change = pair(astronaut, amplitude=amplitude)
  ours = dssim(original, change, even(original.shape[:2]))
  theirs = dm_pix.ssim(
    jnp.asarray(original), jnp.asarray(original + change), max_val=255.0
  )
  assert ours == pytest.approx((1 - float(theirs)) / 2, abs=4e-6)
  # scikit-image in float64 and over full windows, as the definition says.
  _, full = skimage.metrics.structural_similarity(
    original.astype(np.float64),
    (original + change).astype(np.float64),
    data_range=255,
    channel_axis=-1,
    gaussian_weights=True,
    sigma=1.5,
    use_sample_covariance=False,
    full=True,
  )
  half = ssim.WINDOW // 2
  mean = full[half:-half, half:-half].mean()
  assert ours == pytest.approx((1 - mean) / 2, abs=4e-6)
  assert ours > 0


def test_weights(astronaut):
  """A weighted mean over windows, and the border does not count."""
  original, change = pair(astronaut)
  rng = np.random.default_rng(3)
  weights = rng.uniform(0, 1, original.shape[:2]).astype(np.float32)
  weights /= weights.sum()
  full = dm_pix.ssim(
    jnp.asarray(original),
    jnp.asarray(original + change),
    max_val=255.0,
    return_map=True,
  )
  inner = weights[5:-5, 5:-5, None] / 3
  expected = 0.5 * float((inner * (1 - full)).sum())
  assert dssim(original, change, weights) == pytest.approx(expected, abs=4e-6)
  weights[:5] = weights[-5:] = weights[:, :5] = weights[:, -5:] = 99
  assert dssim(original, change, weights) == pytest.approx(expected, abs=4e-6)


@pytest.mark.parametrize("amplitude", [0.5, 3.0, 12.0])
def test_measure_equals_dssim(astronaut, amplitude):
  original, change = pair(astronaut, amplitude=amplitude, seed=4)
  weights = np.zeros(original.shape[:2], np.float32)
  # More of it on one side than above or below.
  weights[20:, 30:90] = 1 / weights[20:, 30:90].size
  measured = float(ssim.measure(original, original + change, weights))
  assert dssim(original, change, weights) == pytest.approx(measured, abs=4e-6)


def test_no_change(astronaut):
  original, change = pair(astronaut)
  known = ssim.moments(jnp.asarray(original), jnp.asarray(even((64, 64))))
  value, gradient = jax.value_and_grad(ssim.dssim, argnums=1)(
    jnp.asarray(original), jnp.zeros_like(original), known
  )
  assert abs(value) < 1e-7
  assert jnp.isfinite(gradient).all()
  nearby = jax.grad(ssim.dssim, argnums=1)(
    jnp.asarray(original), jnp.asarray(change), known
  )
  assert jnp.abs(gradient).max() < 1e-3 * jnp.abs(nearby).max()


def test_flat_images_are_no_trouble():
  """Where nothing varies, the constants alone keep the quotients finite."""
  for level in (0.0, 128.0, 255.0):
    flat = np.full((32, 32, 3), level, np.float32)
    known = ssim.moments(jnp.asarray(flat), jnp.asarray(even((32, 32))))
    value, gradient = jax.value_and_grad(ssim.dssim, argnums=1)(
      jnp.asarray(flat), jnp.zeros_like(flat), known
    )
    assert abs(value) < 1e-6
    assert jnp.isfinite(gradient).all()


def test_gradient_is_the_slope(astronaut):
  """Central differences along random directions.

  They were measured to agree to 0.1 % for steps of 1 level a pixel; float32
  rounds smaller ones away.
  """
  original, change = pair(astronaut)
  known = ssim.moments(jnp.asarray(original), jnp.asarray(even((64, 64))))
  value = jax.jit(lambda c: ssim.dssim(jnp.asarray(original), c, known))
  gradient = jax.grad(value)(jnp.asarray(change))
  for seed in range(4):
    direction = np.sign(
      np.asarray(gradient)
      + np.abs(gradient).mean()
      * np.random.default_rng(seed).normal(0, 1, change.shape)
    ).astype(np.float32)
    slope = (value(change + direction) - value(change - direction)) / 2
    np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=0.01)


@pytest.mark.parametrize("shape", [(10, 64, 3), (64, 10, 3), (1, 1, 3)])
def test_too_small(shape):
  with pytest.raises(ValueError, match=f"at least 11 x 11.*{shape[0]}"):
    ssim.moments(jnp.zeros(shape), jnp.zeros(shape[:2]))


def test_the_smallest_image(astronaut):
  """One window: its pixel in the middle has all of the weight."""
  original, change = pair(astronaut, size=11)
  ours = dssim(original, change, even((11, 11)))
  theirs = dm_pix.ssim(original, original + change, max_val=255.0)
  assert ours == pytest.approx((1 - float(theirs)) / 2, abs=4e-6)


def test_there_is_more_room_where_there_is_structure(astronaut):
  """The mean step is as long as without."""
  original, _ = pair(astronaut)
  original[:, :32] = original[:, :32].mean(axis=(0, 1))
  known = ssim.moments(jnp.asarray(original), even(original.shape[:2]))
  room = np.asarray(ssim.room(known))
  assert room.shape == original.shape
  half = ssim.WINDOW // 2
  assert room[half:-half, half:-half].mean() == pytest.approx(1, abs=1e-5)
  assert room[:, :20].max() < 0.7 * room[:, 44:].mean()
  assert room[:, :20].max() < room[:, 44:].min()


def test_steps_of_the_same_cost_go_further_with_room(astronaut):
  """A change in signs, all alike or with room, scaled to the same DSSIM."""
  original, _ = pair(astronaut)
  weights = even(original.shape[:2])
  known = ssim.moments(jnp.asarray(original), jnp.asarray(weights))
  signs = np.sign(np.random.default_rng(1).normal(size=original.shape))
  sums = []
  for change in (signs, signs * np.asarray(ssim.room(known))):
    change = change.astype(np.float32)
    cost = dssim(original, change, weights)
    sums.append(np.abs(change).sum() / np.sqrt(cost))
  assert sums[1] > 1.02 * sums[0]
