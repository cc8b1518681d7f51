import jax
import jax.numpy as jnp
import pytest

from fawkes_jax.imaging import geometry
from fawkes_jax.models import architectures

NAMES = list(architectures.ARCHITECTURES)


@pytest.mark.parametrize("name", NAMES)
def test_images_become_embeddings(name):
  """Images of the size it says become float32 rows; traced, not computed."""
  architecture = architectures.ARCHITECTURES[name]
  module = architecture.module()
  size = architecture.input_size
  images = jax.ShapeDtypeStruct((3, size, size, 3), jnp.float32)
  variables = jax.eval_shape(module.init, jax.random.key(0), images)
  found = jax.eval_shape(module.apply, variables, images)
  assert found.dtype == jnp.float32
  assert found.shape[0] == 3
  assert len(found.shape) == 2


@pytest.mark.parametrize("name", NAMES)
def test_template_lies_in_the_crop(name):
  """With a little room around it, for random views."""
  template = architectures.ARCHITECTURES[name].template
  left, top, side = geometry.CROP.zoom(template)
  # The alignment moves by a hundredth in each step.
  assert min(left, top) > 0.015
  assert max(left, top) + side < 0.98


def test_build_joins_both():
  weights = {"params": {}}
  extractor = architectures.build("dlib_resnet", weights, dtype=jnp.bfloat16)
  architecture = architectures.ARCHITECTURES["dlib_resnet"]
  assert extractor.name == "dlib_resnet"
  assert extractor.variables is weights
  assert extractor.input_size == architecture.input_size
  assert extractor.template == architecture.template
  assert extractor.module.dtype == jnp.bfloat16


def test_unknown_name():
  with pytest.raises(ValueError, match=r"unknown extractor 'nobody'.*dlib_res"):
    architectures.build("nobody", {})
