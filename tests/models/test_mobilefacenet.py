import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from PIL import Image

from fawkes_jax.models import layers, mobilefacenet
from fawkes_jax.weights.formats import onnx

MODULE = mobilefacenet.MobileFaceNet()
apply = jax.jit(MODULE.apply)


@pytest.fixture(scope="module")
def path(data_dir):
  return data_dir / "weights" / "foamliu_mobilefacenet.onnx"


@pytest.fixture(scope="module")
def variables(path):
  return onnx.convert(onnx.read(path), "mobilefacenet")


@pytest.fixture(scope="module")
def astronaut():
  """float32 [1, 112, 112, 3], a face in the public domain."""
  face = Image.fromarray(skimage.data.astronaut()[50:200, 150:300])
  return np.asarray(face.resize((112, 112)), np.float32)[None]


@pytest.mark.data
def test_parity_on_faces(path, variables, data_dir):
  runtime = pytest.importorskip("onnxruntime")
  photos = sorted(data_dir.glob("lfw/*/*_0001.jpg"))[::200][:8]
  assert len(photos) == 8
  faces = [
    np.asarray(Image.open(photo).convert("RGB"), np.float32)[69:181, 69:181]
    for photo in photos
  ]
  x = np.stack(faces)
  mean = np.array((0.485, 0.456, 0.406), np.float32)
  deviation = np.array((0.229, 0.224, 0.225), np.float32)
  session = runtime.InferenceSession(path)
  expected = [
    session.run(None, {"input0": image.transpose(2, 0, 1)[None]})[0][0]
    for image in (x / 255 - mean) / deviation
  ]
  actual = np.asarray(apply(variables, x))
  assert actual.dtype == np.float32
  error = np.linalg.norm(actual - expected, axis=1)
  assert (error <= 1e-5 * np.linalg.norm(expected, axis=1)).all()


@pytest.mark.data
def test_gradient_is_the_slope(variables, astronaut):
  """Along the gradient with noise, against central differences."""
  image = jnp.asarray(astronaut)
  weights_out = jax.random.normal(jax.random.key(0), (128,))

  @jax.jit
  def loss(variables, x):
    return (MODULE.apply(variables, x) @ weights_out).sum()

  gradient = jax.jit(jax.grad(loss, argnums=1))(variables, image)
  for seed in range(3):
    noise = jax.random.normal(jax.random.key(1 + seed), image.shape)
    direction = gradient / jnp.abs(gradient).max() + 0.05 * noise
    direction /= jnp.linalg.norm(direction)
    up = loss(variables, image + direction / 4)
    down = loss(variables, image - direction / 4)
    slope = (up - down) * 2
    np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=0.01)


@pytest.mark.parametrize(
  ("width", "stride", "shortcut"), [(4, 1, True), (4, 2, False), (5, 1, False)]
)
def test_shortcut_only_between_equal_shapes(width, stride, shortcut):
  x = np.random.default_rng(0).uniform(size=(1, 8, 8, 4)).astype(np.float32)
  block = layers.InvertedResidual(6, width, stride)
  shapes = jax.eval_shape(block.init, jax.random.key(0), x)
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
  y = block.apply(zeros, x)
  assert y.shape == (1, 8 // stride, 8 // stride, width)
  np.testing.assert_array_equal(y, x if shortcut else np.zeros(y.shape))
