import jax
import numpy as np
import pytest
import skimage.data
from PIL import Image

from fawkes_jax.models import architectures
from fawkes_jax.training import blocks
from fawkes_jax.weights import extractors


@pytest.mark.slow
@pytest.mark.data
def test_embeds_as_the_file_does_in_its_own_runtime(data_dir):
  runtime = pytest.importorskip("onnxruntime")
  path = data_dir / "weights" / "ghost05.onnx"
  face = Image.fromarray(skimage.data.astronaut()[50:200, 150:300])
  plain = np.asarray(face.resize((112, 112)), np.float32)
  images = np.stack([plain, plain[:, ::-1], 255 - plain])
  session = runtime.InferenceSession(path)
  [source] = session.get_inputs()
  scaled = (images.transpose(0, 3, 1, 2) - 127.5) / np.float32(128)
  [expected] = session.run(None, {source.name: scaled})
  extractor = extractors.load_extractor(str(path))
  assert extractor.name == "ghostfacenet"
  error = np.linalg.norm(extractor.embed(images) - expected, axis=1)
  # 1e-6 when this was measured.
  assert (error <= 1e-5 * np.linalg.norm(expected, axis=1)).all()


def test_has_the_blocks_that_a_twin_learns_from():
  module = architectures.ARCHITECTURES["ghostfacenet"].module()
  images = jax.ShapeDtypeStruct((1, 112, 112, 3), np.float32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), images)
  assert blocks.Blocks(module).any(shapes, 112)
  weights = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  assert 600_000 < weights < 800_000
