"""Images that are changed a little so that a student errs the most."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, PRNGKeyArray


def worsened(
  images: Float32[Array, "n size size 3"],
  loss: Callable[[Float32[Array, "n size size 3"]], Float32[Array, ""]],
  *,
  bound: Float32[Array, ""],
  steps: int,
  key: PRNGKeyArray,
) -> Float32[Array, "n size size 3"]:
  """Images changed within a bound so that a loss is large.

  Projected gradient ascent from a random start ("Towards Deep Learning Models
  Resistant to Adversarial Attacks", Madry et al., 2017).

  Args:
    images: RGB in 0..255.
    loss: of images.
    bound: the L-infinity bound of the change.
    steps: of gradient ascent.
    key: the key of the start.

  Returns:
    The changed images, in 0..255.
  """
  size = 1.25 * bound if steps == 1 else 2 * bound / steps
  gradient = jax.grad(lambda change: loss(jnp.clip(images + change, 0, 255)))
  change = bound * jax.random.uniform(key, images.shape, minval=-1)
  for _ in range(steps):
    change = change + size * jnp.sign(gradient(change))
    change = jnp.clip(change, -bound, bound)
  return jnp.clip(images + change, 0, 255)
