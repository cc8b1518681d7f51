"""What several tests share."""

import os
import pathlib
import shutil
import tempfile
import time

import numpy as np
import PIL.Image
import pytest
import servers
import skimage.data

_PROGRAMS = "FAWKES_JAX_TEST_PROGRAMS"
_QUICKLY_COMPILED = "--xla_backend_optimization_level=0"
# What takes longest begins first, so that all workers of pytest-xdist end at
# about the same time (--dist=loadfile --no-loadscope-reorder).
_LONG = (
  "runs/test_ray_cluster.py",
  "archive/test_membership.py",
  "engine/test_executor.py",
  "runs/test_pipeline.py",
  "training/test_loop.py",
  "models/test_mmod.py",
  "commands/test_faults.py",
)


def pytest_configure(config):
  """Makes the folder of compiled programs; workers of pytest-xdist share it.

  Most programs run for a shorter time than XLA takes to optimise them. Whoever
  wants to test them as users have them sets XLA_FLAGS, be it to "".
  """
  os.environ.setdefault("XLA_FLAGS", _QUICKLY_COMPILED)
  if not hasattr(config, "workerinput"):
    os.environ[_PROGRAMS] = tempfile.mkdtemp(prefix="fawkes_jax-programs-")


def pytest_unconfigure(config):
  if not hasattr(config, "workerinput"):
    shutil.rmtree(os.environ.pop(_PROGRAMS, ""), ignore_errors=True)


def pytest_collection_modifyitems(items):
  """What starts processes or clusters is slow; what is long comes first."""
  here = pathlib.Path(__file__).parent
  turns = {here / name: turn for turn, name in enumerate(_LONG)}
  items.sort(key=lambda item: turns.get(item.path, len(turns)))
  for item in items:
    if item.get_closest_marker("processes") or item.get_closest_marker(
      "cluster"
    ):
      item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _compile_once():
  """What another test has compiled is not compiled again."""
  import jax

  names = {
    "jax_compilation_cache_dir": os.environ[_PROGRAMS],
    "jax_persistent_cache_min_compile_time_secs": 0.1,
  }
  before = {name: getattr(jax.config, name) for name in names}
  for name, value in names.items():
    jax.config.update(name, value)
  yield
  for name, value in before.items():
    jax.config.update(name, value)


@pytest.fixture(scope="session", autouse=True)
def _passable(tmp_path_factory):
  """Processes without root's rights may pass through to a test's folder."""
  base = tmp_path_factory.getbasetemp()
  for folder in (base, *base.parents[:2]):
    mode = folder.stat().st_mode
    if not mode & 0o001:
      folder.chmod(mode | 0o055)


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
def cloaker(tmp_path_factory):
  """All that a run loads, for few steps and small batches."""
  from fawkes_jax.faces import cloaker
  from fawkes_jax.options import CloakOptions, SolverOptions

  nowhere = tmp_path_factory.mktemp("nowhere")
  return cloaker.Cloaker(
    CloakOptions(
      input=nowhere / "in",
      output=nowhere / "out",
      solver=SolverOptions(steps=FEW_STEPS),
      extractors=("dlib_resnet",),
      crop_size=CROP_SIZE,
      batch_size=BATCH_SIZE,
    )
  )


@pytest.fixture(scope="session")
def recognition(cloaker):
  """Networks that find and embed faces."""
  return cloaker.recognition


@pytest.fixture(scope="session")
def faces(recognition, small_astronaut):
  """One face as it is, mirrored and at three quarters of its size."""
  small = PIL.Image.fromarray(small_astronaut).resize((192, 192))
  photos = [small_astronaut, small_astronaut[:, ::-1], np.asarray(small)]
  found = recognition.finder.find([np.ascontiguousarray(p) for p in photos])
  assert [len(faces) for faces in found] == [1, 1, 1]
  return [face for [face] in found]


@pytest.fixture(scope="session")
def two_people():
  """Two photos of each of two people, who are averages of several."""
  from fawkes_jax.weights import averages

  photos = []
  for face in averages.load().faces[[0, 3]]:
    photo = np.full((256, 256, 3), 128, np.uint8)
    large = PIL.Image.fromarray(face).resize((160, 160))
    photo[48:208, 48:208] = large
    photos += [photo, np.ascontiguousarray(photo[:, ::-1])]
  return photos


@pytest.fixture(scope="session")
def problems(cloaker, faces):
  """`solver.Problem`s of `faces`, with three targets."""
  own = cloaker.normalised(cloaker.recognition.embed(faces))
  return [
    cloaker.problem(
      face,
      own={name: e[i] for name, e in own.items()},
      target={name: e[i] for name, e in cloaker.candidates.items()},
      exchanged=False,
      grey=False,
      seed=i,
    )
    for i, face in enumerate(faces)
  ]


@pytest.fixture
def wait_for():
  """Waits until something is so, and fails when it takes too long."""

  def wait(so, what, seconds=30.0):
    end = time.monotonic() + seconds
    while not so():
      assert time.monotonic() < end, f"{what} within {seconds} s"
      time.sleep(0.05)

  return wait


@pytest.fixture(scope="session")
def s3_server():
  with servers.s3() as environment:
    yield environment


@pytest.fixture(scope="session")
def gcs_server():
  with servers.gcs() as environment:
    yield environment
