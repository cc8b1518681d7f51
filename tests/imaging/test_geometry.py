import cmath
import math

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fawkes_jax.imaging import geometry, views
from fawkes_jax.models import architectures
from fawkes_jax.weights.formats import dlib as dlib_weights

ASTRONAUT_BOX = (173, 73, 276, 176)
TURN = cmath.exp(0.4j)


def alignment(origin, axis, side):
  return geometry.Alignment(origin=origin, axis=axis, side=side)


def smooth(x, y):
  """A slowly varying picture, as three channels of a function of the plane."""
  return np.stack(
    [
      20 * np.sin(x / 19) * np.cos(y / 23),
      15 * np.cos(x / 29 + y / 17),
      10 * np.sin(y / 13),
    ],
    axis=-1,
  ).astype(np.float32)


def photo_points(aligned):
  """The photo's x and y under each pixel of a crop."""
  index = np.arange(aligned.side)
  z = aligned.origin + aligned.axis * (index[None, :] + 1j * index[:, None])
  return z.real, z.imag


@pytest.mark.parametrize("a", [1, 0.25, 3j, -2 + 1j])
def test_similarity_transform_recovers(a):
  points = np.random.default_rng(0).normal(0, 50, (5, 2))
  b = 7 - 3j
  moved = a * (points @ (1, 1j)) + b
  found = geometry.similarity_transform(
    points, np.stack([moved.real, moved.imag], axis=1)
  )
  np.testing.assert_allclose(found, (a, b), atol=1e-10)


def test_similarity_transform_is_least_squares():
  """No other transform nearby fits points better that do not fit exactly."""
  rng = np.random.default_rng(1)
  source, target = rng.normal(0, 1, (2, 6, 2))
  z, w = source @ (1, 1j), target @ (1, 1j)
  a, b = geometry.similarity_transform(source, target)

  def error(a, b):
    return np.sum(np.abs(a * z + b - w) ** 2)

  for step in (1e-3, -1e-3, 1e-3j, -1e-3j):
    assert error(a + step, b) > error(a, b)
    assert error(a, b + step) > error(a, b)


def test_similarity_transform_does_not_reflect():
  """A mirror image is no similarity: it must not fit."""
  source = geometry.MEAN_FACE
  mirrored = source * (-1, 1)
  a, b = geometry.similarity_transform(source, mirrored)
  z, w = source @ (1, 1j), mirrored @ (1, 1j)
  assert np.abs(a * z + b - w).max() > 0.1


def test_coinciding_points_are_refused():
  points = np.full((5, 2), 3.0)
  with pytest.raises(ValueError, match="must not coincide"):
    geometry.similarity_transform(points, geometry.MEAN_FACE)


@pytest.mark.parametrize("angle", [0.0, 0.7, -2.0])
@pytest.mark.parametrize("size", [40.0, 90.0, 400.0])
def test_align(angle, size):
  """The mean face, turned and scaled, lands where the crop's frame says."""
  a, b = size * cmath.exp(1j * angle), 300 + 250j
  z = a * (geometry.MEAN_FACE @ (1, 1j)) + b
  landmarks = np.stack([z.real, z.imag], axis=1).astype(np.float32)
  aligned = geometry.align(landmarks, max_side=192)
  # At the face's own resolution unless that is too large.
  extent = size * geometry.CROP.side
  assert aligned.side == min(round(extent), 192)
  assert aligned.extent == pytest.approx(extent, rel=1e-5)
  assert cmath.phase(aligned.axis) == pytest.approx(angle, abs=1e-5)
  crop = (z - aligned.origin) / aligned.axis
  corner = np.array([geometry.CROP.left, geometry.CROP.top])
  frame = (np.stack([crop.real, crop.imag], axis=1) + 0.5) / aligned.side
  np.testing.assert_allclose(
    corner + frame * geometry.CROP.side, geometry.MEAN_FACE, atol=1e-4
  )


def test_zoom():
  whole = geometry.Template(left=-1, top=-2, side=4)
  assert whole.zoom(whole) == (0, 0, 1)
  part = geometry.Template(left=0, top=0, side=1)
  assert whole.zoom(part) == (0.25, 0.5, 0.25)


def test_the_crop_holds_every_template():
  templates = [a.template for a in architectures.ARCHITECTURES.values()]
  for template in (*templates, geometry.FACE):
    left, top, side = geometry.CROP.zoom(template)
    assert 0 < left < left + side < 1
    assert 0 < top < top + side < 1


def test_extract_at_a_translation_is_exact(astronaut):
  crop = geometry.extract(astronaut, alignment(170 + 60j, 1 + 0j, 100))
  assert crop.dtype == np.float32
  np.testing.assert_array_equal(crop, astronaut[60:160, 170:270])


def test_extract_at_a_quarter_turn_is_exact(astronaut):
  crop = geometry.extract(astronaut, alignment(269 + 60j, 1j, 100))
  np.testing.assert_array_equal(crop, np.rot90(astronaut[60:160, 170:270]))


@pytest.mark.parametrize("scale", [1, 1.6, 4.3, 9])
def test_a_crop_needs_no_more_of_the_photo_than_its_reach(astronaut, scale):
  rng = np.random.default_rng(0)
  for _ in range(8):
    origin = complex(*rng.uniform(-60, 500, 2))
    axis = scale * np.exp(1j * rng.uniform(-3, 3))
    aligned = alignment(origin, axis, 48)
    left, top, right, bottom = geometry.reach(astronaut.shape[:2], aligned)
    part = astronaut[top:bottom, left:right]
    np.testing.assert_array_equal(
      geometry.extract(part, aligned, corner=(left, top)),
      _sampled(astronaut, aligned),
    )


def _sampled(photo, aligned):
  """The crop as it is where all of the photo is at hand."""
  return geometry._sample(np.ascontiguousarray(photo), aligned)


def test_outside_is_black(astronaut):
  crop = geometry.extract(astronaut, alignment(-30 - 20j, 1 + 0j, 100))
  np.testing.assert_array_equal(crop[20:, 30:], astronaut[:80, :70])
  assert not crop[:20].any()
  assert not crop[:, :30].any()
  for origin, axis in ((600 + 0j, 1), (600 + 600j, 3), (-900 - 900j, 4)):
    away = geometry.extract(astronaut, alignment(origin, axis, 64))
    assert away.shape == (64, 64, 3)
    assert not away.any()


@pytest.mark.parametrize(
  ("origin", "axis", "side"),
  [
    (120.3 + 40.7j, 1 / TURN, 100),
    (120 + 30j, TURN, 100),
    (200.3 + 200.1j, -1.7 * TURN, 60),
    (90 + 10j, 3.9 * TURN, 40),
  ],
)
def test_extract_reads_the_right_points(origin, axis, side):
  """Ramps of slope one say where each pixel of the crop was read.

  Whole numbers cost up to a level each way, but they cost a rising and a
  falling ramp the same: their difference tells the place to 0.02 pixels.
  """
  x, y = np.meshgrid(np.arange(256), np.arange(256))
  aligned = alignment(origin, axis, side)
  inside = np.s_[2:-2, 2:-2]
  at_x, at_y = (place[inside] for place in photo_points(aligned))
  for ramp, place in ((x, at_x), (y, at_y)):
    photo = np.stack([ramp, 255 - ramp, ramp], axis=-1).astype(np.uint8)
    crop = geometry.extract(photo, aligned)[inside]
    read = (crop[..., 0] - crop[..., 1] + 255) / 2
    assert np.abs((read - place).mean()) < 0.02
    assert np.abs(read - place).max() < 1.5


def test_large_faces_are_not_aliased():
  """A chessboard of single pixels becomes the even grey that it looks like."""
  board = np.indices((800, 800)).sum(axis=0) % 2 * 255
  photo = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
  crop = geometry.extract(photo, alignment(200 + 200j, 4 + 0j, 96))
  assert np.abs(crop - 127.5).max() < 3


@pytest.fixture(scope="module")
def five_points():
  """dlib's own landmarks of the face in a box."""
  dlib = pytest.importorskip("dlib")
  predictor = dlib.shape_predictor(
    str(dlib_weights.package_file(dlib_weights.LANDMARK_FILE))
  )
  return lambda pixels, box: predictor(pixels, dlib.rectangle(*box))


def chip_error(pixels, shape):
  """Mean absolute difference between dlib's face chip and ours."""
  dlib = pytest.importorskip("dlib")
  chip = dlib.get_face_chip(pixels, shape, size=150, padding=0.25)
  points = np.array([(p.x, p.y) for p in shape.parts()], np.float32)
  aligned = geometry.align(points, max_side=256)
  crop = np.zeros((256, 256, 3), np.float32)
  crop[: aligned.side, : aligned.side] = geometry.extract(pixels, aligned)
  view = views.still_view(
    jnp.asarray(crop),
    jnp.float32(aligned.side),
    architectures.ARCHITECTURES["dlib_resnet"].template,
    150,
  )
  return np.abs(np.asarray(view) - chip.astype(np.float32)).mean()


@pytest.mark.slow
@pytest.mark.parametrize("angle", [0, 25, 180])
def test_dlib_sees_the_same_chip(astronaut, five_points, angle):
  """Mean differences of 0.82 to 0.89 levels were measured; one pixel of the
  chip off is 4."""
  image = Image.fromarray(astronaut).resize((768, 768), Image.LANCZOS)
  shape = five_points(
    np.asarray(image), [round(1.5 * v) for v in ASTRONAUT_BOX]
  )
  if angle:
    dlib = pytest.importorskip("dlib")
    turn = cmath.exp(-1j * math.radians(angle))
    middle = (image.width - 1) / 2 * (1 + 1j)
    turned = [
      turn * (complex(p.x, p.y) - middle) + middle for p in shape.parts()
    ]
    points = [dlib.point(round(z.real), round(z.imag)) for z in turned]
    shape = dlib.full_object_detection(shape.rect, points)
    image = image.rotate(angle, Image.BICUBIC)
  assert chip_error(np.asarray(image), shape) < 1.2


@pytest.mark.data
def test_dlib_sees_the_same_chips_of_photos(data_dir, five_points):
  """Means of 0.67 to 1.29 levels, of 0.95 over all, were measured."""
  errors = []
  for path in sorted(data_dir.glob("lfw/*/*_0001.jpg"))[::100]:
    with Image.open(path) as image:
      pixels = np.asarray(image)
    # The pictures are centred on their faces.
    errors.append(chip_error(pixels, five_points(pixels, (78, 80, 170, 172))))
  assert np.mean(errors) < 1.1
  assert np.max(errors) < 2


def test_coverage(astronaut):
  aligned = alignment(100 + 100j, TURN, 120)
  weights = geometry.coverage(astronaut.shape[:2], aligned)
  assert weights.dtype == np.float32
  assert weights.max() == 1
  assert weights[60, 60] == 1
  edge = np.concatenate(
    [weights[0], weights[-1], weights[:, 0], weights[:, -1]]
  )
  assert (edge < 0.01).all()
  # It fades without a step that could be seen.
  assert np.abs(np.diff(weights, axis=0)).max() < 0.1
  np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-6)


def test_coverage_outside_of_the_photo(astronaut):
  height, width = astronaut.shape[:2]
  aligned = alignment(width - 50 - 40j, 1.3 * TURN, 120)
  weights = geometry.coverage((height, width), aligned)
  x, y = photo_points(aligned)
  outside = (x < 0) | (y < 0) | (x > width - 1) | (y > height - 1)
  assert outside.any() and not outside.all()
  assert not weights[outside].any()
  assert weights[~outside].max() > 0.5


def test_budget_weights():
  """They sum to 1 over the face, whatever of the crop is in the photo."""
  left, top, size = (100 * v for v in geometry.CROP.zoom(geometry.FACE))
  face = np.s_[round(top) : round(top + size), round(left) : round(left + size)]
  for origin in (100 + 100j, -40 - 30j):
    coverage = geometry.coverage((512, 512), alignment(origin, 1 + 0j, 100))
    weights = geometry.budget_weights(coverage)
    assert weights[face].sum() == pytest.approx(1, rel=1e-5)
    assert ((weights > 0) == (coverage > 0)).all()
  away = geometry.budget_weights(np.zeros((100, 100), np.float32))
  assert not away.any()


ALIGNMENTS = {
  "plain": alignment(100 + 80j, 1 + 0j, 120),
  "turned": alignment(200 + 80j, TURN, 120),
  "upside down": alignment(300 + 300j, -1 + 0j, 120),
  "larger than the crop": alignment(250 + 40j, 2.2 * TURN, 120),
  "tiny": alignment(250 + 40j, 1 + 0j, 24),
  "cut by a corner": alignment(-50 - 30j, 1.1 * TURN, 120),
  "cut by an edge": alignment(450 + 150j, 1.4 + 0j, 120),
}


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_paste_lies_inside_the_photo(name):
  aligned = ALIGNMENTS[name]
  change = np.ones((aligned.side, aligned.side, 3), np.float32)
  left, top, pasted = geometry.paste(change, aligned, (480, 512))
  assert pasted.dtype == np.float32
  height, width = pasted.shape[:2]
  assert 0 <= left < left + width <= 512
  assert 0 <= top < top + height <= 480
  assert 0.9 < pasted.max() < 1.1
  _, _, nothing = geometry.paste(0 * change, aligned, (480, 512))
  assert nothing.shape == pasted.shape
  assert not nothing.any()


@pytest.mark.parametrize("origin", [600 + 0j, -200 + 0j, 0 + 600j, 0 - 200j])
def test_paste_beside_the_photo(origin):
  change = np.ones((100, 100, 3), np.float32)
  left, top, pasted = geometry.paste(
    change, alignment(origin, 1 + 0j, 100), (480, 512)
  )
  assert pasted.size == 0
  assert 0 <= left <= 512
  assert 0 <= top <= 480


def test_paste_at_a_translation_is_exact():
  change = np.random.default_rng(0).normal(0, 9, (50, 50, 3)).astype(np.float32)
  left, top, pasted = geometry.paste(
    change, alignment(30 + 20j, 1 + 0j, 50), (100, 100)
  )
  photo = np.zeros((100, 100, 3), np.float32)
  photo[top : top + len(pasted), left : left + pasted.shape[1]] = pasted
  np.testing.assert_allclose(photo[20:70, 30:80], change, atol=1e-5)
  photo[20:70, 30:80] = 0
  assert not photo.any()


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_paste_then_extract(name):
  """A smooth change that is pasted is found again by extracting.

  What a solver makes of a face must be what a recogniser sees. Whole numbers
  cost half a level in the photo and one in the crop; up to 1.9 levels, and 0.53
  on average, were measured where all of the kernel lies inside the photo.
  """
  aligned = ALIGNMENTS[name]
  shape = (480, 512)
  coverage = geometry.coverage(shape, aligned)
  index = np.arange(aligned.side)
  change = smooth(*np.meshgrid(index, index)) * coverage[..., None]
  left, top, pasted = geometry.paste(change, aligned, shape)
  photo = np.full((*shape, 3), 128.0, np.float32)
  photo[top : top + len(pasted), left : left + pasted.shape[1]] += pasted
  seen = geometry.extract(np.round(photo).astype(np.uint8), aligned) - 128
  x, y = photo_points(aligned)
  margin = 3 * aligned.scale
  inside = (x > margin) & (y > margin)
  inside &= (x < shape[1] - margin) & (y < shape[0] - margin)
  error = np.abs(seen - change)[inside]
  assert error.max() < 2.1
  assert error.mean() < 0.6
  assert np.abs(change[inside]).max() > 10


def test_both_kinds_of_landmarks_place_the_same_crop():
  """Of a face that is as the templates say."""
  arcface = geometry.ARCFACE_POINTS / 112 * geometry.ARCFACE.side + (
    geometry.ARCFACE.left,
    geometry.ARCFACE.top,
  )
  turn = np.array([[40, -25], [25, 40]])  # By 32 degrees, 47 pixels a unit.
  ours, theirs = (
    points @ turn.T + (300, 200) for points in (arcface, geometry.MEAN_FACE)
  )
  by_centres = geometry.align_centres(ours, max_side=192)
  by_corners = geometry.align(theirs, max_side=192)
  assert by_centres.side == by_corners.side == 94
  assert abs(by_centres.origin - by_corners.origin) < 1e-6
  assert abs(by_centres.axis - by_corners.axis) < 1e-9
