"""Cloaks aligned faces with a loss and a budget of one's own.

pip install fawkes-jax scikit-image
python docs/examples/own_loss.py
"""

import jax.numpy as jnp
import numpy as np
import skimage.data
from PIL import Image

import fawkes_jax


def loss(embedding, own, target, key):
  """Only away from the person, to wherever that is."""
  del target, key
  return 1 + jnp.dot(embedding, own)


def budget(original, changed, weights):
  """The mean square of the change over the face, in units of 0..1."""
  square = jnp.square((changed - original) / 255).mean(axis=-1)
  return jnp.sum(weights * square)


def main(options=None):
  options = options or fawkes_jax.CloakerOptions(
    # Here rho is what `budget` may be: about 6 grey levels on average.
    solver=fawkes_jax.SolverOptions(rho=0.0006),
  )
  cloaker = fawkes_jax.Cloaker(
    options, extractors=["dlib_resnet"], loss=loss, budget=budget
  )
  # A square around the face, such as a data set of aligned faces has.
  face = Image.fromarray(skimage.data.astronaut()[20:220, 110:310])
  crop = np.asarray(face.resize((options.crop_size, options.crop_size)))

  [result] = cloaker.cloak_crops([crop])
  [face] = result.faces
  print(f"budget {face.cost:.5f} of {options.solver.rho}, {face.cosine}")
  return result


if __name__ == "__main__":
  main()
