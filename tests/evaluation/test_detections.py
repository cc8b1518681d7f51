"""Faces are looked for once, whoever asks."""

import numpy as np
import pytest
from PIL import Image

from fawkes_jax.evaluation import kept, people
from fawkes_jax.evaluation.detections import Detections

from .conftest import Eyes, Looks, picture


@pytest.fixture
def photo(tmp_path):
  path = tmp_path / "a.png"
  Image.fromarray(picture(0, 0)).save(path)
  return people.Photo(path=path, sha256="a", person=0, name="A/a.png")


@pytest.fixture
def detections(tmp_path):
  """Makes detections that know what earlier ones have saved."""
  return lambda: Detections(kept.Tables(tmp_path / "kept"), max_pixels=10_000)


def test_a_face_is_looked_for_once_also_by_the_next_run(photo, detections):
  eyes = Eyes(Looks())
  first = detections()
  pixels, face = first.shown(eyes, photo)
  np.testing.assert_array_equal(pixels, picture(0, 0))
  first.save(eyes)
  _, again = detections().shown(eyes, photo)
  assert eyes._looks.found == 1
  np.testing.assert_array_equal(again.box, face.box)


def test_a_changed_photo_is_looked_at_for_itself(photo, detections):
  eyes = Eyes(Looks())
  both = detections()
  assert both.face(eyes, photo, picture(0, 0)) is not None
  black = np.zeros_like(picture(0, 0))
  assert both.face(eyes, photo, black, "black") is None
  assert both.face(eyes, photo, black, "black") is None
  assert eyes._looks.found == 2


def test_a_photo_that_cannot_be_read_shows_nobody(photo, detections):
  eyes = Eyes(Looks())
  photo.path.write_bytes(photo.path.read_bytes()[:200])
  assert detections().shown(eyes, photo) is None
  photo.path.unlink()
  assert detections().shown(eyes, photo) is None
  assert eyes._looks.found == 0


def test_a_photo_beyond_the_limit_is_not_decoded(photo, tmp_path):
  small = Detections(kept.Tables(tmp_path / "kept"), max_pixels=100)
  assert small.pixels(photo) is None
