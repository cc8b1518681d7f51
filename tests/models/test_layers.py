import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fawkes_jax.models import layers


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("shape", "options"),
  [
    ((3, 3, 4, 6), {"padding": ((1, 1), (0, 2))}),
    ((9, 8, 4, 6), {}),
    ((3, 3, 4, 6), {"strides": (7, 6)}),
    ((11, 12, 4, 6), {"padding": ((1, 1), (2, 2))}),
    ((2, 1, 4, 6), {"padding": ((3, 0), (0, 0)), "strides": (11, 8)}),
    ((1, 1, 4, 6), {}),
    ((1, 1, 4, 6), {"strides": (2, 1)}),
    ((1, 1, 4, 6), {"padding": ((1, 0), (0, 0))}),
    ((3, 3, 1, 4), {"groups": 4, "padding": ((1, 1), (1, 1))}),
    ((3, 3, 1, 4), {"groups": 4, "strides": (2, 3)}),
    ((3, 2, 1, 8), {"groups": 4, "strides": (2, 1), "padding": ((2, 0),) * 2}),
    ((3, 3, 1, 4), {"groups": 4, "dilations": (2, 1), "strides": (2, 2)}),
    ((1, 1, 1, 4), {"groups": 4, "padding": ((2, 2), (0, 0))}),
    ((9, 8, 1, 4), {"groups": 4}),
    ((3, 3, 2, 6), {"groups": 2, "strides": (2, 2), "padding": ((1, 1),) * 2}),
  ],
)
def test_convolution_and_its_gradients(shape, options):
  """Against XLA's own grouped convolution."""
  x = jnp.asarray(normal(2, 9, 8, 4))
  kernel = jnp.asarray(normal(*shape, seed=1))

  def expected(x, kernel):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      window_strides=options.get("strides", (1, 1)),
      padding=options.get("padding", ((0, 0), (0, 0))),
      rhs_dilation=options.get("dilations", (1, 1)),
      feature_group_count=options.get("groups", 1),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )

  def results(function):
    y, pull = jax.vjp(function, x, kernel)
    return y, *pull(jnp.cos(jnp.arange(y.size)).reshape(y.shape))

  actual = results(lambda x, k: layers.convolve(x, k, **options))
  for got, wanted in zip(actual, results(expected), strict=True):
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_no_gradient_that_nobody_asks_for():
  """A solver traces a depthwise convolution's gradient for the image alone."""
  x, kernel = jnp.asarray(normal(2, 9, 8, 4)), jnp.asarray(normal(3, 3, 1, 4))

  def total(x, kernel):
    y = layers.convolve(x, kernel, groups=4, strides=(2, 1))
    return (y * y).sum()

  def both(x, kernel):
    return jax.grad(total, (0, 1))(x, kernel)[0]

  one = jax.grad(total)
  np.testing.assert_array_equal(one(x, kernel), both(x, kernel))
  np.testing.assert_allclose(
    jax.jit(jax.vmap(one, (0, None)))(x[:, None], kernel)[:, 0],
    both(x, kernel),
    rtol=1e-5,
    atol=1e-5,
  )
  short, long = (str(jax.make_jaxpr(f)(x, kernel)) for f in (one, both))
  assert len(short) < 0.7 * len(long)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("window", "strides", "dilations"),
  [
    ((3, 3), (2, 2), (1, 1)),
    ((2, 3), (2, 3), (1, 1)),
    ((2, 2), (1, 4), (1, 1)),
    ((3, 2), (2, 1), (2, 3)),
  ],
)
def test_max_pool_and_its_gradient(window, strides, dilations):
  x = jnp.asarray(normal(2, 9, 12, 4))

  def ours(x):
    return layers.max_pool(x, window, strides, dilations)

  def xla(x):
    return jax.lax.reduce_window(
      x,
      -jnp.inf,
      jax.lax.max,
      (1, *window, 1),
      (1, *strides, 1),
      "VALID",
      window_dilation=(1, *dilations, 1),
    )

  def slope(pool):
    return jax.grad(lambda x: (pool(x) ** 2).sum())(x)

  np.testing.assert_array_equal(ours(x), xla(x))
  if dilations == (1, 1):  # XLA has no gradient of others.
    wanted = slope(xla)
  else:
    wanted = slope(
      lambda x: jnp.max(
        jnp.stack(
          [x[:, i : i + 5 : 2, j : j + 9] for i in (0, 2, 4) for j in (0, 3)]
        ),
        0,
      )
    )
  np.testing.assert_allclose(slope(ours), wanted, rtol=1e-6)


@pytest.mark.slow
def test_max_pool_gives_the_gradient_of_equal_maxima_once():
  x = jnp.ones((1, 5, 5, 1))
  slope = jax.grad(lambda x: layers.max_pool(x, (3, 3), (2, 2)).sum())(x)
  assert slope.sum() == 4
