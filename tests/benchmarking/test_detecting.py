"""What counts as found among annotated faces."""

from pathlib import Path

import numpy as np
import pytest

from fawkes_jax import types
from fawkes_jax.benchmarking import detecting
from fawkes_jax.faces import annotations

BOXES = np.array(
  [(0, 0, 10, 10), (50, 0, 80, 30), (100, 0, 190, 90), (200, 0, 230, 30)],
  np.float32,
)
LABELS = [
  {"difficulty": "hard", "perceived_skin": "V"},
  {"difficulty": "medium", "perceived_skin": "II"},
  {"difficulty": "easy", "perceived_skin": ""},
  {"difficulty": "ignore", "perceived_skin": ""},
]


def found(box, score=0.9):
  left, top, right, bottom = box
  box = np.array([left, top, right - 1, bottom - 1], np.float32)
  return types.Detection(box=box, score=score)


@pytest.fixture
def photo():
  return annotations.Annotated(
    path=Path("photo.jpg"),
    boxes=BOXES,
    ignored=np.array([False, False, False, True]),
    labels=LABELS,
  )


def test_recall_is_told_by_size_difficulty_and_skin(photo):
  rows = detecting.figures([photo], [[found(BOXES[1]), found(BOXES[2])]])
  assert rows["faces"] == 3
  assert rows["recall"] == pytest.approx(2 / 3)
  assert (rows["easy"], rows["medium"], rows["hard"]) == (1, 1, 0)
  assert (rows["0-20 px"], rows["20-40 px"], rows["80- px"]) == (0, 1, 1)
  assert rows["40-80 px"] is None
  assert (rows["I-III"], rows["IV-VI"]) == (1, 0)
  assert rows["precision"] == 1


def test_a_face_is_found_once_and_elsewhere_is_an_error(photo):
  twice = [found(BOXES[1]), found(BOXES[1], 0.8), found((300, 300, 330, 330))]
  rows = detecting.figures([photo], [twice])
  assert rows["recall"] == pytest.approx(1 / 3)
  assert rows["precision"] == pytest.approx(1 / 3)


def test_what_is_ignored_counts_for_nothing(photo):
  rows = detecting.figures([photo], [[found(BOXES[3]), found(BOXES[3], 0.5)]])
  assert (rows["faces"], rows["recall"], rows["precision"]) == (3, 0, 0)


def test_a_damaged_table_is_named_with_its_line(tmp_path):
  with pytest.raises(types.FawkesError, match=r"annotations.tsv must be read"):
    annotations.photos(tmp_path)
  table = tmp_path / "annotations.tsv"
  table.write_text("file\tleft\ttop\tright\nphoto.jpg\t1\t2\t3\n")
  with pytest.raises(types.FawkesError, match="must have a column bottom"):
    annotations.photos(tmp_path)
  table.write_text("file\tleft\ttop\tright\tbottom\na.jpg\t1\t2\tx\t4\n")
  with pytest.raises(types.FawkesError, match="line 2: left, top, right"):
    annotations.photos(tmp_path)
  table.write_text("file\tleft\ttop\tright\tbottom\na.jpg\t1\t2\t3\t4\n")
  with pytest.raises(types.FawkesError, match=r"a\.jpg must be beside it"):
    annotations.photos(tmp_path)
