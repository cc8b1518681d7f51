import inspect
import subprocess
import sys

import jax
import numpy as np
import pytest

import fawkes_jax
from fawkes_jax import types


def test_all_names_exist_and_say_what_they_are():
  for name in fawkes_jax.__all__:
    value = getattr(fawkes_jax, name)
    if callable(value):
      assert inspect.getdoc(value)
  with pytest.raises(AttributeError, match="no attribute 'clook_archive'"):
    _ = fawkes_jax.clook_archive


def test_importing_costs_little():
  """JAX comes with the first name that needs it."""
  script = (
    "import sys, fawkes_jax\n"
    "fawkes_jax.MODES, fawkes_jax.CloakOptions, fawkes_jax.__version__\n"
    "assert 'jax' not in sys.modules\n"
    "from fawkes_jax import load_extractor\n"
    "assert 'jax' in sys.modules\n"
  )
  subprocess.run([sys.executable, "-c", script], check=True)


def test_errors_are_of_one_family():
  assert issubclass(fawkes_jax.PhotoError, fawkes_jax.FawkesError)


@pytest.fixture(scope="module")
def extractor():
  return fawkes_jax.load_extractor("dlib_resnet")


@pytest.fixture(scope="module")
def images(small_astronaut):
  face = small_astronaut[50:200, 30:180]
  return np.stack([face, face[:, ::-1]])


def test_extractor(extractor, images):
  assert extractor.name == "dlib_resnet"
  assert extractor.input_size == 150
  embeddings = extractor.embed(images)
  assert isinstance(embeddings, np.ndarray)
  assert embeddings.shape == (2, 128)
  assert embeddings.dtype == np.float32
  # Integers, floats and lists of images alike.
  for same in (images.astype(np.float64), images.astype(np.float16)):
    np.testing.assert_allclose(extractor.embed(same), embeddings, atol=1e-5)
  assert extractor.embed(images[:0]).shape == (0, 128)


def test_extractor_tells_people_apart(extractor, images):
  """A face is near its mirror image and far from what is no face.

  dlib's own threshold between two people is 0.6.
  """
  noise = np.random.default_rng(0).integers(0, 256, images[:1].shape, np.uint8)
  face, mirrored, other = extractor.embed(np.concatenate([images, noise]))
  assert np.linalg.norm(face - mirrored) < 0.4
  assert np.linalg.norm(face - other) > 0.6


@pytest.mark.parametrize(
  "shape", [(150, 150, 3), (1, 149, 150, 3), (1, 150, 150, 1), (2, 3, 150, 150)]
)
def test_extractor_refuses_other_shapes(extractor, shape):
  with pytest.raises(ValueError) as caught:
    extractor.embed(np.zeros(shape, np.uint8))
  assert "dlib_resnet takes images [n, 150, 150, 3]" in str(caught.value)
  assert str(list(shape)) in str(caught.value)


def test_apply_is_pure(extractor, images):
  """Same weights and images, same answer; it can be transformed."""
  x = images.astype(np.float32)
  program = jax.jit(extractor.apply)
  first = program(extractor.variables, x)
  np.testing.assert_array_equal(program(extractor.variables, x), first)
  np.testing.assert_allclose(first, extractor.embed(images), atol=1e-5)
  # The weights are an argument, not a secret.
  zero = jax.tree.map(np.zeros_like, extractor.variables)
  assert not np.asarray(program(zero, x)).any()
  with pytest.raises(AttributeError):
    extractor.name = "another"


def test_unknown_extractor():
  with pytest.raises(types.FawkesError, match=r"^extractors must.*got nobody"):
    fawkes_jax.load_extractor("nobody")


def test_windows_is_refused_with_a_way_out():
  program = "import os; os.name = 'nt'; import fawkes_jax"
  result = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True
  )
  assert result.returncode == 1
  assert "on Windows, install it in the Windows Subsystem" in result.stderr
