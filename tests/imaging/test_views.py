import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fawkes_jax.imaging import geometry, views

SIZE = 96
# The whole crop, and a part of it: 0.45 to 0.85 of x, 0.25 to 0.65 of y.
WHOLE = geometry.CROP
PART = geometry.Template(
  left=WHOLE.left + 0.45 * WHOLE.side,
  top=WHOLE.top + 0.25 * WHOLE.side,
  side=0.4 * WHOLE.side,
)


@pytest.fixture(scope="module")
def crop(astronaut):
  return astronaut[80 : 80 + SIZE, 180 : 180 + SIZE].astype(np.float32)


def view(crop, template, output, *, side=SIZE, shift=(0, 0), zoom=1.0):
  return np.asarray(
    views.template_view(
      jnp.asarray(crop),
      jnp.float32(side),
      template,
      output,
      shift=jnp.array(shift, jnp.float32),
      zoom=jnp.float32(zoom),
    )
  )


def sampled(start, step, output):
  """Where along one axis the pixels of a view are."""
  return start + (np.arange(output) + 0.5) * step - 0.5


def ramps(size=SIZE):
  """x, y and a constant: linear, so that any interpolation is exact."""
  x, y = np.meshgrid(np.arange(size), np.arange(size))
  return np.stack([x, y, np.full_like(x, 7)], axis=-1).astype(np.float32)


def test_identity(crop):
  np.testing.assert_allclose(view(crop, WHOLE, SIZE), crop, atol=1e-3)


@pytest.mark.parametrize("output", [20, 38, 96])
@pytest.mark.parametrize("zoom", [0.9, 1.0, 1.1])
@pytest.mark.parametrize("shift", [(0, 0), (0.1, -0.05)])
def test_places(output, zoom, shift):
  """Ramps tell where each pixel of a view was read.

  Exactly where it grows; where it shrinks, the filter's weights are those of
  whole pixels, which was measured to cost up to 0.09 pixels.
  """
  seen = view(ramps(), PART, output, shift=shift, zoom=zoom)
  width = 0.4 * SIZE
  step = width * zoom / output
  for axis, (corner, moved) in enumerate(zip((0.45, 0.25), shift, strict=True)):
    start = corner * SIZE + width * (0.5 + moved) - 0.5 * width * zoom
    line = seen[0, :, 0] if axis == 0 else seen[:, 0, 1]
    np.testing.assert_allclose(
      line,
      sampled(start, step, output),
      rtol=0,
      atol=1e-3 if step <= 1 else 0.12,
    )
  np.testing.assert_allclose(seen[..., 2], 7, rtol=1e-5)


def test_a_shift_by_whole_pixels(crop):
  moved = view(crop, WHOLE, SIZE, shift=(8 / SIZE, -4 / SIZE))
  np.testing.assert_allclose(moved[4:, :-8], crop[:-4, 8:], atol=1e-3)


def test_outside_of_the_crop_is_black(crop):
  beyond = geometry.Template(
    left=WHOLE.left + 0.5 * WHOLE.side, top=WHOLE.top, side=WHOLE.side
  )
  seen = view(crop, beyond, SIZE)
  np.testing.assert_allclose(seen[:, :47], crop[:, 48:-1], atol=1e-3)
  assert not seen[:, 49:].any()


def test_a_small_crop_in_its_array(crop):
  """What lies beside the crop in its array is never seen."""
  side = 60
  alone = view(crop[:side, :side], PART, 30, side=side)
  dirty = np.full_like(crop, 255)
  dirty[:side, :side] = crop[:side, :side]
  np.testing.assert_allclose(view(dirty, PART, 30, side=side), alone, atol=1e-3)
  whole = view(dirty, WHOLE, side, side=side)
  np.testing.assert_allclose(whole, crop[:side, :side], atol=1e-3)


def test_shrinking_does_not_alias():
  board = np.indices((SIZE, SIZE)).sum(axis=0) % 2 * 255.0
  crop = np.repeat(board[..., None], 3, axis=2).astype(np.float32)
  seen = view(crop, WHOLE, SIZE // 4)
  assert np.abs(seen[1:-1, 1:-1] - 127.5).max() < 2


def test_linear(crop):
  """So is its gradient: the transposed map, whatever the image."""
  noise = np.random.default_rng(0).normal(0, 9, crop.shape).astype(np.float32)
  options = {"shift": (0.02, 0.03), "zoom": 1.05}
  both = view(crop + 2 * noise, PART, 50, **options)
  apart = view(crop, PART, 50, **options) + 2 * view(noise, PART, 50, **options)
  np.testing.assert_allclose(both, apart, atol=1e-3)

  def still(x):
    return views.still_view(x, jnp.float32(SIZE), PART, 50)

  weights = jax.random.normal(jax.random.key(0), (50, 50, 3))
  gradient = jax.grad(lambda x: (still(x) * weights).sum())(jnp.asarray(crop))
  np.testing.assert_allclose(
    (gradient * noise).sum(), (still(jnp.asarray(noise)) * weights).sum(),
    rtol=1e-4,
  )  # fmt: skip


def test_still_view_does_not_move(crop):
  still = views.still_view(jnp.asarray(crop), jnp.float32(SIZE), PART, 50)
  np.testing.assert_array_equal(still, view(crop, PART, 50))


def test_batches(crop):
  """Mapped over faces, each is seen as if alone."""
  crops = jnp.stack([crop, crop[::-1]])
  sides = jnp.array([SIZE, 70], jnp.float32)
  both = jax.vmap(views.still_view, (0, 0, None, None))(crops, sides, PART, 40)
  for i in range(2):
    alone = view(crops[i], PART, 40, side=sides[i])
    np.testing.assert_allclose(both[i], alone, atol=1e-3)
