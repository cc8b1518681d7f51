import itertools

import numpy as np
import pytest

from fawkes_jax.imaging import geometry
from fawkes_jax.training import material
from fawkes_jax.training.batches import Batches
from fawkes_jax.training.network import Network


@pytest.fixture
def make(options, console):
  """Makes the batches of some options, and what they are drawn from."""
  network = Network(
    architecture="none",
    module=None,
    template=geometry.CROP,
    size=40,
  )

  def batches(*, whole=False, **changes):
    chosen = options(**changes)
    known = material.load(chosen, console=console)
    return Batches(chosen, known, network, whole=whole), known

  return batches


def test_a_batch_depends_on_seed_and_step_alone(make):
  batches, again, other = make()[0], make()[0], make(seed=1)[0]
  same = again.draw(3)
  np.testing.assert_array_equal(batches.draw(3).images, same.images)
  assert not np.array_equal(batches.draw(4).images, same.images)
  assert not np.array_equal(other.draw(3).images, same.images)


def test_batches_come_in_the_order_of_their_steps(make):
  batches, _ = make()
  ahead = batches.ahead(2)
  for step, batch in enumerate(itertools.islice(ahead, 7), start=2):
    np.testing.assert_array_equal(batch.images, batches.draw(step).images)
  ahead.close()


def test_each_crop_is_seen_once_an_epoch_with_its_targets(make):
  batches, known = make()
  rows = known.split.training
  steps = len(rows) // 8
  seen = []
  for step in range(steps):
    batch = batches.draw(step)
    assert batch.images.shape == (8, 40, 40, 3)
    (targets,) = known.targets.values()
    for label, target in zip(
      batch.labels, batch.targets["projection"], strict=True
    ):
      is_target = (targets[:, rows] == target).all(axis=-1)
      [[_, at]] = np.argwhere(is_target)[:1]
      seen.append(at)
      identities = known.faces.identities[rows]
      assert np.unique(identities)[label] == identities[at]
  assert len(set(seen)) == len(seen) == 8 * steps
  assert batches.identities == len(np.unique(known.faces.identities[rows]))


def test_teachers_who_look_get_whole_crops_and_no_answers(make):
  batches, known = make(whole=True)
  batch = batches.draw(0)
  assert batch.images.shape[1:] == known.faces.crops.shape[1:]
  assert batch.targets == {}
