import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fawkes_jax.cloaking import objective
from fawkes_jax.imaging import views
from fawkes_jax.options import SolverOptions

STILL = SolverOptions(jitter=0, blur=0, jpeg=0)


def test_normalise():
  embeddings = np.random.default_rng(0).normal(3, 2, (5, 7, 16))
  centre = np.full(16, 3.0)
  found = np.asarray(
    objective.normalised(
      jnp.asarray(embeddings, jnp.float32), jnp.asarray(centre, jnp.float32)
    )
  )
  centred = embeddings - centre
  expected = centred / np.linalg.norm(centred, axis=-1, keepdims=True)
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_normalise_the_mean_itself():
  """The mean identity has no direction: zero, not NaN."""
  centre = jnp.arange(4.0)
  assert not np.asarray(objective.normalised(centre[None], centre)).any()


@pytest.fixture(scope="module")
def attack(recognition, cloaker):
  """The loss of a face, compiled; options and extractors are static."""
  extractors = recognition.extractors
  variables = {
    e.name: {"weights": e.variables, "centre": cloaker.centres[e.name]}
    for e in extractors
  }

  @jax.jit(static_argnums=3)
  def run(image, problem, key, options, variables):
    return objective.attack(image, problem, variables, extractors, options, key)

  return lambda image, problem, options=STILL, seed=0: float(
    run(image, problem, jax.random.key(seed), options, variables)
  )


@pytest.mark.slow
def test_attack_is_what_it_says(attack, recognition, cloaker, problems):
  """A weighted mean of 1 - cos(target) and 1 + cos(own), by hand."""
  [extractor] = recognition.extractors
  problem = problems[0]._replace(own_weight=np.float32(0.5))
  view = views.still_view(
    jnp.asarray(problem.original),
    jnp.float32(problem.side),
    extractor.template,
    extractor.input_size,
  )
  raw = extractor.embed(np.asarray(view)[None])[0]
  centred = raw - cloaker.centres[extractor.name]
  features = centred / np.linalg.norm(centred)
  to_target = 1 - features @ problem.target[extractor.name]
  own = features @ problem.own[extractor.name]
  assert own == pytest.approx(1, abs=1e-5)
  weight = problem.own_weight
  expected = (to_target + weight * (1 + own)) / (1 + weight)
  assert attack(problem.original, problem) == pytest.approx(expected, abs=1e-5)


def test_attack_at_its_ends(attack, problems):
  """The face itself as its target leaves only the distance from it."""
  problem = problems[0]._replace(own_weight=np.float32(0.5))
  reached = problem._replace(target=problem.own)
  value = attack(problem.original, reached)
  weight = problem.own_weight
  assert value == pytest.approx(2 * weight / (1 + weight), abs=1e-4)
  # At the target and opposite to the own identity nothing is left to do.
  away = reached._replace(own={k: -v for k, v in problem.own.items()})
  assert attack(problem.original, away) == pytest.approx(0, abs=1e-4)


@pytest.mark.slow
def test_random_views(attack, problems):
  """Same key, same view; another key, another."""
  moving = dataclasses.replace(STILL, jitter=0.03)
  problem = problems[0]
  first = attack(problem.original, problem, moving, seed=1)
  assert first == attack(problem.original, problem, moving, seed=1)
  assert first != attack(problem.original, problem, moving, seed=2)


@pytest.mark.slow
def test_gradient_of_several_extractors(recognition, cloaker, problems):
  """The mean of what each extractor alone asks for, each with an equal say."""
  [first] = recognition.extractors
  rng = np.random.default_rng(0)
  second = dataclasses.replace(first, name="second")
  problem = problems[0]
  for field in ("own", "target"):
    vector = rng.normal(size=128).astype(np.float32)
    vector /= np.linalg.norm(vector)
    mine = {**getattr(problem, field), "second": vector}
    problem = problem._replace(**{field: mine})
  variables = {
    e.name: {"weights": e.variables, "centre": cloaker.centres[first.name]}
    for e in (first, second)
  }

  @jax.jit(static_argnums=1)
  def slope(image, extractors, variables):
    return jax.value_and_grad(objective.attack)(
      image, problem, variables, extractors, STILL, jax.random.key(0)
    )

  image = jnp.asarray(problem.original)
  value, gradient = slope(image, (first, second), variables)
  alone = [slope(image, (e,), variables) for e in (first, second)]
  assert value == pytest.approx(float(np.mean([v for v, _ in alone])), abs=1e-6)
  lengths = [np.linalg.norm(g) for _, g in alone]
  np.testing.assert_allclose(lengths, lengths[0], rtol=1e-5)
  expected = np.mean([g for _, g in alone], axis=0)
  np.testing.assert_allclose(
    gradient, expected, atol=1e-5 * np.abs(expected).max()
  )
