import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fawkes_jax.models import iresnet

torch = pytest.importorskip("torch")
nn = torch.nn


def norm(width, **options):
  """A batch normalisation with random statistics."""
  layer = nn.BatchNorm2d(width, **options)
  nn.init.normal_(layer.running_mean, std=0.2)
  nn.init.uniform_(layer.running_var, 0.5, 2)
  if layer.affine:
    nn.init.uniform_(layer.weight, 0.5, 1.5)
    nn.init.normal_(layer.bias, std=0.2)
  return layer


def flat_norm(width, **options):
  layer = nn.BatchNorm1d(width, **options)
  layer.load_state_dict(norm(width, **options).state_dict())
  return layer


def conv(inputs, outputs, size, stride):
  return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


class InsightBlock(nn.Module):
  def __init__(self, inputs, width, stride):
    super().__init__()
    self.bn1 = norm(inputs)
    self.conv1 = conv(inputs, width, 3, 1)
    self.bn2 = norm(width)
    self.prelu = nn.PReLU(width)
    self.conv2 = conv(width, width, 3, stride)
    self.bn3 = norm(width)
    self.downsample = nn.Identity()
    if stride == 2:
      self.downsample = nn.Sequential(conv(inputs, width, 1, 2), norm(width))

  def forward(self, x):
    y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
    return self.bn3(self.conv2(y)) + self.downsample(x)


class InsightNet(nn.Module):
  def __init__(self, depths):
    super().__init__()
    self.conv1 = conv(3, 64, 3, 1)
    self.bn1 = norm(64)
    self.prelu = nn.PReLU(64)
    inputs = 64
    for stage, (count, width) in enumerate(
      zip(depths, (64, 128, 256, 512), strict=True)
    ):
      blocks = []
      for i in range(count):
        blocks.append(InsightBlock(inputs, width, 1 if i else 2))
        inputs = width
      setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
    self.bn2 = norm(512)
    self.fc = nn.Linear(512 * 7 * 7, 512)
    self.features = flat_norm(512)

  def forward(self, images):
    x = (images - 127.5) / 127.5
    x = self.prelu(self.bn1(self.conv1(x)))
    x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
    return self.features(self.fc(self.bn2(x).flatten(1)))


class AdaBlock(nn.Module):
  def __init__(self, inputs, width, stride):
    super().__init__()
    self.shortcut_layer = nn.MaxPool2d(1, stride)
    if inputs != width:
      self.shortcut_layer = nn.Sequential(
        conv(inputs, width, 1, stride), norm(width)
      )
    self.res_layer = nn.Sequential(
      norm(inputs),
      conv(inputs, width, 3, 1),
      norm(width),
      nn.PReLU(width),
      conv(width, width, 3, stride),
      norm(width),
    )

  def forward(self, x):
    return self.shortcut_layer(x) + self.res_layer(x)


class AdaNet(nn.Module):
  def __init__(self, depths):
    super().__init__()
    self.input_layer = nn.Sequential(conv(3, 64, 3, 1), norm(64), nn.PReLU(64))
    blocks, inputs = [], 64
    for count, width in zip(depths, (64, 128, 256, 512), strict=True):
      for i in range(count):
        blocks.append(AdaBlock(inputs, width, 1 if i else 2))
        inputs = width
    self.body = nn.Sequential(*blocks)
    self.output_layer = nn.Sequential(
      norm(512),
      nn.Dropout(0.4),
      nn.Flatten(),
      nn.Linear(512 * 7 * 7, 512),
      flat_norm(512, affine=False),
    )

  def forward(self, images):
    x = (images.flip(1) / 255 - 0.5) / 0.5
    return self.output_layer(self.body(self.input_layer(x)))


CASES = {
  "insightface_100": (InsightNet, (3, 13, 30, 3), iresnet.convert_insightface),
  "adaface_50": (AdaNet, (3, 4, 14, 3), iresnet.convert_adaface),
}


@pytest.mark.parametrize("name", CASES)
def test_parity_with_torch(name):
  network, depths, convert = CASES[name]
  depth = int(name.split("_")[1])
  torch.manual_seed(0)
  reference = network(depths).eval()
  state = {k: v.numpy() for k, v in reference.state_dict().items()}
  variables = convert(state, depth)
  module = iresnet.IResNet(depth, adaface=name.startswith("adaface"))
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
  with pytest.raises(KeyError, match="bn1"):
    iresnet.convert_insightface({}, 50)
