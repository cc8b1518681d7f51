import pytest

from fawkes_jax.training.schedule import Schedule


@pytest.fixture
def schedule(options):
  return lambda **changes: Schedule(options(learning_rate=0.01, **changes))


def test_a_run_ends_after_its_steps_or_its_minutes(schedule):
  steps = schedule(steps=200, minutes=1)
  assert steps.progress(50, 59.0) == 0.25
  assert steps.progress(200, 1.0) == 1
  assert steps.progress(50, 60.0) == 1
  assert schedule(steps=None, minutes=2).progress(10**6, 30.0) == 0.25


def test_the_rate_rises_and_falls(schedule):
  rates = [schedule(steps=200).at(step, 0.0).rate for step in range(200)]
  peak = rates.index(max(rates))
  assert rates[:peak] == sorted(rates[:peak])
  assert rates[peak:] == sorted(rates[peak:], reverse=True)
  assert 10 <= peak <= 30  # A tenth of the run.
  assert 0.0095 < rates[peak] <= 0.01
  assert rates[-1] < 1e-5
  assert schedule(steps=200).at(200, 0.0).rate == 0


def test_adversarial_changes_grow_in_the_first_third(schedule):
  run = schedule(steps=300, adversarial=6.0)
  assert run.at(0, 0.0).bound == 0
  assert run.at(50, 0.0).bound == pytest.approx(3)
  assert run.at(100, 0.0).bound == run.at(299, 0.0).bound == pytest.approx(6)


def test_cloaks_have_their_bound_from_the_start(schedule):
  run = schedule(steps=300, cloaking=8.0)
  assert {run.at(step, 0.0).bound for step in (0, 100, 299)} == {8.0}


def test_fewer_batches_warm_up_where_each_is_seen_repeatedly(schedule):
  once, often = (
    schedule(steps=1000, cloaking=8.0, repeats=repeats) for repeats in (1, 4)
  )
  assert often.at(10, 0.0).rate > 2 * once.at(10, 0.0).rate
