import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from PIL import Image

from fawkes_jax.models import dlib_resnet
from fawkes_jax.weights import catalogue, extractors
from fawkes_jax.weights.formats import dlib as dlib_weights

MODULE = dlib_resnet.DlibResNet()
apply = jax.jit(MODULE.apply)


@pytest.fixture(scope="module")
def variables():
  return extractors.load_extractor("dlib_resnet").variables


@pytest.fixture(scope="module")
def reference():
  dlib = pytest.importorskip("dlib")
  [file] = catalogue.public()["dlib_resnet"].files
  return dlib.face_recognition_model_v1(
    str(dlib_weights.package_file(file.name))
  )


@pytest.fixture(scope="module")
def astronaut():
  """uint8 [1, 150, 150, 3], a face in the public domain."""
  face = Image.fromarray(skimage.data.astronaut()[50:200, 150:300])
  return np.array(face)[None]


def assert_parity(reference, variables, faces):
  expected = np.array([reference.compute_face_descriptor(f) for f in faces])
  actual = np.asarray(apply(variables, faces.astype(np.float32)))
  assert actual.dtype == np.float32
  error = np.linalg.norm(actual - expected, axis=1)
  assert (error <= 1e-5 * np.linalg.norm(expected, axis=1)).all()


def test_parity_on_astronaut(reference, variables, astronaut):
  assert_parity(reference, variables, astronaut)


def test_parity_on_noise(reference, variables):
  rng = np.random.default_rng(0)
  assert_parity(
    reference, variables, rng.integers(0, 256, (3, 150, 150, 3), np.uint8)
  )


@pytest.mark.data
def test_parity_on_faces(reference, variables, data_dir):
  paths = sorted(data_dir.glob("lfw/*/*_0001.jpg"))[::40][:40]
  assert len(paths) == 40
  faces = [
    np.asarray(Image.open(path).convert("RGB"))[50:200, 50:200]
    for path in paths
  ]
  assert_parity(reference, variables, np.stack(faces))


def test_variables_fit_the_module(variables):
  image = jax.ShapeDtypeStruct((1, 150, 150, 3), jnp.float32)
  expected = jax.eval_shape(MODULE.init, jax.random.key(0), image)
  assert jax.tree.map(jnp.shape, variables) == jax.tree.map(
    jnp.shape, dict(expected)
  )


def test_gradient_is_the_slope(variables, astronaut):
  """Along random directions, against central differences.

  The slope of the chord approaches the gradient as the step shrinks, until
  float32 rounds it away: steps of length 4, 1 and 1/4 (of the whole image)
  were measured to differ by 1.6 %, 0.4 % and 0.27 %.
  """
  image = jnp.asarray(astronaut, jnp.float32)
  weights_out = jax.random.normal(jax.random.key(0), (128,))

  @jax.jit
  def loss(variables, x):
    return (MODULE.apply(variables, x) @ weights_out).sum()

  gradient = jax.jit(jax.grad(loss, argnums=1))(variables, image)
  assert jnp.isfinite(gradient).all()
  for seed in range(4):
    noise = jax.random.normal(jax.random.key(1 + seed), image.shape)
    direction = gradient / jnp.abs(gradient).max() + 0.05 * noise
    direction /= jnp.linalg.norm(direction)
    up = loss(variables, image + direction / 4)
    down = loss(variables, image - direction / 4)
    slope = (up - down) * 2
    np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=0.005)


def test_faces_are_independent(variables, astronaut):
  image = astronaut.astype(np.float32)
  alone = apply(variables, image)
  batch = apply(variables, np.concatenate([image, 255 - image]))
  np.testing.assert_allclose(batch[:1], alone, rtol=0, atol=1e-5)


def test_bfloat16_stays_near(variables, astronaut):
  half = dlib_resnet.DlibResNet(dtype=jnp.bfloat16)
  image = astronaut.astype(np.float32)
  exact = apply(variables, image)
  rough = jax.jit(half.apply)(variables, image)
  assert rough.dtype == jnp.float32
  # A small part of 0.6, dlib's distance between two people.
  assert 0 < jnp.linalg.norm(rough - exact) < 0.05
