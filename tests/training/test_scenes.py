"""Scenes to train a detector on: faces of all sizes, each time the same."""

import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fawkes_jax.faces.annotations import Annotated
from fawkes_jax.training.detection import scenes

BOX = (120.0, 60.0, 180.0, 140.0)
SIZE = 160


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
  """A white ellipse where the face is."""
  path = tmp_path_factory.mktemp("photos") / "photo.png"
  image = Image.new("RGB", (320, 240), (20, 20, 20))
  ImageDraw.Draw(image).ellipse(BOX, fill=(250, 250, 250))
  image.save(path)
  return Annotated(
    path=path,
    boxes=np.array([BOX], np.float32),
    ignored=np.array([False]),
  )


def drawn(photo, singles=(), count=40, seed=0):
  studio = scenes.Studio([photo], singles, size=SIZE, seed=seed)
  return studio.draw(0, count).images


def lit(images):
  """How much of each scene is as light as a face, relative to its darkness."""
  grey = images.mean(axis=3)
  low, high = (
    extreme(axis=(1, 2), keepdims=True) for extreme in (grey.min, grey.max)
  )
  light = (grey > (low + high) / 2) & (high - low > 60)
  return light.mean(axis=(1, 2))


def test_faces_are_seen_at_all_sizes(photo):
  """Small ones, and such that fill the scene."""
  shares = lit(drawn(photo))
  assert (shares > 0).mean() > 0.7
  assert shares[shares > 0].min() < 0.04
  assert shares.max() > 0.5


def test_faces_of_other_photos_are_pasted(photo, tmp_path):
  """Into a photo in which nobody is."""
  path = tmp_path / "empty.png"
  Image.new("RGB", (320, 240), (20, 20, 20)).save(path)
  empty = Annotated(
    path=path, boxes=np.zeros((0, 4), np.float32), ignored=np.zeros(0, bool)
  )
  assert (lit(drawn(empty)) > 0).mean() < 0.1
  assert (lit(drawn(empty, [photo])) > 0).mean() > 0.2


def test_a_step_has_the_same_scenes_whatever_was_drawn_before(photo):
  studio = scenes.Studio([photo], [photo], size=SIZE, seed=3)
  studio.draw(0, 2)
  first = studio.draw(7, 2)
  again = scenes.Studio([photo], [photo], size=SIZE, seed=3).draw(7, 2)
  for one, other in zip(first, again, strict=True):
    np.testing.assert_array_equal(one, other)
  other = scenes.Studio([photo], [photo], size=SIZE, seed=4).draw(7, 2)
  assert (first.images != other.images).any()


def test_it_is_told_where_the_faces_are(photo):
  """Also of those that are pasted, turned and mirrored."""
  drawn = scenes.Studio([photo], [photo], size=SIZE, seed=1).draw(0, 40)
  lighter = []
  for image, boxes, known in zip(*drawn, strict=True):
    for left, top, right, bottom in boxes[known]:
      x, y = int((left + right) / 2), int((top + bottom) / 2)
      lighter.append(image[y, x].mean() > np.median(image) + 30)
  assert len(lighter) > 40
  assert np.mean(lighter) > 0.85  # One may be pasted where another was.


def test_what_is_to_be_ignored_need_not_be_found(photo):
  ignored = dataclasses.replace(photo, ignored=np.array([True]))
  drawn = scenes.Studio([ignored], [], size=SIZE, seed=0).draw(0, 20)
  assert (drawn.boxes[:, 0, 2] > 0).any()
  assert not drawn.known.any()
