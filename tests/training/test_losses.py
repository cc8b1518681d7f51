import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fawkes_jax.training import losses


@pytest.fixture
def rng() -> np.random.Generator:
  return np.random.default_rng(0)


def _unit(x: np.ndarray) -> np.ndarray:
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_distillation_is_one_minus_the_mean_cosine(rng):
  x = rng.normal(size=(5, 4)).astype(np.float32)
  heads = {
    "a": rng.normal(size=(4, 3)).astype(np.float32),
    "b": rng.normal(size=(4, 6)).astype(np.float32),
  }
  targets = {
    name: _unit(rng.normal(size=(5, head.shape[1]))).astype(np.float32)
    for name, head in heads.items()
  }
  values = losses.distillation(x, heads, targets)
  for name, head in heads.items():
    cosines = (_unit(x @ head) * targets[name]).sum(-1)
    assert float(values[name]) == pytest.approx(1 - cosines.mean(), abs=1e-5)


def test_distillation_is_zero_for_a_student_that_is_its_teacher(rng):
  x = _unit(rng.normal(size=(5, 4))).astype(np.float32)
  value = losses.distillation(7 * x, {"a": np.eye(4)}, {"a": x})["a"]
  assert float(value) == pytest.approx(0, abs=1e-6)


def test_relations_compare_cosines_of_different_faces():
  # The student: a right angle. The teachers: 60 degrees, and 90.
  embeddings = jnp.array([[2.0, 0.0], [0.0, 5.0]])
  teachers = {
    "a": jnp.array([[1.0, 0.0], [0.5, np.sqrt(0.75)]]),
    "b": jnp.array([[0.0, 1.0], [1.0, 0.0]]),
  }
  value = losses.relations(embeddings, teachers)
  assert float(value) == pytest.approx(0.25**2, abs=1e-6)


def test_arcface_is_softmax_with_the_own_angle_widened(rng):
  x = rng.normal(size=(6, 5)).astype(np.float32)
  centres = rng.normal(size=(4, 5)).astype(np.float32)
  labels = np.array([0, 1, 2, 3, 0, 1])
  cosines = _unit(x) @ _unit(centres).T
  own = np.arccos(cosines[np.arange(6), labels])
  assert (own < np.pi - losses.ARCFACE_MARGIN).all()  # Where this form holds.
  logits = losses.ARCFACE_SCALE * cosines
  logits[np.arange(6), labels] = losses.ARCFACE_SCALE * np.cos(
    own + losses.ARCFACE_MARGIN
  )
  expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(6), labels]
  value = losses.arcface(x, centres, labels)
  assert float(value) == pytest.approx(expected.mean(), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("angle", [0.0, np.pi])
def test_arcface_has_a_finite_gradient_at_its_own_centre(angle):
  x = jnp.array([[np.cos(angle), np.sin(angle)]], jnp.float32)
  centres = jnp.array([[1.0, 0.0], [0.0, 1.0]])
  gradient = jax.grad(losses.arcface)(x, centres, jnp.array([0]))
  assert np.isfinite(gradient).all()


@pytest.mark.slow
def test_a_black_embedding_has_finite_gradients():
  zeros = jnp.zeros((2, 3))
  target = {"a": jnp.eye(3)[:2]}
  for loss in (
    lambda x: losses.distillation(x, {"a": jnp.eye(3)}, target)["a"],
    lambda x: losses.relations(x, target),
  ):
    assert np.isfinite(jax.grad(loss)(zeros)).all()
