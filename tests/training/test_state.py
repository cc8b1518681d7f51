import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors

from fawkes_jax import types
from fawkes_jax.training.state import Checkpoint, State

OPTIMISER = optax.chain(optax.scale_by_adam())


def _state(value: float = 1.0) -> State:
  params = {"student": {"dense": {"kernel": jnp.full((2, 3), value)}}}
  return State.begin(params, {"mean": jnp.zeros(3)}, OPTIMISER)


@pytest.fixture
def checkpoint(options):
  return Checkpoint(options(), data="digest", teachers=["one", "other"])


def test_a_step_goes_down_and_the_average_follows():
  def loss(params, stats, images):
    total = (params["student"]["dense"]["kernel"] * images).sum()
    return total, ({"total": total}, {"mean": stats["mean"] + 1})

  state, parts = _state().advanced(
    loss,
    jnp.full((2, 3), 2.0),
    optimiser=OPTIMISER,
    rate=jnp.float32(0.1),
    ema=0.9,
    step=jnp.uint32(0),
  )
  assert parts == {"total": 12}
  kernel = state.params["student"]["dense"]["kernel"]
  np.testing.assert_allclose(kernel, 0.9, rtol=1e-5)
  # A tenth of the first average remains, however long it shall be later.
  averaged = state.student()
  np.testing.assert_allclose(
    averaged["params"]["dense"]["kernel"], 0.91, rtol=1e-5
  )
  np.testing.assert_allclose(averaged["batch_stats"]["mean"], 0.9, rtol=1e-5)


def test_a_student_without_statistics_has_none():
  state = State.begin({"student": {"bias": jnp.ones(2)}}, {}, OPTIMISER)
  assert set(state.student()) == {"params"}


def test_a_state_comes_back_as_it_was(checkpoint):
  state = _state(3.0)
  checkpoint.save(state, 5, 61.5)
  restored, step, seconds = checkpoint.restore(_state())
  assert (step, seconds) == (5, 61.5)
  jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_states_of_earlier_versions_have_the_same_names(checkpoint):
  """Runs that take days are continued after an upgrade."""
  checkpoint.save(_state(), 5, 1.0)
  with safetensors.safe_open(checkpoint.path, framework="numpy") as file:
    assert set(file.keys()) == {
      "average/params/student/dense/kernel",
      "average/stats/mean",
      "optimiser/0/count",
      "optimiser/0/mu/student/dense/kernel",
      "optimiser/0/nu/student/dense/kernel",
      "params/student/dense/kernel",
      "seconds",
      "stats/mean",
      "step",
    }


@pytest.mark.parametrize(
  ("changes", "data", "flag"),
  [
    ({"batch_size": 16}, "digest", "batch_size"),
    ({"ema": 0.25}, "digest", "ema"),
    ({}, "other faces", "data"),
  ],
)
def test_what_changes_the_weights_must_stay(
  checkpoint, options, changes, data, flag
):
  checkpoint.save(_state(), 5, 1.0)
  other = Checkpoint(options(**changes), data=data, teachers=["one", "other"])
  with pytest.raises(types.FawkesError, match=f"--{flag} must stay"):
    other.restore(_state())


def test_what_changes_no_weight_may_change(checkpoint, options):
  checkpoint.save(_state(), 5, 1.0)
  changed = options(minutes=5, report_minutes=3, threads=1, name="else")
  other = Checkpoint(changed, data="digest", teachers=["one", "other"])
  assert other.restore(_state())[1] == 5


def test_a_state_of_another_network_is_refused(checkpoint):
  checkpoint.save(_state(), 5, 1.0)
  like = dataclasses.replace(_state(), stats={"mean": jnp.zeros(4)})
  with pytest.raises(types.FawkesError, match=r"stats/mean must be \(4,\)"):
    checkpoint.restore(like)
