"""Networks whose tensors have PyTorch's names, with few and narrow layers.

That the conversions are right is tested with the networks themselves, in
tests/models.
"""

import numpy as np
import pytest
import safetensors.numpy

from fawkes_jax import types
from fawkes_jax.models import inception_resnet, iresnet, vit
from fawkes_jax.weights import extractors
from fawkes_jax.weights.formats import torch_names

WIDTHS = (4, 4, 8, 8)


@pytest.fixture(autouse=True)
def small(monkeypatch):
  monkeypatch.setattr(iresnet, "WIDTHS", WIDTHS)
  monkeypatch.setattr(iresnet, "DEPTHS", {50: (1, 1, 2, 1), 100: (1, 2, 2, 1)})
  monkeypatch.setattr(vit, "SIZES", {"tiny": (16, 2), "small": (24, 2)})


class Tensors(dict):
  """Random tensors by PyTorch's names of the layers."""

  def __init__(self):
    super().__init__()
    self.random = np.random.default_rng(0)

  def add(self, name, *shape):
    # Positive, as variances must be.
    values = self.random.uniform(0.5, 1.5, shape)
    self[name] = values.astype(np.float32)

  def norm(self, name, width):
    for part in ("weight", "bias", "running_mean", "running_var"):
      self.add(f"{name}.{part}", width)
    self[f"{name}.num_batches_tracked"] = np.array(7)

  def conv(self, name, outputs, inputs, rows=3, columns=None):
    scale = 1 / (inputs * rows * rows)
    shape = (outputs, inputs, rows, columns or rows)
    values = self.random.normal(0, 1, shape) * scale
    self[f"{name}.weight"] = values.astype(np.float32)


def block(tensors, names, inputs, width, *, shortcut):
  tensors.norm(names["norm"], inputs)
  tensors.conv(names["conv_0"], width, inputs)
  tensors.norm(names["norm_0"], width)
  tensors.add(f"{names['prelu']}.weight", width)
  tensors.conv(names["conv_1"], width, width)
  tensors.norm(names["norm_1"], width)
  if shortcut:
    tensors.conv(f"{names['shortcut']}.0", width, inputs, 1)
    tensors.norm(f"{names['shortcut']}.1", width)


def insightface(depth):
  tensors = Tensors()
  tensors.conv("conv1", WIDTHS[0], 3)
  tensors.norm("bn1", WIDTHS[0])
  tensors.add("prelu.weight", WIDTHS[0])
  inputs = WIDTHS[0]
  for stage, count in enumerate(iresnet.DEPTHS[depth]):
    for i in range(count):
      layer = f"layer{stage + 1}.{i}"
      names = {
        "norm": f"{layer}.bn1",
        "conv_0": f"{layer}.conv1",
        "norm_0": f"{layer}.bn2",
        "prelu": f"{layer}.prelu",
        "conv_1": f"{layer}.conv2",
        "norm_1": f"{layer}.bn3",
        "shortcut": f"{layer}.downsample",
      }
      block(tensors, names, inputs, WIDTHS[stage], shortcut=i == 0)
      inputs = WIDTHS[stage]
  tensors.norm("bn2", inputs)
  tensors.add("fc.weight", 512, inputs * 49)
  tensors.add("fc.bias", 512)
  tensors.norm("features", 512)
  return dict(tensors)


def adaface(depth, prefix=""):
  tensors = Tensors()
  tensors.conv("input_layer.0", WIDTHS[0], 3)
  tensors.norm("input_layer.1", WIDTHS[0])
  tensors.add("input_layer.2.weight", WIDTHS[0])
  inputs, index = WIDTHS[0], 0
  for stage, count in enumerate(iresnet.DEPTHS[depth]):
    for _ in range(count):
      layers = f"body.{index}.res_layer"
      names = {
        "norm": f"{layers}.0",
        "conv_0": f"{layers}.1",
        "norm_0": f"{layers}.2",
        "prelu": f"{layers}.3",
        "conv_1": f"{layers}.4",
        "norm_1": f"{layers}.5",
        "shortcut": f"body.{index}.shortcut_layer",
      }
      width = WIDTHS[stage]
      block(tensors, names, inputs, width, shortcut=inputs != width)
      inputs, index = width, index + 1
  tensors.norm("output_layer.0", inputs)
  tensors.add("output_layer.3.weight", 512, inputs * 49)
  tensors.add("output_layer.3.bias", 512)
  tensors.norm("output_layer.4", 512)
  return {prefix + name: array for name, array in tensors.items()}


def transformer(size):
  width, depth = vit.SIZES[size]
  tensors = Tensors()
  tensors.conv("patch_embed.proj", width, 3, vit.PATCH)
  tensors.add("patch_embed.proj.bias", width)
  tensors.add("pos_embed", 1, 144, width)
  for i in range(depth):
    layer = f"blocks.{i}"
    for name, outputs, inputs in (
      ("attn.qkv", 3 * width, width),
      ("attn.proj", width, width),
      ("mlp.fc1", 4 * width, width),
      ("mlp.fc2", width, 4 * width),
    ):
      tensors.add(f"{layer}.{name}.weight", outputs, inputs)
      if name != "attn.qkv":
        tensors.add(f"{layer}.{name}.bias", outputs)
    for name in ("norm1", "norm2"):
      tensors.add(f"{layer}.{name}.weight", width)
      tensors.add(f"{layer}.{name}.bias", width)
  tensors.add("norm.weight", width)
  tensors.add("norm.bias", width)
  tensors.add("feature.0.weight", width, 144 * width)
  tensors.norm("feature.1", width)
  tensors.add("feature.2.weight", 512, width)
  tensors.norm("feature.3", 512)
  return dict(tensors)


def facenet():
  """As the file has it: with the layer that training ended in."""
  tensors = Tensors()
  widths = {"repeat_1": 256, "repeat_2": 896, "repeat_3": 1792, "block8": 1792}

  def chain(prefix, layers, inputs):
    for name, width, size, *_ in layers:
      tensors.conv(f"{prefix}{name}.conv", width, inputs, *size)
      tensors.norm(f"{prefix}{name}.bn", width)
      inputs = width
    return inputs

  inputs = chain("", inception_resnet._STEM + inception_resnet._STEM_2, 3)
  for name, branches, factor in inception_resnet._BLOCKS:
    inputs = widths.get(name.split(".")[0], inputs)
    joined = sum(chain(f"{name}.", layers, inputs) for layers in branches)
    if factor:
      tensors.conv(f"{name}.conv2d", inputs, joined, 1)
      tensors.add(f"{name}.conv2d.bias", inputs)
    else:
      inputs += joined
  tensors.conv("last_linear", 512, 1792, 1)
  tensors["last_linear.weight"] = tensors["last_linear.weight"][..., 0, 0]
  tensors.norm("last_bn", 512)
  tensors.add("logits.weight", 10, 512)
  return dict(tensors)


STATES = {
  "iresnet50": lambda: insightface(50),
  "iresnet100": lambda: insightface(100),
  "adaface_ir50": lambda: adaface(50),
  "adaface_ir101": lambda: adaface(100, "model.net."),
  "vit_small": lambda: transformer("small"),
}


@pytest.mark.parametrize("name", STATES)
def test_the_architecture_is_seen_from_the_names(tmp_path, name):
  path = tmp_path / "mine.safetensors"
  safetensors.numpy.save_file(STATES[name](), path, {"format": "pt"})
  found, _ = torch_names.convert("mine", safetensors.numpy.load_file(path))
  assert found == name
  loaded = extractors.load_extractor(str(path))
  assert (loaded.name, loaded.input_size) == ("mine", 112)
  images = np.random.default_rng(0).uniform(0, 255, (2, 112, 112, 3))
  one, other = loaded.embed(images)
  assert one.shape == (512,)
  assert np.isfinite([one, other]).all()
  assert not np.array_equal(one, other)


def test_facenet():
  name, variables = torch_names.convert("mine", facenet())
  assert name == "inception_resnet_v1"
  assert variables["params"]["embedding"]["kernel"].dtype == np.float32


def test_half_precision_becomes_single():
  half = {k: v.astype(np.float16) for k, v in insightface(50).items()}
  _, variables = torch_names.convert("mine", half)
  assert variables["params"]["prelu"]["slope"].dtype == np.float32


def test_colours_of_cvlface():
  """Red and blue of its AdaFace are the other way round."""
  _, own = torch_names.convert("mine", adaface(50))
  _, other = torch_names.convert("mine", adaface(50, "model.net."))
  kernels = [v["params"]["stem"]["kernel"] for v in (own, other)]
  np.testing.assert_array_equal(kernels[0], kernels[1][:, :, ::-1])
  assert not np.array_equal(*kernels)


@pytest.mark.parametrize("name", STATES)
def test_a_missing_tensor_is_named(name):
  state = STATES[name]()
  key = next(
    key for key in state if "running_var" in key or "blocks.1.norm2" in key
  )
  del state[key]
  with pytest.raises(types.FawkesError) as error:
    torch_names.convert("mine.safetensors", state)
  assert str(error.value) == (
    f"mine.safetensors: a network {name} must have the tensor {key}, which is"
    " missing"
  )


@pytest.mark.parametrize(
  ("change", "rule"),
  [
    (lambda v: v[:-1], "the iresnet50 weight params/prelu/slope must be [4]"),
    (lambda v: v * np.nan, "slope must be finite numbers"),
  ],
)
def test_a_wrong_tensor_is_named(change, rule):
  state = insightface(50)
  state["prelu.weight"] = change(state["prelu.weight"])
  with pytest.raises(types.FawkesError) as error:
    torch_names.convert("mine.safetensors", state)
  assert str(error.value).startswith("mine.safetensors: ")
  assert rule in str(error.value)


def test_wrong_dimensions():
  state = insightface(50)
  state["conv1.weight"] = state["conv1.weight"].reshape(-1)
  with pytest.raises(types.FawkesError, match=r"iresnet50 must have its shape"):
    torch_names.convert("mine.safetensors", state)


@pytest.mark.parametrize(
  ("state", "rule"),
  [
    ({}, "got no tensor"),
    ({"layer1.0.conv1.weight": np.ones(3)}, r"got layer1\.0\.conv1\.weight"),
    ({"layer1.0.prelu.weight": np.ones(3)}, "blocks must be one of 5, 6, got"),
    ({"patch_embed.proj.weight": np.ones((8, 3, 9, 9))}, r"got \(8, 0\)"),
  ],
)
def test_other_networks(state, rule):
  with pytest.raises(types.FawkesError, match=rule):
    torch_names.convert("mine.safetensors", state)
