import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage import transform

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


def view(
  crop, template, output, *, side=SIZE, shift=(0, 0), zoom=1.0, blur=1.0
):
  return np.asarray(
    views.template_view(
      jnp.asarray(crop),
      jnp.float32(side),
      template,
      output,
      shift=jnp.array(shift, jnp.float32),
      zoom=jnp.float32(zoom),
      blur=jnp.float32(blur),
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


@pytest.mark.parametrize("angle", [-0.15, 0.05, 0.1])
def test_turn(astronaut, angle):
  """As scikit-image turns it, but for pixels that move as a whole."""
  image = astronaut[20:212, 130:322].astype(np.float32)
  found = np.asarray(
    views.turn(jnp.asarray(image), jnp.float32(192), jnp.float32(angle))
  )
  expected = transform.rotate(
    image, -np.degrees(angle), preserve_range=True, order=1
  )
  inner = np.s_[24:-24, 24:-24]
  # Measured: 4 to 5 grey levels, against 25 to 30 for the unturned picture.
  assert np.abs(found - expected)[inner].mean() < 7
  assert np.abs(image - expected)[inner].mean() > 14


def test_the_gradient_of_a_turn_is_the_turn_back(crop):
  side, angle = jnp.float32(80), jnp.float32(0.12)
  turned, back = jax.vjp(lambda x: views.turn(x, side, angle), crop)
  # A permutation: nothing is lost, and its transpose undoes it.
  np.testing.assert_array_equal(np.sort(turned, None), np.sort(crop, None))
  np.testing.assert_array_equal(back(turned)[0], crop)


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


def test_blur(crop):
  """A wider average of the same places, that keeps the mean."""
  ramp = view(ramps(), PART, 40, blur=3.0)
  np.testing.assert_allclose(ramp, view(ramps(), PART, 40), rtol=0, atol=0.05)
  sharp, soft = view(crop, PART, 40), view(crop, PART, 40, blur=3.0)
  assert np.abs(np.diff(soft, axis=0)).mean() < (
    0.7 * np.abs(np.diff(sharp, axis=0)).mean()
  )
  dot = np.zeros_like(crop)
  dot[40, 60] = 100
  one = view(dot, WHOLE, SIZE, blur=2.0)
  np.testing.assert_allclose(
    one[39:42, 60, 0] / one[40, 60, 0], (0.5, 1, 0.5), atol=1e-4
  )
  assert one.sum() == pytest.approx(300, rel=1e-4)


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


def tables(luma, chroma):
  steps = [np.full((8, 8), luma), np.full((8, 8), chroma)]
  steps[0][0] += np.arange(8)  # Not symmetric.
  return jnp.asarray(np.stack(steps), jnp.float32)


def saved(change, steps, offset=(0, 0)):
  return np.asarray(
    views.quantise(
      jnp.asarray(change, jnp.float32), steps, jnp.array(offset, jnp.int32)
    )
  )


@pytest.fixture(scope="module")
def change():
  coarse = np.random.default_rng(0).normal(0, 12, (24, 24, 3))
  return np.kron(coarse, np.ones((4, 4, 1))).astype(np.float32)


def test_quantise_is_what_a_jpeg_does(change):
  """A real JPEG with these tables, of an even grey plus the change.

  Decoding rounds to whole levels, and libjpeg's arithmetic rounds a few
  coefficients the other way: a mean of 0.35 levels was measured, and 1.7 with
  the tables transposed.
  """
  grey = change[..., :1].repeat(3, axis=-1)
  steps = tables(19, 30)
  image = Image.fromarray(np.round(128 + grey).astype(np.uint8))
  file = io.BytesIO()
  # Pillow takes tables row by row.
  image.save(
    file,
    "JPEG",
    qtables=[np.asarray(t, int).ravel().tolist() for t in steps],
    subsampling="4:2:0",
  )
  theirs = np.asarray(Image.open(file), np.float32) - 128
  ours = saved(np.round(grey), steps)
  assert np.abs(ours - theirs).mean() < 0.5
  assert (np.abs(ours - theirs) > 1.01).mean() < 0.06
  assert np.abs(theirs - grey).mean() > 2


def test_fine_steps_keep_grey_changes(change):
  """Steps of one cost each coefficient half at most."""
  grey = change[..., :1].repeat(3, axis=-1)
  assert np.abs(saved(grey, jnp.ones((2, 8, 8))) - grey).mean() < 0.5
  # Chroma loses its finest detail to subsampling; blocks of 4 have less.
  assert np.abs(saved(change, jnp.ones((2, 8, 8))) - change).mean() < 0.5


def test_the_grid_moves(change):
  steps = tables(25, 40)
  moved = saved(np.roll(change, (3, 5), axis=(0, 1)), steps)
  expected = np.roll(saved(change, steps, (3, 5)), (3, 5), axis=(0, 1))
  np.testing.assert_allclose(moved, expected, atol=1e-3)
  assert np.abs(saved(change, steps) - saved(change, steps, (3, 5))).max() > 1


def test_the_gradient_passes_through(change):
  weights = jax.random.normal(jax.random.key(0), change.shape)
  gradient = jax.grad(
    lambda x: (
      views.quantise(x, tables(25, 40), jnp.array([1, 2])) * weights
    ).sum()
  )(jnp.asarray(change))
  np.testing.assert_array_equal(gradient, weights)
