"""Cloaks against a recogniser of one's own, written in plain JAX.

pip install fawkes-jax scikit-image
python docs/examples/own_extractor.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import skimage.data

import fawkes_jax

SIZE = 32


def apply(variables, images):
  """Any pure function: float32 [n, 32, 32, 3] in 0..255 to [n, 64]."""
  x = images / 127.5 - 1
  for kernel in variables["kernels"]:
    x = jax.lax.conv_general_dilated(
      x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = jax.nn.leaky_relu(x)
  return x.reshape(len(images), -1) @ variables["head"]


def random_variables(seed=0):
  """Where you would load what you have trained."""
  random = np.random.default_rng(seed)
  shapes = [(3, 3, 3, 8), (3, 3, 8, 16)]
  kernels = [random.normal(size=s) / np.sqrt(np.prod(s[:3])) for s in shapes]
  head = random.normal(size=(16 * (SIZE // 4) ** 2, 64)) / SIZE
  return {
    "kernels": [jnp.asarray(kernel, jnp.float32) for kernel in kernels],
    "head": jnp.asarray(head, jnp.float32),
  }


def main(options=None):
  mine = fawkes_jax.Extractor.from_apply(
    apply,
    random_variables(),
    name="mine",
    input_size=SIZE,
    template="arcface",  # How its faces are aligned.
  )
  # Names, files and extractors can be mixed.
  cloaker = fawkes_jax.Cloaker(options, extractors=["dlib_resnet", mine])
  [result] = cloaker.cloak([skimage.data.astronaut()[:256, 100:356]])
  print(result.faces[0].cosine)
  return result


if __name__ == "__main__":
  main()
