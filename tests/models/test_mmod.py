import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from PIL import Image

from fawkes_jax.models import mmod
from fawkes_jax.weights import builtin
from fawkes_jax.weights.formats import dlib as dlib_weights


@pytest.fixture(scope="module")
def detector():
  return builtin.load_mmod()


@pytest.fixture(scope="module")
def reference():
  dlib = pytest.importorskip("dlib")
  return dlib.cnn_face_detection_model_v1(
    str(dlib_weights.package_file(dlib_weights.MMOD_FILE))
  )


def iou(a, b):
  low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
  shared = mmod._area(low, high)
  return shared / (mmod._area(a[:2], a[2:]) + mmod._area(b[:2], b[2:]) - shared)


def assert_parity(detector, reference, photo):
  """Every sure face of either detector is one of the other; returns dlib's."""
  theirs = [
    (np.array([r.left(), r.top(), r.right(), r.bottom()]), found.confidence)
    for found in reference(photo, 0)
    for r in [found.rect]
  ]
  [faces] = detector.detect([photo], min_face_pixels=80)
  ours = [(face.box, face.score) for face in faces]
  for some, others in ((theirs, ours), (ours, theirs)):
    for box, score in some:
      if score > 0.5:
        best, other = max(others, key=lambda face: iou(face[0], box))
        assert iou(best, box) >= 0.8
        assert abs(other - score) < 1e-3
  return theirs


@pytest.mark.slow
def test_parity_on_astronaut(detector, reference):
  assert len(assert_parity(detector, reference, skimage.data.astronaut())) == 1


def test_parity_on_a_face_cut_by_the_border(detector, reference):
  photo = np.ascontiguousarray(skimage.data.astronaut()[:, 80:251])
  assert_parity(detector, reference, photo)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(
  ("name", "count"),
  [
    ("compreface/000_5.jpg", 5),
    ("compreface/009_C.jpg", 1),
    ("compreface/011_3.jpg", 3),
    ("compreface/013_4.jpg", 4),
    ("compreface/017_0.jpg", 0),
    ("groups/dlib_2007_007763.jpg", 0),
    ("groups/dlib_bald_guys.jpg", 21),
  ],
)
def test_parity_on_photos(detector, reference, data_dir, name, count):
  image = Image.open(data_dir / "photos" / name).convert("RGB")
  image.thumbnail((1000, 1000))
  faces = assert_parity(detector, reference, np.asarray(image))
  assert len(faces) == count


@pytest.mark.slow
@pytest.mark.data
def test_parity_on_portraits(detector, reference, data_dir):
  for path in sorted(data_dir.glob("lfw/*/*_0001.jpg"))[::200]:
    photo = np.asarray(Image.open(path).convert("RGB"))
    assert assert_parity(detector, reference, photo)


NOSES = {
  "003_A": [(3210, 1382)],
  "010_2": [(348, 232), (506, 262)],
  "015_6": [
    (161, 229),
    (267, 266),
    (350, 281),
    (450, 271),
    (555, 264),
    (635, 250),
  ],
  "017_0": [],
}


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", NOSES)
def test_default_finds_the_annotated_faces(detector, data_dir, name):
  path = data_dir / "photos" / "compreface" / f"{name}.jpg"
  photo = np.asarray(Image.open(path).convert("RGB"))
  [faces] = detector.detect([photo])
  assert len(faces) == len(NOSES[name])
  for x, y in NOSES[name]:
    assert any(
      left < x < right and top < y < bottom
      for left, top, right, bottom in (face.box for face in faces)
    )


def test_boxes_follow_the_scale(detector):
  photo = skimage.data.astronaut()
  large = np.asarray(Image.fromarray(photo).resize((1024, 1024)))
  [[expected]] = detector.detect([photo], min_face_pixels=80)
  for min_face_pixels in (80, 110, 160):
    [[face]] = detector.detect([large], min_face_pixels=min_face_pixels)
    assert iou(2 * (expected.box + 0.5) - 0.5, face.box) > 0.7
  [missed] = detector.detect([photo], min_face_pixels=250)
  assert missed == []


def test_order_and_batches_do_not_matter(detector):
  photo = skimage.data.astronaut()
  photos = [photo, photo[:300], photo[:, ::-1], photo[:256, 90:346], photo]
  options = {"min_face_pixels": 80}
  batched = dataclasses.replace(detector, batch_size=2).detect(
    photos, **options
  )
  for photo, faces in zip(photos, batched, strict=True):
    [alone] = detector.detect([photo], **options)
    assert len(alone) == len(faces) == 1
    np.testing.assert_allclose(faces[0].box, alone[0].box)
    assert faces[0].score == pytest.approx(alone[0].score, abs=1e-4)


@pytest.mark.slow
def test_few_compilations(detector):
  rng = np.random.default_rng(0)
  sizes = rng.integers(200, 260, (60, 2))
  photos = [np.full((*size, 3), 90, np.uint8) for size in sizes]
  before = mmod._program()._cache_size()
  assert detector.detect(photos, min_face_pixels=80) == [[]] * 60
  assert mmod._program()._cache_size() - before <= 16
  before = mmod._program()._cache_size()
  detector.detect(photos[::-1], min_face_pixels=80)
  assert mmod._program()._cache_size() == before


def test_search_is_bounded(detector):
  for shape in ((5000, 7000), (100, 90), (12000, 9000)):
    height, width = detector._search_size(shape, 1.0)
    assert height * width <= 1.001 * detector.max_pixels
    assert height / width == pytest.approx(shape[0] / shape[1], rel=1e-2)


def test_no_photos(detector):
  assert detector.detect([]) == []


def test_tiny_photo(detector):
  assert detector.detect([np.zeros((1, 1, 3), np.uint8)]) == [[]]
  assert detector.detect([np.zeros((3, 300, 3), np.uint8)]) == [[]]


@pytest.mark.parametrize("size", [0, -1])
def test_min_face_must_be_positive(detector, size):
  with pytest.raises(ValueError, match=f"> 0, got {size}"):
    detector.detect([], min_face_pixels=size)


def test_levels_do_not_overlap():
  rng = np.random.default_rng(0)
  for height, width in np.exp(rng.uniform(3, 8, (60, 2))).astype(int).tolist():
    canvas, levels = mmod.layout(height, width)
    drawn = np.zeros((canvas, width + 2 * mmod.CANVAS_MARGIN), np.uint8)
    for top, left, h, w in levels:
      assert top >= 0 and left >= 0
      drawn[top : top + h, left : left + w] += 1
    if max(height / width, width / height) < 3:
      assert drawn.max() == 1
    assert drawn.sum() >= height * width


def test_variables_fit_the_module(detector):
  canvases = jax.ShapeDtypeStruct((1, 200, 200, 3), jnp.float32)
  extents = jax.ShapeDtypeStruct((1, 2), jnp.int32)
  expected = jax.eval_shape(
    detector.module.init, jax.random.key(0), canvases, extents
  )
  assert jax.tree.map(jnp.shape, detector.variables) == jax.tree.map(
    jnp.shape, dict(expected)
  )


def test_padding_does_not_change_scores(detector):
  rng = np.random.default_rng(0)
  canvases = rng.normal(0, 0.3, (1, 3, 200, 230)).astype(np.float32)
  padded = np.pad(canvases, ((0, 0), (0, 0), (0, 60), (0, 90)))
  extents = np.array([[200, 230]], np.int32)
  scores, more = (
    mmod.score_canvases(detector.variables, x, extents, module=detector.module)
    for x in (canvases, padded)
  )
  rows, columns = mmod._cells(200), mmod._cells(230)
  assert scores.shape == (1, rows, columns)
  np.testing.assert_allclose(more[:, :rows, :columns], scores, atol=1e-5)


def test_strips_give_the_scores_of_the_whole(detector):
  photo = skimage.data.astronaut()
  size = mmod.canvas_size(*photo.shape[:2])
  canvas = np.zeros((1, 3, size[0], mmod.bucket_side(size[1])), np.float32)
  mmod.draw_canvas(photo, canvas[0])
  extents = np.array([size], np.int32)
  whole, strips = (
    dataclasses.replace(detector, strip_pixels=pixels)._score(
      detector.variables, canvas, extents
    )
    for pixels in (10**9, 300_000)
  )
  assert canvas[0, 0].size > 3 * 300_000
  np.testing.assert_allclose(strips, whole, atol=1e-5)
  places = mmod._cells(size[0]), mmod._cells(size[1])
  assert whole[0, : places[0], : places[1]].max() > 0.5


def test_suppress_divides_by_the_box_around_both():
  boxes = np.array([[0, 0, 9, 9], [5, 5, 14, 14], [0, 0, 9, 8]], float)
  scores = np.array([0.5, 0.9, 0.7])
  # 25 shared pixels in a box of 225: 0.111 (their union would be 175: 0.143).
  assert mmod.suppress(boxes[:2], scores[:2], (0.10, 1.0)) == [1]
  assert mmod.suppress(boxes[:2], scores[:2], (0.12, 1.0)) == [1, 0]
  # A quarter of each is covered.
  assert mmod.suppress(boxes[:2], scores[:2], (0.12, 0.24)) == [1]
  assert mmod.suppress(boxes, scores, (0.12, 1.0)) == [1, 2]
