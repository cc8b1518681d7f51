import io

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console
from PIL import Image

from fawkes_jax.models import architectures, layers, students
from fawkes_jax.options import TrainOptions
from fawkes_jax.training import data
from fawkes_jax.weights import extractors

CROP = 64


class _Tiny(nn.Module):
  """A student that compiles in no time."""

  dtype: object = jnp.float32

  @nn.compact
  def __call__(self, images, train=False):
    x = images.astype(self.dtype).reshape(len(images), 14, 8, 14, 8, 3)
    x = x.mean(axis=(2, 4)).reshape(len(images), -1) / 128 - 1
    x = nn.Dense(32)(x)
    x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
    return nn.Dense(students.EMBEDDING_SIZE)(nn.relu(x))


class Blocks(nn.Module):
  """A network of blocks that compiles in no time."""

  dtype: object = jnp.float32

  @nn.compact
  def __call__(self, images):
    x = images.astype(self.dtype).reshape(len(images), 14, 8, 14, 8, 3)
    x = x.mean(axis=(2, 4)) / 128 - 1
    x = layers.Convolution(6, size=3, stride=2, name="stem")(x)
    x = layers.InvertedResidual(9, 6, 1, name="block_0")(nn.relu(x))
    x = layers.InvertedResidual(9, 6, 1, name="block_1")(x)
    return nn.Dense(8, name="embedding")(x.reshape(len(images), -1))


@pytest.fixture
def console() -> rich.console.Console:
  return rich.console.Console(file=io.StringIO(), soft_wrap=True)


@pytest.fixture
def teacher(monkeypatch, tmp_path) -> str:
  """An extractor of blocks with weights of its own."""
  about = architectures.Architecture(
    module=Blocks, input_size=112, template=students.TEMPLATE
  )
  monkeypatch.setitem(architectures.ARCHITECTURES, "blocks", about)
  drawn = Blocks().init(jax.random.key(5), jnp.zeros((1, 112, 112, 3)))
  extractor = architectures.build(
    "blocks", jax.tree.map(lambda x: 2 * x + 0.05, dict(drawn)), name="teacher"
  )
  monkeypatch.setenv("FAWKES_JAX_CACHE", str(tmp_path / "cache"))
  monkeypatch.setattr(extractors, "load_extractor", lambda _: extractor)
  return extractor.name


@pytest.fixture
def tiny(monkeypatch) -> None:
  """Adds the architecture "tiny"."""
  monkeypatch.setitem(students.STUDENTS, "tiny", _Tiny)


@pytest.fixture
def people(small_astronaut) -> data.Faces:
  """Six "people": differently coloured and shaped astronauts, 8 crops each."""
  rng = np.random.default_rng(0)
  face = Image.fromarray(small_astronaut[20:180, 50:210])
  crops, identities = [], []
  for person in range(6):
    mix = rng.uniform(0, 0.7, (3, 3))
    height = 100 + 12 * person
    shape = face.resize((160, height)).resize((CROP, CROP))
    for _ in range(8):
      pixels = np.asarray(shape) @ mix + rng.normal(0, 6, (CROP, CROP, 3))
      crops.append(np.clip(pixels, 0, 255).astype(np.uint8))
      identities.append(person)
  return data.Faces(
    crops=np.stack(crops),
    identities=np.array(identities),
    names=tuple("abcdef"),
    photos=tuple(f"{i % 8}.jpg" for i in range(48)),
    missing=(),
    digest="test",
  )


@pytest.fixture
def embeddings(people, tmp_path) -> str:
  """A file of embeddings: random projections of the crops."""
  rng = np.random.default_rng(1)
  flat = people.crops[:, ::8, ::8].reshape(48, -1) / 255 - 0.5
  array = np.tile(flat @ rng.normal(size=(flat.shape[1], 6)), (2, 1))
  path = tmp_path / "projection.npz"
  np.savez(path, embeddings=array.astype(np.float32))
  return str(path)


@pytest.fixture
def options(embeddings, people, tmp_path, monkeypatch, tiny):
  """Makes options of a short run on `people`."""
  monkeypatch.setattr(data, "load_faces", lambda *_, **__: people)

  def make(**changes) -> TrainOptions:
    values = {
      "data": "astronauts",
      "output": tmp_path / "out",
      "student": "tiny",
      "teachers": (embeddings,),
      "steps": 12,
      "batch_size": 8,
      "learning_rate": 0.01,
      "validation": 0.34,
      "ema": 0.5,
      "threads": 2,
    }
    return TrainOptions(**{**values, **changes})

  return make
