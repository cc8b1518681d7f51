"""An extractor that is compiled in a moment, for tests of what is around it."""

import jax.numpy as jnp
import numpy as np

from fawkes_jax.models import architectures

EMBEDDING_SIZE = 32
_SIZE, _PATCH, _WIDTH = 56, 8, 16
_PLACES = (_SIZE // _PATCH) ** 2


def apply(variables, images):
  """Features of patches, put together for the whole face."""
  n, across = len(images), _SIZE // _PATCH
  x = (images - 127.5) / 128
  x = x.reshape(n, across, _PATCH, across, _PATCH, 3)
  x = x.transpose(0, 1, 3, 2, 4, 5).reshape(n, _PLACES, -1)
  x = jnp.tanh(x @ variables["patches"])
  return (x.reshape(n, -1) @ variables["places"]).astype(jnp.float32)


def make(name="small") -> architectures.Extractor:
  """A network of random weights: for each name another one."""
  rng = np.random.default_rng(list(name.encode()))
  shapes = {
    "patches": (3 * _PATCH**2, _WIDTH),
    "places": (_PLACES * _WIDTH, EMBEDDING_SIZE),
  }
  return architectures.Extractor.from_apply(
    apply,
    {
      key: rng.normal(0, shape[0] ** -0.5, shape).astype(np.float32)
      for key, shape in shapes.items()
    },
    name=name,
    input_size=_SIZE,
    template="dlib",
  )
