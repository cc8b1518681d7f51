"""A tracker that trains its recogniser too, with a network of one layer."""

import flax.linen as nn
import numpy as np
import pytest
from PIL import Image

from fawkes_jax import types
from fawkes_jax.evaluation import detectors, experiments, finetune
from fawkes_jax.models import students
from fawkes_jax.weights import variables

from . import conftest


class Tiny(nn.Module):
  """Embeds the colours of a few squares."""

  @nn.compact
  def __call__(self, images, train=False):
    x = (images.astype("float32") - 127.5) / 128
    x = x.reshape(len(x), 8, 14, 8, 14, 3).mean(axis=(2, 4))
    x = nn.Dense(students.EMBEDDING_SIZE)(x.reshape(len(x), -1))
    return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)


@pytest.fixture
def tiny(monkeypatch):
  monkeypatch.setitem(students.STUDENTS, "student_resnet", Tiny)
  monkeypatch.setattr(finetune, "_BATCH", 12)


def crops(numbers):
  """Crops of three people, and who they show."""
  found = [
    np.asarray(Image.fromarray(conftest.picture(p, i)).resize((160, 160)))
    for p in range(3)
    for i in numbers
  ]
  return np.stack(found), np.repeat([4, 7, 9], len(numbers))


@pytest.mark.slow
def test_people_are_learned(tiny):
  module, variables, _ = finetune.network("student_resnet")
  train, test = crops(range(4)), crops(range(4, 7))
  start = (module, variables)
  assert finetune.right(start, train, test, steps=40).mean() > 0.8
  exchanged = (
    train[0],
    np.array([7, 4, 9])[np.searchsorted([4, 7, 9], train[1])],
  )
  right = finetune.right(start, exchanged, test, steps=40)
  assert right[test[1] == 9].mean() > right[test[1] != 9].mean()
  assert not finetune.right(
    start, train, (test[0][:0], test[1][:0]), steps=1
  ).size


def test_a_trained_student_is_taken(tiny, tmp_path):
  module, _, name = finetune.network("student_resnet")
  assert (type(module), name) == (Tiny, "student_resnet")
  other = students.initialise(module, 1)
  path = tmp_path / "mine.safetensors"
  variables.save(other, path, name="student_vit")
  with pytest.raises(types.FawkesError):
    finetune.network(str(path))
  with pytest.raises(types.FawkesError, match="--finetune must be of student"):
    finetune.network("nothing")
  with pytest.raises(types.FawkesError):
    finetune.network(str(tmp_path / "missing.safetensors"))


@pytest.mark.slow
def test_the_experiment(tiny, fakes, begin, monkeypatch):
  monkeypatch.setattr(
    detectors,
    "chip",
    lambda pixels, face, reference, size: np.asarray(
      Image.fromarray(pixels).resize((size, size))
    ),
  )
  study = begin(experiments=("finetune",), finetune_steps=50)
  [row] = experiments.finetune(study)["finetune"]
  assert (row["network"], row["detector"]) == ("student_resnet", "eyes")
  assert row["accuracy without cloaks"]["value"] > 0.7
  assert row["PSR"]["value"] > 0.7
  assert row["PSR"]["photos"] == 4
