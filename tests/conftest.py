"""What several tests share."""

import os
import pathlib

import numpy as np
import PIL.Image
import pytest
import skimage.data


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
  """The folder with the project's photographs; skips where there is none."""
  default = pathlib.Path(__file__).parents[2] / "shared" / "data"
  folder = pathlib.Path(os.environ.get("FAWKES_JAX_DATA", default))
  if not folder.is_dir():
    pytest.skip(f"no photographs in {folder}; set FAWKES_JAX_DATA")
  return folder


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
  """uint8 [512, 512, 3]: a photograph with one face, in the public domain."""
  return np.ascontiguousarray(skimage.data.astronaut())


@pytest.fixture(scope="session")
def small_astronaut(astronaut) -> np.ndarray:
  """uint8 [256, 256, 3]: head and shoulders at full resolution."""
  return np.ascontiguousarray(astronaut[:256, 100:356])


# One small configuration for all tests that solve faces: XLA takes seconds for
# each, and keeps what it has compiled for the next test.
FEW_STEPS = 6
CROP_SIZE = 160
BATCH_SIZE = 2


@pytest.fixture(scope="session")
def recognition():
  """Networks that find and embed faces; crops of 160 pixels, batches of 2."""
  from fawkes_jax import config, recognition

  return recognition.Recognition(
    config.FaceOptions(crop_size=CROP_SIZE, batch_size=BATCH_SIZE)
  )


@pytest.fixture(scope="session")
def faces(recognition, small_astronaut):
  """One face as it is, mirrored and at three quarters of its size."""
  small = PIL.Image.fromarray(small_astronaut).resize((192, 192))
  photos = [small_astronaut, small_astronaut[:, ::-1], np.asarray(small)]
  found = recognition.finder.find([np.ascontiguousarray(p) for p in photos])
  assert [len(faces) for faces in found] == [1, 1, 1]
  return [face for [face] in found]


@pytest.fixture(scope="session")
def bank():
  """The target bank that travels with the package."""
  from fawkes_jax.weights import bank

  return bank.load(["dlib_resnet"])


@pytest.fixture(scope="session")
def problems(recognition, bank, faces):
  """`solver.Problem`s of `faces`, with three targets."""
  from fawkes_jax.cloaking import solver
  from fawkes_jax.engine import embedder

  own = embedder.normalised(recognition.embed(faces), bank.centres)
  targets = embedder.normalised(bank.embeddings, bank.centres)
  return [
    solver.Problem(
      original=face.crop,
      coverage=face.coverage,
      weights=face.weights,
      side=np.float32(face.alignment.side),
      colour=np.float32(1),
      own={name: e[i] for name, e in own.items()},
      target={name: e[i] for name, e in targets.items()},
      seed=np.uint32(i),
    )
    for i, face in enumerate(faces)
  ]
