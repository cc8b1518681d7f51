"""Pictures of faces show what was changed, and where."""

import io

import made_up
import numpy as np
import PIL.Image
import pytest

from fawkes_jax.archive import stores
from fawkes_jax.reporting import gathering, pictures


def run(tmp_path, before, after, box):
  """A row of one photo with a face, and the pictures of it."""
  sides = {"in": made_up.png(before), "out": made_up.png(after)}
  for folder, data in sides.items():
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "a.png").write_bytes(data)
  row = made_up.row(
    "a.png",
    source_sha256=made_up.digest(sides["in"]),
    output_sha256=made_up.digest(sides["out"]),
    faces=(made_up.face(box=box),),
  )
  shown = pictures.Pictures(
    stores.open_store(tmp_path / "out"), tmp_path / "in"
  )
  shown.load([gathering.Face(row=row, index=0)], [row])
  return shown


def decoded(jpeg):
  return np.asarray(PIL.Image.open(io.BytesIO(jpeg))).astype(int)


def test_a_change_is_shown_eight_times_as_strong(tmp_path):
  before = np.full((300, 400, 3), 100, np.uint8)
  after = before.copy()
  after[100:200, 200:300] += np.array(
    [4, 0, 250], np.uint8
  )  # Blue wraps to 94.
  shown = run(tmp_path, before, after, [200, 100, 300, 200])
  face = shown.faces["a.png", 0]
  assert face.missing == []
  for jpeg, red in (face.before, 100), (face.after, 104), (face.change, 160):
    picture = decoded(jpeg)
    assert picture.shape == (150, 150, 3)  # One and a half of the box.
    assert picture[50:100, 50:100, 0].mean() == pytest.approx(red, abs=2)
  change = decoded(face.change)
  assert change[50:100, 50:100, 2].mean() == pytest.approx(80, abs=3)
  assert change[:15].mean() == pytest.approx(128, abs=2)


@pytest.mark.parametrize(
  "box", [[-20, -30, 60, 50], [350, 250, 420, 320], [-50, -50, 900, 900]]
)
def test_faces_at_the_border_are_shown_as_far_as_they_are_there(tmp_path, box):
  before = np.zeros((300, 400, 3), np.uint8)
  shown = run(tmp_path, before, before, box)
  width, height = PIL.Image.open(
    io.BytesIO(shown.faces["a.png", 0].before)
  ).size
  assert 0 < width <= 224 and 0 < height <= 224


def test_whole_photos_are_small(tmp_path):
  before = np.zeros((300, 600, 3), np.uint8)
  shown = run(tmp_path, before, before, [0, 0, 50, 50])
  assert decoded(shown.photos["a.png"]).shape == (120, 240, 3)


def test_a_result_of_another_size_is_shown_without_the_source(tmp_path):
  before = np.zeros((300, 400, 3), np.uint8)
  shown = run(tmp_path, before, before[:200], [0, 0, 50, 50])
  face = shown.faces["a.png", 0]
  assert face.before is None and face.after and face.change is None
  assert face.missing == ["before and after are of different sizes"]
