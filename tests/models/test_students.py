import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fawkes_jax.imaging import geometry
from fawkes_jax.models import students


@pytest.fixture(params=students.STUDENTS)
def student(request) -> nn.Module:
  return students.STUDENTS[request.param]()


@pytest.fixture
def images() -> np.ndarray:
  rng = np.random.default_rng(0)
  shape = (2, students.INPUT_SIZE, students.INPUT_SIZE, 3)
  return rng.integers(0, 256, shape, np.uint8)


def test_students_are_small(student):
  shape = (1, students.INPUT_SIZE, students.INPUT_SIZE, 3)
  variables = jax.eval_shape(
    student.init, jax.random.key(0), jnp.zeros(shape, jnp.float32)
  )
  count = sum(leaf.size for leaf in jax.tree.leaves(variables))
  assert 1_000_000 < count < 1_500_000


@pytest.mark.slow
def test_embeds_and_has_a_gradient_everywhere(student, images):
  variables = students.initialise(student, 0)

  @jax.jit
  def run(x):
    embeddings, vjp = jax.vjp(lambda x: student.apply(variables, x), x)
    return embeddings, vjp(jnp.ones_like(embeddings))[0]

  embeddings, gradient = run(images.astype(np.float32))
  assert embeddings.shape == (2, students.EMBEDDING_SIZE)
  assert embeddings.dtype == jnp.float32
  assert np.isfinite(gradient).all()
  assert (np.abs(gradient).sum(axis=-1) > 0).mean() > 0.99
  distance = np.linalg.norm(embeddings[0] - embeddings[1])
  assert distance > 1e-4


@pytest.mark.slow
def test_the_seed_decides_the_weights():
  student = students.StudentViT(depth=1)
  one, same, other = (students.initialise(student, seed) for seed in (3, 3, 4))
  one, same, other = (
    np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(v["params"])])
    for v in (one, same, other)
  )
  np.testing.assert_array_equal(one, same)
  assert (one != other).mean() > 0.9


def test_the_template_lies_in_the_crop():
  left, top, side = geometry.CROP.zoom(students.TEMPLATE)
  assert min(left, top) >= 0
  assert max(left, top) + side <= 1
