import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fawkes_jax.models import inception_resnet

torch = pytest.importorskip("torch")
nn = torch.nn


class Conv(nn.Module):
  """A convolution, a normalisation with random statistics, and a ReLU."""

  def __init__(self, inputs, outputs, size, stride=1, padding=0):
    super().__init__()
    self.conv = nn.Conv2d(inputs, outputs, size, stride, padding, bias=False)
    nn.init.kaiming_normal_(self.conv.weight)
    self.bn = nn.BatchNorm2d(outputs, eps=0.001)
    nn.init.normal_(self.bn.running_mean, std=0.2)
    nn.init.uniform_(self.bn.running_var, 0.2, 1)
    nn.init.uniform_(self.bn.weight, 0.5, 1.5)
    nn.init.normal_(self.bn.bias, std=0.2)

  def forward(self, x):
    return torch.relu(self.bn(self.conv(x)))


class Residual(nn.Module):
  def __init__(self, width, joined, scale, activated=True):
    super().__init__()
    self.conv2d = nn.Conv2d(joined, width, 1)
    self.scale, self.activated = scale, activated

  def forward(self, x):
    names = ("branch0", "branch1", "branch2")
    parts = [getattr(self, n)(x) for n in names if hasattr(self, n)]
    y = self.conv2d(torch.cat(parts, 1)) * self.scale + x
    return torch.relu(y) if self.activated else y


class Block35(Residual):
  def __init__(self):
    super().__init__(256, 96, 0.17)
    self.branch0 = Conv(256, 32, 1)
    self.branch1 = nn.Sequential(Conv(256, 32, 1), Conv(32, 32, 3, padding=1))
    self.branch2 = nn.Sequential(
      Conv(256, 32, 1), Conv(32, 32, 3, padding=1), Conv(32, 32, 3, padding=1)
    )


class Block17(Residual):
  def __init__(self):
    super().__init__(896, 256, 0.1)
    self.branch0 = Conv(896, 128, 1)
    self.branch1 = nn.Sequential(
      Conv(896, 128, 1),
      Conv(128, 128, (1, 7), padding=(0, 3)),
      Conv(128, 128, (7, 1), padding=(3, 0)),
    )


class Block8(Residual):
  def __init__(self, scale=0.2, activated=True):
    super().__init__(1792, 384, scale, activated)
    self.branch0 = Conv(1792, 192, 1)
    self.branch1 = nn.Sequential(
      Conv(1792, 192, 1),
      Conv(192, 192, (1, 3), padding=(0, 1)),
      Conv(192, 192, (3, 1), padding=(1, 0)),
    )


class Mixed(nn.Module):
  def forward(self, x):
    names = ("branch0", "branch1", "branch2")
    parts = [getattr(self, n)(x) for n in names if hasattr(self, n)]
    return torch.cat([*parts, nn.functional.max_pool2d(x, 3, 2)], 1)


class Mixed6(Mixed):
  def __init__(self):
    super().__init__()
    self.branch0 = Conv(256, 384, 3, 2)
    self.branch1 = nn.Sequential(
      Conv(256, 192, 1), Conv(192, 192, 3, padding=1), Conv(192, 256, 3, 2)
    )


class Mixed7(Mixed):
  def __init__(self):
    super().__init__()
    self.branch0 = nn.Sequential(Conv(896, 256, 1), Conv(256, 384, 3, 2))
    self.branch1 = nn.Sequential(Conv(896, 256, 1), Conv(256, 256, 3, 2))
    self.branch2 = nn.Sequential(
      Conv(896, 256, 1), Conv(256, 256, 3, padding=1), Conv(256, 256, 3, 2)
    )


class FaceNet(nn.Module):
  def __init__(self):
    super().__init__()
    self.conv2d_1a = Conv(3, 32, 3, 2)
    self.conv2d_2a = Conv(32, 32, 3)
    self.conv2d_2b = Conv(32, 64, 3, padding=1)
    self.conv2d_3b = Conv(64, 80, 1)
    self.conv2d_4a = Conv(80, 192, 3)
    self.conv2d_4b = Conv(192, 256, 3, 2)
    self.repeat_1 = nn.Sequential(*(Block35() for _ in range(5)))
    self.mixed_6a = Mixed6()
    self.repeat_2 = nn.Sequential(*(Block17() for _ in range(10)))
    self.mixed_7a = Mixed7()
    self.repeat_3 = nn.Sequential(*(Block8() for _ in range(5)))
    self.block8 = Block8(1.0, activated=False)
    self.last_linear = nn.Linear(1792, 512, bias=False)
    self.last_bn = nn.BatchNorm1d(512, eps=0.001)
    nn.init.uniform_(self.last_bn.running_var, 0.5, 2)

  def forward(self, images):
    x = (images - 127.5) / 128
    x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
    x = nn.functional.max_pool2d(x, 3, 2)
    x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(x)))
    x = self.repeat_2(self.mixed_6a(self.repeat_1(x)))
    x = self.block8(self.repeat_3(self.mixed_7a(x)))
    return self.last_bn(self.last_linear(x.mean((2, 3))))


def test_parity_with_torch():
  torch.manual_seed(0)
  reference = FaceNet().eval()
  variables = inception_resnet.convert_facenet(
    {k: v.numpy() for k, v in reference.state_dict().items()}
  )
  module = inception_resnet.InceptionResNet()
  shapes = jax.eval_shape(
    module.init, jax.random.key(0), jnp.zeros((1, 160, 160, 3))
  )
  assert jax.tree.map(jnp.shape, variables) == jax.tree.map(
    jnp.shape, dict(shapes)
  )
  images = np.random.default_rng(0).uniform(0, 255, (2, 160, 160, 3))
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
  with pytest.raises(KeyError, match="conv2d_1a"):
    inception_resnet.convert_facenet({})
