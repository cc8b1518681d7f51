import dataclasses

import numpy as np
import pytest
import skimage.data
from PIL import Image

from fawkes_jax.models import landmarks
from fawkes_jax.weights import builtin
from fawkes_jax.weights.formats import dlib as dlib_weights

ASTRONAUT_BOX = np.array([[173, 73, 276, 176]], np.float32)


@pytest.fixture(scope="module")
def model():
  return builtin.load_landmark_model()


@pytest.fixture(scope="module")
def reference():
  dlib = pytest.importorskip("dlib")
  predictor = dlib.shape_predictor(
    str(dlib_weights.package_file(dlib_weights.LANDMARK_FILE))
  )

  def predict(pixels, boxes):
    shapes = [
      predictor(pixels, dlib.rectangle(*map(int, box))).parts() for box in boxes
    ]
    return np.array([[(p.x, p.y) for p in shape] for shape in shapes])

  return predict


def assert_parity(model, reference, pixels, boxes):
  """Equal to dlib's points, which are rounded to whole pixels."""
  pixels = np.ascontiguousarray(pixels)
  points = model.predict(pixels, boxes.astype(np.float32))
  assert points.dtype == np.float32
  np.testing.assert_array_equal(
    np.floor(points + 0.5), reference(pixels, boxes)
  )


def test_parity_on_astronaut(model, reference):
  rng = np.random.default_rng(0)
  boxes = ASTRONAUT_BOX + rng.integers(-15, 15, (40, 4))
  assert_parity(model, reference, skimage.data.astronaut(), boxes)


def test_parity_at_borders(model, reference):
  photo = skimage.data.astronaut()[100:160, 190:250]
  rng = np.random.default_rng(0)
  boxes = ASTRONAUT_BOX - [190, 100, 190, 100] + rng.integers(-15, 15, (40, 4))
  assert_parity(model, reference, photo, boxes)


@pytest.mark.data
def test_parity_on_faces(model, reference, data_dir):
  paths = sorted(data_dir.glob("lfw/*/*_0001.jpg"))[::40][:40]
  assert len(paths) == 40
  rng = np.random.default_rng(0)
  for path in paths:
    boxes = np.array([70, 70, 180, 180]) + rng.integers(-10, 10, (3, 4))
    photo = np.asarray(Image.open(path).convert("RGB"))
    assert_parity(model, reference, photo, boxes)


def test_no_faces(model):
  points = model.predict(skimage.data.astronaut(), np.zeros((0, 4), np.float32))
  assert points.shape == (0, 5, 2)


def test_points_move_with_the_photo(model):
  photo = skimage.data.astronaut()
  points = model.predict(photo, ASTRONAUT_BOX)
  moved = model.predict(photo[20:, 30:], ASTRONAUT_BOX - [30, 20, 30, 20])
  np.testing.assert_allclose(moved, points - [30, 20], atol=1e-3)
  # An eye, an eye, and the nose between and below them.
  first, _, second, _, nose = points[0]
  assert second[0] < nose[0] < first[0]
  assert nose[1] > max(first[1], second[1]) + 10


def test_tree_walk_takes_every_path():
  """Two trees of three splits over three pixels, walked by hand."""
  leaves = np.arange(80, dtype=np.float32).reshape(1, 2, 4, 5, 2)
  model = landmarks.LandmarkModel(
    mean_shape=np.zeros((5, 2), np.float32),
    first=np.array([[[0, 0, 1], [1, 2, 0]]]),
    second=np.array([[[1, 2, 2], [0, 0, 0]]]),
    threshold=np.array([[[0, 5, 5], [0, 0, -1]]], np.float32),
    leaves=leaves,
    anchors=np.zeros((1, 3), int),
    offsets=np.zeros((1, 3, 2), np.float32),
  )
  assert {f.name for f in dataclasses.fields(model)} == set(vars(model))
  grey = np.array([[9, 1, 0], [9, 1, 7], [1, 9, 0], [1, 9, 6]], np.float32)
  reached = model._leaves_reached(0, grey)
  # First tree: left if 0 > 1, then left if 0 - 2 > 5 or if 1 - 2 > 5.
  np.testing.assert_array_equal(reached[0], leaves[0, 0, [0, 1, 2, 3]])
  # Second tree: left if 1 > 0, then left if 2 > 0; on the right always left.
  np.testing.assert_array_equal(reached[1], leaves[0, 1, [2, 2, 1, 0]])
