"""Scenes to train a detector on: what is told of them is what is in them."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fawkes_jax.faces.annotations import Annotated
from fawkes_jax.training.detection import scenes

BOX = (120.0, 60.0, 180.0, 140.0)
POINTS = [(135, 90), (165, 90), (150, 105), (138, 122), (162, 122)]
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
    points=np.array([POINTS], np.float32),
    ignored=np.array([False]),
  )


def drawn(photo, singles=(), count=40, seed=0):
  return scenes.Studio([photo], singles, size=SIZE, seed=seed).draw(0, count)


def test_the_boxes_are_where_the_faces_are(photo):
  """Under any scale, turn and mirroring; a few are covered or hardly lit."""
  found = drawn(photo)
  off = []
  for image, boxes, kinds in zip(
    found.images, found.boxes, found.kinds, strict=True
  ):
    if kinds[0] == 1:
      grey = image.mean(axis=2)
      rows, columns = np.nonzero(grey > (grey.min() + grey.max()) / 2)
      seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
      off.append(np.abs(np.array(seen) - boxes[0]).max())
  assert len(off) > 20
  assert np.median(off) < 2


def test_the_landmarks_are_in_their_order(photo):
  """The left eye is on the left, also of a mirrored face."""
  found = drawn(photo)
  points = found.points[found.kinds == 1]
  eyes = points[:, 1] - points[:, 0]
  mouth = points[:, 4] - points[:, 3]
  down = points[:, 3:].mean(axis=1) - points[:, :2].mean(axis=1)
  assert (eyes[:, 0] > 0).all()
  assert (mouth[:, 0] > 0).all()
  assert (down[:, 1] > 0).all()


def test_faces_are_pasted(photo):
  found = drawn(photo, [photo])
  assert (found.kinds == 1).sum(axis=1).max() > 1
  alone = drawn(photo)
  assert (alone.kinds == 1).sum(axis=1).max() == 1


def test_a_step_has_the_same_scenes_whatever_was_drawn_before(photo):
  studio = scenes.Studio([photo], [photo], size=SIZE, seed=3)
  studio.draw(0, 2)
  first = studio.draw(7, 2)
  again = scenes.Studio([photo], [photo], size=SIZE, seed=3).draw(7, 2)
  for name in ("images", "boxes", "points", "kinds"):
    np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
  other = scenes.Studio([photo], [photo], size=SIZE, seed=4).draw(7, 2)
  assert (first.images != other.images).any()
