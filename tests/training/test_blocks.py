import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fawkes_jax.models import layers
from fawkes_jax.training import blocks


class Network(nn.Module):
  """A stem, two blocks, of which one has a shortcut, and an embedding."""

  @nn.compact
  def __call__(self, images):
    x = layers.Convolution(8, size=3, stride=2, name="stem")(images)
    x = layers.InvertedResidual(12, 8, 2, name="block_0")(nn.relu(x))
    x = layers.InvertedResidual(12, 8, 1, name="block_1")(x)
    x = x.reshape(len(images), -1)
    return nn.Dense(5, use_bias=False, name="embedding")(x)


MODULE = Network()
BLOCKS = blocks.Blocks(MODULE)
IMAGES = jax.random.normal(jax.random.key(0), (8, 32, 32, 3))


def _variables(seed):
  drawn = MODULE.init(jax.random.key(seed), IMAGES)
  # Not the zeros that biases begin with, and of no common scale.
  flat = flax.traverse_util.flatten_dict(dict(drawn["params"]))
  rng = np.random.default_rng(seed)
  moved = {
    name: 3 * x + jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32)
    for name, x in flat.items()
  }
  return {"params": flax.traverse_util.unflatten_dict(moved)}


TEACHER = _variables(1)


@pytest.fixture(scope="module")
def shown():
  return BLOCKS.look(TEACHER, IMAGES)


def _changed(name):
  """The teacher's weights but for one module's."""
  other = _variables(2)["params"][name]
  return {"params": {**TEACHER["params"], name: other}}


def test_looking_keeps_what_goes_into_blocks_and_comes_out(shown):
  embeddings, features = shown
  plain = MODULE.apply(TEACHER, IMAGES)
  np.testing.assert_allclose(embeddings, plain, rtol=1e-5)
  assert {k: (x.shape, y.shape) for k, (x, y) in features.items()} == {
    "block_0": ((8, 16, 16, 8), (8, 8, 8, 8)),
    "block_1": ((8, 8, 8, 8), (8, 8, 8, 8)),
  }
  np.testing.assert_array_equal(features["block_1"][0], features["block_0"][1])


def errors(changed, shown, share=None):
  """By block, apart or together, and of the embedding."""
  wanted, features = shown
  if share is None:
    made, found = BLOCKS.apart(changed, IMAGES, features)
  else:
    made, found = BLOCKS.together(changed, IMAGES, features, jnp.float32(share))
  return {**found, "embedding": blocks.error(made, wanted)}


@pytest.mark.slow
@pytest.mark.parametrize("share", [None, 1])
def test_the_teacher_itself_has_no_error(share, shown):
  found = errors(TEACHER, shown, share)
  assert set(found) == {"block_0", "block_1", "embedding"}
  assert max(map(float, found.values())) < 1e-9


@pytest.mark.parametrize(
  ("changed", "alone", "joined"),
  [
    ("stem", {"block_0"}, {"block_0", "block_1", "embedding"}),
    ("block_0", {"block_0"}, {"block_0", "block_1", "embedding"}),
    ("block_1", {"block_1"}, {"block_1", "embedding"}),
    ("embedding", {"embedding"}, {"embedding"}),
  ],
)
def test_apart_an_error_stays_in_its_block(changed, alone, joined, shown):
  for share, wanted in ((None, alone), (1, joined)):
    found = errors(_changed(changed), shown, share)
    assert {name for name, e in found.items() if e > 1e-3} == wanted


def test_together_a_share_of_the_errors_is_handed_on(shown):
  found = {
    share: errors(_changed("block_0"), shown, share) for share in (0, 0.01, 1)
  }
  assert found[0]["block_0"] == found[1]["block_0"] > 0.1
  for name in ("block_1", "embedding"):
    none, little, whole = (float(found[share][name]) for share in found)
    assert none < 1e-9 < little < whole / 100


class Layers(nn.Module):
  """Two blocks of one layer."""

  @nn.compact
  def __call__(self, images):
    x = layers.Convolution(6, size=3, name="block_0")(images)
    x = nn.relu(x)
    return layers.Convolution(4, name="block_1")(x).mean(axis=(1, 2))


def test_only_channels_that_are_not_learned_are_drawn_anew():
  some = blocks.Blocks(Layers())
  images = IMAGES[:, :16, :16]
  teacher, _ = some.fresh(
    Layers().init(jax.random.key(3), images), images, jax.random.key(4)
  )
  other = Layers().init(jax.random.key(5), images)["params"]
  near = jax.tree.map(lambda x: 1.01 * x, teacher["params"])
  near["block_0"] = {
    name: x.at[..., 2].set(other["block_0"][name][..., 2])
    for name, x in near["block_0"].items()
  }
  got, count = some.redrawn(
    {"params": near}, teacher, images, jax.random.key(6)
  )
  assert count == 1
  jax.tree.map(
    np.testing.assert_array_equal, got["params"]["block_1"], near["block_1"]
  )
  for name, x in got["params"]["block_0"].items():
    changed = np.any(
      np.asarray(x != near["block_0"][name]).reshape(-1, 6), axis=0
    )
    assert list(np.flatnonzero(changed)) == [2], name


def test_the_error_counts_variances():
  rng = np.random.default_rng(0)
  wanted = jnp.asarray(rng.normal(2, 3, (6, 4, 4, 5)), jnp.float32)
  mean = jnp.broadcast_to(wanted.mean(axis=(0, 1, 2)), wanted.shape)
  assert blocks.error(wanted, wanted) == 0
  assert blocks.error(mean, wanted) == pytest.approx(1, abs=1e-5)
  # Around a shortcut, only what the block adds has to be explained.
  given = wanted + 0.1 * jnp.asarray(rng.normal(size=wanted.shape))
  assert blocks.error(given, wanted, given) == pytest.approx(1, abs=0.05)
  # Features of another shape have no shortcut.
  assert blocks.error(mean, wanted, given[:, :2]) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_fresh_weights_are_random_and_keep_the_teachers_ranges(shown):
  key = jax.random.key(3)
  weights, sizes = BLOCKS.fresh(TEACHER, IMAGES, key)
  again, _ = BLOCKS.fresh(TEACHER, IMAGES, key)
  other, _ = BLOCKS.fresh(TEACHER, IMAGES, jax.random.key(4))
  flat, same, differs, teacher = (
    flax.traverse_util.flatten_dict(tree["params"], sep="/")
    for tree in (weights, again, other, TEACHER)
  )
  assert flat.keys() == teacher.keys()
  for name, array in flat.items():
    np.testing.assert_array_equal(array, same[name])
    if name.endswith("kernel"):
      against = [differs[name].ravel(), teacher[name].ravel()]
      for values in against:  # Independent draws.
        assert abs(np.corrcoef(array.ravel(), values)[0, 1]) < 0.5
  assert jax.tree.structure(sizes) == jax.tree.structure(weights["params"])
  assert all(size.shape == () and size > 0 for size in jax.tree.leaves(sizes))
  # A block that is given the teacher's input answers in the teacher's range.
  _, features = shown
  given, wanted = features["block_1"]
  block = layers.InvertedResidual(12, 8, 1)
  made = block.apply({"params": weights["params"]["block_1"]}, given) - given
  added = wanted - given
  assert made.mean() == pytest.approx(float(added.mean()), abs=1e-2)
  assert made.std() == pytest.approx(float(added.std()), rel=1e-2)
