"""What a detector is taught: where faces are, and where they are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fawkes_jax.models import yunet
from fawkes_jax.training.detection import losses

SIZE = 96
_detection = jax.jit(losses.detection)
BOX = np.array([[[20, 24, 44, 56]]], np.float32)
POINTS = np.array(
  [[[(27, 36), (37, 36), (32, 42), (28, 48), (36, 48)]]], np.float32
)


def perfect(box=BOX[0, 0], points=POINTS[0, 0], surely=9.0):
  """Grids that say what is so, and nothing elsewhere."""
  grids = []
  for stride in yunet.STRIDES:
    cells = SIZE // stride
    x, y = np.meshgrid(np.arange(cells), np.arange(cells))
    corners = np.stack([x, y], axis=-1).astype(np.float32)
    middle = (box[:2] + box[2:]) / 2
    inside = np.abs((corners + 0.5) * stride - middle) <= np.clip(
      0.3 * (box[2:] - box[:2]), 0.5 * stride, 1.2 * stride
    )
    near = inside.all(axis=-1) & (stride == 8)
    scores = np.where(near, surely, -9.0)[None, ..., None]
    boxes = np.concatenate(
      [
        middle / stride - corners,
        np.broadcast_to(np.log((box[2:] - box[:2]) / stride), corners.shape),
      ],
      axis=-1,
    )
    spots = (points / stride)[None, None] - corners[:, :, None]
    grids.append(
      yunet.Grid(
        jnp.asarray(scores, jnp.float32),
        jnp.asarray(boxes[None], jnp.float32),
        jnp.asarray(spots.reshape(1, cells, cells, 10), jnp.float32),
      )
    )
  return grids


def loss(grids, boxes=BOX, points=POINTS, kind=1):
  kinds = np.full(boxes.shape[:2], kind, np.int8)
  return {
    name: float(value)
    for name, value in _detection(grids, boxes, points, kinds).items()
  }


def test_nothing_is_to_be_learned_from_what_is_right():
  assert all(value < 0.02 for value in loss(perfect()).values())


def test_what_is_wrong_costs():
  right = loss(perfect())
  assert loss(perfect(box=BOX[0, 0] + 3))["box"] > right["box"] + 0.1
  assert loss(perfect(points=POINTS[0, 0] + 4))["points"] > 0.3
  missed = loss(perfect(surely=-9.0))
  assert missed["score"] > right["score"] + 1


def test_a_face_that_is_not_there_costs():
  nobody = loss(perfect(), kind=0)
  assert nobody["score"] > 1
  assert nobody["box"] == nobody["points"] == 0


def test_what_is_ignored_costs_nothing_found_or_not():
  for surely in (9.0, -9.0):
    assert loss(perfect(surely=surely), kind=-1)["score"] < 0.02


def test_unknown_landmarks_leave_no_trace():
  unknown = np.full_like(POINTS, np.nan)
  assert loss(perfect(), points=unknown)["points"] == 0
  kinds = np.ones((1, 1), np.int8)
  gradients = jax.jit(
    jax.grad(
      lambda grids: sum(
        losses.detection(grids, BOX, unknown, kinds).values(), jnp.float32(0)
      )
    )
  )(perfect())
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_decoding_reads_what_was_meant():
  [faces] = yunet.decode(perfect(), threshold=0.5, overlap=0.3)
  np.testing.assert_allclose(faces.boxes, BOX[0], atol=0.01)
  np.testing.assert_allclose(faces.points, POINTS[0], atol=0.01)
  assert faces.scores == pytest.approx([1], abs=0.01)
