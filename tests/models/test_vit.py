import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fawkes_jax.models import vit

torch = pytest.importorskip("torch")
nn = torch.nn


class Attention(nn.Module):
  def __init__(self, width):
    super().__init__()
    self.qkv = nn.Linear(width, 3 * width, bias=False)
    self.proj = nn.Linear(width, width)

  def forward(self, x):
    n, tokens, width = x.shape
    query, key, value = (
      part.reshape(n, tokens, 8, width // 8).transpose(1, 2)
      for part in self.qkv(x).chunk(3, -1)
    )
    y = nn.functional.scaled_dot_product_attention(query, key, value)
    return self.proj(y.transpose(1, 2).reshape(n, tokens, width))


class Perceptron(nn.Module):
  def __init__(self, width):
    super().__init__()
    self.fc1 = nn.Linear(width, 4 * width)
    self.fc2 = nn.Linear(4 * width, width)

  def forward(self, x):
    return self.fc2(nn.functional.relu6(self.fc1(x)))


class Block(nn.Module):
  def __init__(self, width):
    super().__init__()
    self.norm1 = nn.LayerNorm(width)
    self.attn = Attention(width)
    self.norm2 = nn.LayerNorm(width)
    self.mlp = Perceptron(width)

  def forward(self, x):
    x = x + self.attn(self.norm1(x))
    return x + self.mlp(self.norm2(x))


class Patches(nn.Module):
  def __init__(self, width):
    super().__init__()
    self.proj = nn.Conv2d(3, width, 9, 9)


class Transformer(nn.Module):
  def __init__(self, width, depth):
    super().__init__()
    self.patch_embed = Patches(width)
    self.pos_embed = nn.Parameter(torch.randn(1, 144, width))
    self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
    self.norm = nn.LayerNorm(width)
    self.feature = nn.Sequential(
      nn.Linear(144 * width, width, bias=False),
      nn.BatchNorm1d(width, eps=2e-5),
      nn.Linear(width, 512, bias=False),
      nn.BatchNorm1d(512, eps=2e-5),
    )
    for layer in self.modules():
      if isinstance(layer, nn.LayerNorm | nn.BatchNorm1d):
        nn.init.uniform_(layer.weight, 0.5, 1.5)
        nn.init.normal_(layer.bias, std=0.2)
      if isinstance(layer, nn.BatchNorm1d):
        nn.init.normal_(layer.running_mean, std=0.2)
        nn.init.uniform_(layer.running_var, 0.2, 2)

  def forward(self, images):
    x = self.patch_embed.proj((images - 127.5) / 127.5)
    x = x.flatten(2).transpose(1, 2) + self.pos_embed
    return self.feature(self.norm(self.blocks(x)).flatten(1))


@pytest.mark.parametrize(
  ("size", "width", "depth"), [("tiny", 256, 12), ("base", 512, 24)]
)
def test_parity_with_torch(size, width, depth):
  torch.manual_seed(0)
  reference = Transformer(width, depth).eval()
  variables = vit.convert_insightface(
    {k: v.numpy() for k, v in reference.state_dict().items()}, size
  )
  module = vit.VisionTransformer(size)
  shapes = jax.eval_shape(
    module.init, jax.random.key(0), jnp.zeros((1, 112, 112, 3))
  )
  assert jax.tree.map(jnp.shape, variables) == jax.tree.map(
    jnp.shape, dict(shapes)
  )
  images = np.random.default_rng(0).uniform(0, 255, (2, 112, 112, 3))
  images = images.astype(np.float32)
  with torch.no_grad():
    expected = reference(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
  actual = module.apply(variables, images)
  assert actual.shape == (2, 512)
  error = np.linalg.norm(actual - expected, axis=1)
  assert (error <= 1e-4 * np.linalg.norm(expected, axis=1)).all()
  # The two images are told apart: the comparison is not one of constants.
  assert np.linalg.norm(expected[0] - expected[1]) > 0.01 * np.linalg.norm(
    expected[0]
  )


def test_missing_tensor_is_named():
  with pytest.raises(KeyError, match=r"patch_embed\.proj\.weight"):
    vit.convert_insightface({}, "small")
