import numpy as np
import pytest
from PIL import Image

from fawkes_jax import types
from fawkes_jax.models import joint_detector
from fawkes_jax.weights import detectors


@pytest.fixture(scope="module")
def both():
  return detectors.load("both")


@pytest.fixture(scope="module")
def photo(astronaut):
  """One person twice: faces of about 100 and of 30 pixels."""
  portrait = Image.fromarray(astronaut[:256, 100:356])
  canvas = np.full((300, 1280, 3), 90, np.uint8)
  canvas[20:276, 20:276] = np.asarray(portrait)
  canvas[100:172, 1100:1172] = np.asarray(portrait.resize((72, 72)))
  return canvas


def face(*box):
  return types.Detection(box=np.array(box, np.float32), score=1.0)


def test_each_finds_what_the_other_does_not_look_for(both, photo):
  """The box of the large face is dlib's, the small one has landmarks."""
  [[large, small]] = both.detect([photo])
  [[alone]] = both.large.detect([photo])
  np.testing.assert_array_equal(large.box, alone.box)
  assert large.points is None
  assert 1100 < small.box[0] < small.box[2] < 1172
  assert small.points.shape == (5, 2)


def test_the_smallest_face_holds_for_both(both, photo):
  [[large]] = both.detect([photo], min_face_pixels=60)
  assert large.points is None
  assert not both.detect([photo], min_face_pixels=250)[0]
  assert both.smallest_face(photo.shape[:2]) == pytest.approx(20, abs=0.2)
  assert both.smallest_face(photo.shape[:2], 60) == pytest.approx(60, abs=1)
  with pytest.raises(ValueError, match="must be > 0"):
    both.detect([photo], min_face_pixels=0)


def test_a_face_that_both_find_counts_once():
  """Also where one box is much smaller; neighbours who touch are two."""
  known = [face(100, 100, 199, 199)]
  for again in (face(110, 90, 209, 189), face(120, 120, 159, 159)):
    assert joint_detector.joined(known, [again]) == known
  beside = face(170, 100, 269, 199)
  assert joint_detector.joined(known, [beside]) == [*known, beside]
  assert joint_detector.joined([], [beside]) == [beside]
  assert joint_detector.joined([], []) == []
