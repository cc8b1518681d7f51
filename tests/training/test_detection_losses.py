"""How far a detector is from its teacher."""

import jax
import numpy as np
import pytest

from fawkes_jax.models import yunet
from fawkes_jax.training.detection import losses

_imitation = jax.jit(losses.imitation)
_corrected = jax.jit(losses.corrected)

FACE = (16.0, 8.0, 24.0, 16.0)
"""The box of the cell that has a face, in pixels, by `seen`."""


def grids(score=-6.0, box=0.0, points=0.0, *, face=6.0):
  """Three grids; in one cell of the first there is a face."""
  some = []
  for cells in (4, 2, 1):
    scores = np.full((1, cells, cells, 2), score, np.float32)
    if cells == 4:
      scores[0, 1, 2] = face
    some.append(
      yunet.Grid(
        scores,
        np.full((1, cells, cells, 4), box, np.float32),
        np.full((1, cells, cells, 10), points, np.float32),
      )
    )
  return some


def seen(**scores):
  """Grids whose boxes are one cell large, about its middle."""
  some = grids(**scores)
  for grid in some:
    grid.boxes[..., :2] = 0.5
  return some


def believed(taught):
  return [jax.nn.sigmoid(grid.scores) for grid in taught]


def loss(said, taught):
  parts = _imitation(said, taught, believed(taught))
  return {k: float(v) for k, v in parts.items()}


def chance(taught, box, *, known=True, row=1, column=2):
  """What is to be believed of a cell of the first grid."""
  boxes = np.zeros((1, 2, 4), np.float32)
  boxes[0, 0] = box
  told = np.array([[known, False]])
  first, *_ = _corrected(taught, boxes, told)
  return first[0, row, column]


def test_who_says_the_same_as_the_teacher_loses_nothing():
  assert max(loss(grids(), grids()).values()) < 1e-6


def test_faces_that_are_missed_and_that_are_invented_cost_alike():
  missed = loss(grids(face=-6.0), grids())
  invented = loss(grids(), grids(face=-6.0))
  # The parts are for each face, and one more.
  assert 2 * missed["score"] == pytest.approx(invented["score"], rel=0.05)
  assert missed["score"] > 1
  assert missed["box"] == invented["points"] == 0


def test_boxes_and_landmarks_count_where_a_face_is():
  off = loss(grids(box=0.5, points=0.25), grids())
  nobody = loss(grids(box=0.5, points=0.25), grids(face=-6.0))
  assert 0.1 < off["points"] < off["box"]
  assert nobody["points"] < nobody["box"] < 0.05


def test_what_is_invented_costs_more_the_surer_it_is_invented():
  """More than in proportion: so false alarms become rare."""
  a_little, much = (
    loss(grids(face=face), grids(face=-6.0))["score"] for face in (-3.0, 3.0)
  )
  assert much > 20 * a_little > 0


def test_a_known_face_is_believed_more_than_the_teacher_does():
  weak = seen(face=-1.0)
  alone = float(jax.nn.sigmoid(-1.0))
  assert chance(weak, FACE) == pytest.approx((1 + alone) / 2)
  # One that need not be found is believed as it was.
  assert chance(weak, FACE, known=False) == pytest.approx(alone)
  expected = float(jax.nn.sigmoid(-6.0))
  assert (chance(weak, FACE, column=3) <= expected + 1e-6).all()


def test_what_is_no_known_face_is_believed_less():
  elsewhere = (0.0, 24.0, 8.0, 32.0)
  expected = float(jax.nn.sigmoid(6.0)) / 2
  assert chance(seen(), elsewhere) == pytest.approx(expected)


def test_large_boxes_correct_the_teacher_further():
  taught = seen()
  taught[2].scores[...] = -1.0  # One cell, whose box is the scene.
  alone = float(jax.nn.sigmoid(-1.0))
  scene, corner = (0.0, 0.0, 32.0, 32.0), (0.0, 0.0, 2.0, 2.0)
  believed = {}
  for box in (scene, corner):
    boxes = np.zeros((1, 1, 4), np.float32)
    boxes[0, 0] = box
    *_, last = _corrected(taught, boxes, np.array([[True]]))
    believed[box] = float(last[0, 0, 0, 0])
  assert 0.5 + alone / 2 < believed[scene] < 1
  assert 0 < believed[corner] < alone / 2


def test_what_the_teacher_does_not_see_at_all_is_not_asked_for():
  expected = float(jax.nn.sigmoid(-6.0))
  assert chance(seen(face=-6.0), FACE) == pytest.approx(expected)
