import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from PIL import Image

from fawkes_jax.models import architectures, layers
from fawkes_jax.training import blocks
from fawkes_jax.weights import extractors

# Name of the port, its file, what pixels are divided by.
RECOGNISERS = (
  ("esp_mobilefacenet", "esp_mfn.onnx", 127.5),
  ("se_mobilefacenet", "se_mfn.onnx", 128.0),
)


@pytest.mark.data
@pytest.mark.parametrize(("port", "file", "deviation"), RECOGNISERS)
def test_embeds_as_the_file_does_in_its_own_runtime(
  port, file, deviation, data_dir
):
  runtime = pytest.importorskip("onnxruntime")
  path = data_dir / "weights" / file
  face = Image.fromarray(skimage.data.astronaut()[50:200, 150:300])
  plain = np.asarray(face.resize((112, 112)), np.float32)
  images = np.stack([plain, plain[:, ::-1], 255 - plain])
  session = runtime.InferenceSession(path)
  [source] = session.get_inputs()
  expected = [
    session.run(None, {source.name: image.transpose(2, 0, 1)[None]})[0].ravel()
    for image in (images - 127.5) / np.float32(deviation)
  ]
  extractor = extractors.load_extractor(str(path))
  assert extractor.name == port
  error = np.linalg.norm(extractor.embed(images) - expected, axis=1)
  # 1e-6 when this was measured.
  assert (error <= 1e-5 * np.linalg.norm(expected, axis=1)).all()


@pytest.mark.parametrize("port", [port for port, *_ in RECOGNISERS])
def test_has_the_blocks_that_a_twin_learns_from(port):
  about = architectures.ARCHITECTURES[port]
  module = about.module()
  images = jax.ShapeDtypeStruct((1, 112, 112, 3), np.float32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), images)
  assert blocks.Blocks(module).any(shapes, 112)
  weights = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  assert 1_000_000 < weights < 1_300_000


def test_the_gradients_of_slopes_and_biases_are_those_of_plain_operations():
  """They are written by hand, to be fast."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 5, 5, 3)).astype(np.float32)
  weight = rng.normal(size=x.shape).astype(np.float32)
  number = rng.normal(size=3).astype(np.float32)

  def plain_prelu(x, slope):
    return jnp.where(x < 0, slope * x, x)

  pairs = (
    (layers.prelu, plain_prelu),
    (layers.add_bias, lambda x, bias: x + bias),
  )
  for ours, plain in pairs:
    found, expected = (
      jax.value_and_grad(
        lambda x, n, f=function: (weight * f(x, n)).sum(), (0, 1)
      )(x, number)
      for function in (ours, plain)
    )
    for one, other in zip(
      jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
      np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_slopes_act_by_channel():
  x = -np.ones((1, 2, 2, 3), np.float32)
  module = layers.PRelu()
  slope = np.array([0, 0.5, 2], np.float32)
  y = module.apply({"params": {"slope": slope}}, x)
  np.testing.assert_array_equal(y[0, 0, 0], -slope)


def test_least_padding_is_tensorflows():
  """One row of zeros below an even image, none above it, at stride 2."""
  layer = layers.Convolution(1, size=3, stride=2, least=True)
  kernel = np.zeros((3, 3, 1, 1), np.float32)
  kernel[0, 0] = 1  # The upper left pixel of each window.
  x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
  params = {"kernel": kernel, "bias": np.zeros(1, np.float32)}
  y = layer.apply({"params": params}, x)
  np.testing.assert_array_equal(y[0, :, :, 0], [[0, 2], [8, 10]])
