"""A tracker that trains its recogniser too, from end to end.

One of the package's own small networks, with a softmax over the people on top,
learns from random views of the faces to train on.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Int, UInt8

from fawkes_jax import types
from fawkes_jax.evaluation import detectors, kept, people
from fawkes_jax.evaluation.detections import Detections
from fawkes_jax.imaging import geometry
from fawkes_jax.models import students
from fawkes_jax.training import views
from fawkes_jax.weights import catalogue, variables
from fawkes_jax.xla import compiler

Crops = UInt8[np.ndarray, "n size size 3"]

_CROP_SIZE = 160
_BATCH = 32
_LEARNING_RATE = 1e-3
_WEIGHT_DECAY = 0.05


def network(name: str, seed: int = 0) -> tuple[nn.Module, dict[str, Any], str]:
  """A network to begin with.

  Args:
    name: an architecture of `students.STUDENTS`, which begins at random, or
      the .safetensors file of a trained student.
    seed: the seed of what is random.

  Returns:
    The module, its variables, and what tells it from others.

  Raises:
    FawkesError: the name is unknown, or the file is not a student's.
  """
  if name in students.STUDENTS:
    module = students.STUDENTS[name]()
    return module, students.initialise(module, seed), name
  path = catalogue.file_of(name)
  if path is None or path.suffix != ".safetensors":
    raise types.FawkesError(
      f"--finetune must be of {', '.join(students.STUDENTS)}, or the"
      f" .safetensors file of a trained student, got {name}"
    )
  architecture, trained = variables.load(path)
  if architecture not in students.STUDENTS:
    raise types.FawkesError(
      f"--finetune must be a student, got {path} of {architecture}"
    )
  return students.STUDENTS[architecture](), trained, catalogue.file_digest(path)


def crops(
  detections: Detections,
  detector: detectors.Detector,
  photos: list[people.Photo],
) -> tuple[Crops, Int[np.ndarray, " n"]]:
  """The faces that a detector finds, aligned, and who they are."""
  reference = detector.reference(geometry.CROP, _CROP_SIZE)
  found, shown = [], []
  for photo in photos:
    face = detections.shown(detector, photo)
    chip = face and detectors.chip(*face, reference, _CROP_SIZE)
    if chip is not None:
      found.append(chip)
      shown.append(photo.person)
  size = _CROP_SIZE
  return np.array(found, np.uint8).reshape(-1, size, size, 3), np.array(shown)


def right(
  start: tuple[nn.Module, dict[str, Any]],
  train: tuple[Crops, Int[np.ndarray, " n"]],
  test: tuple[Crops, Int[np.ndarray, " m"]],
  *,
  steps: int,
  seed: int = 0,
) -> Bool[np.ndarray, " m"]:
  """Trains a network and its head, and asks it.

  Args:
    start: the module and its variables.
    train: crops, the square `geometry.CROP`, and the labels of the people.
    test: crops to recognise, and who they show.
    steps: of AdamW, with a learning rate that falls along a cosine.
    seed: the seed of the head and the views.

  Returns:
    Whether each of the crops is recognised.
  """
  module, begin = start
  names, labels = np.unique(train[1], return_inverse=True)
  head = nn.Dense(len(names))
  params = {
    "body": begin["params"],
    "head": head.init(
      jax.random.key(seed), jnp.zeros((1, students.EMBEDDING_SIZE))
    ),
  }
  stats = begin.get("batch_stats", {})
  optimiser = optax.adamw(
    optax.cosine_decay_schedule(_LEARNING_RATE, steps),
    weight_decay=_WEIGHT_DECAY,
  )

  @compiler.jit
  def step(params: Any, stats: Any, state: Any, images: Any, truth: Any) -> Any:
    def loss(params: Any) -> Any:
      embedding, changed = module.apply(
        {"params": params["body"], "batch_stats": stats},
        images,
        train=True,
        mutable=["batch_stats"],
      )
      scores = head.apply(params["head"], embedding)
      losses = optax.softmax_cross_entropy_with_integer_labels(scores, truth)
      return losses.mean(), changed["batch_stats"]

    gradient, stats = jax.grad(loss, has_aux=True)(params)
    updates, state = optimiser.update(gradient, state, params)
    return optax.apply_updates(params, updates), stats, state

  @compiler.jit
  def scores(params: Any, stats: Any, images: Any) -> Any:
    embedding = module.apply(
      {"params": params["body"], "batch_stats": stats}, images
    )
    return head.apply(params["head"], embedding)

  rng = np.random.default_rng(seed)
  state = optimiser.init(params)
  for _ in range(steps):
    rows = rng.integers(len(labels), size=_BATCH)
    images = np.stack([_view(train[0][row], rng) for row in rows])
    params, stats, state = step(params, stats, state, images, labels[rows])
  answers = []
  for first in range(0, len(test[0]), _BATCH):
    batch = test[0][first : first + _BATCH]
    still = [
      views.still(crop, students.TEMPLATE, students.INPUT_SIZE)
      for crop in np.resize(batch, (_BATCH, *batch.shape[1:]))
    ]
    guess = np.asarray(scores(params, stats, np.stack(still))).argmax(axis=1)
    answers.append(names[guess[: len(batch)]])
  return np.concatenate([*answers, np.zeros(0, int)]) == test[1]


def _view(
  crop: UInt8[np.ndarray, "size size 3"], rng: np.random.Generator
) -> UInt8[np.ndarray, "112 112 3"]:
  """A random view, mirrored or not."""
  image = views.augmented(crop, students.TEMPLATE, students.INPUT_SIZE, rng)
  return image[:, ::-1] if rng.random() < 0.5 else image


def fingerprint(name: str, steps: int) -> str:
  """Differs when the network or its training does."""
  return kept.digest(name, steps, _BATCH, _LEARNING_RATE, _CROP_SIZE)
