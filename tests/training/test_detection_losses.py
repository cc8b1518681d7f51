"""How far a detector is from its teacher."""

import jax
import numpy as np

from fawkes_jax.models import yunet
from fawkes_jax.training.detection import losses

_imitation = jax.jit(losses.imitation)


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


def loss(said, taught):
  return {k: float(v) for k, v in _imitation(said, taught).items()}


def test_who_says_the_same_as_the_teacher_loses_nothing():
  assert max(loss(grids(), grids()).values()) < 1e-6


def test_a_face_that_is_missed_costs_more_than_one_that_is_not_there():
  missed = loss(grids(face=-6.0), grids())
  invented = loss(grids(), grids(face=-6.0))
  assert missed["score"] > 10 * invented["score"] > 0.1
  assert missed["box"] == invented["points"] == 0


def test_boxes_and_landmarks_count_where_a_face_is():
  off = loss(grids(box=0.5, points=0.25), grids())
  nobody = loss(grids(box=0.5, points=0.25), grids(face=-6.0))
  assert 0.1 < off["points"] < off["box"]
  assert nobody["points"] < nobody["box"] < 0.05
