import numpy as np
import pytest
import safetensors

from fawkes_jax import types
from fawkes_jax.weights import bank


@pytest.fixture
def small():
  rng = np.random.default_rng(0)
  return bank.Bank(
    embeddings={
      "one": rng.normal(0, 1, (7, 4)).astype(np.float32),
      "two": rng.normal(0, 1, (7, 6)).astype(np.float32),
    }
  )


def test_there_and_back(small, tmp_path):
  file = tmp_path / "bank.safetensors"
  bank.save(small, file)
  loaded = bank.load(["two", "one"], file=file)
  assert set(loaded.embeddings) == {"one", "two"}
  for name, embeddings in small.embeddings.items():
    assert loaded.embeddings[name].dtype == np.float32
    # Half precision has 11 bits.
    np.testing.assert_allclose(
      loaded.embeddings[name], embeddings, rtol=2**-11, atol=1e-7
    )


def test_only_what_is_asked_for(small, tmp_path):
  file = tmp_path / "bank.safetensors"
  bank.save(small, file)
  assert set(bank.load(["two"], file=file).embeddings) == {"two"}


def test_centres(small):
  for name, centre in small.centres.items():
    np.testing.assert_allclose(
      centre, small.embeddings[name].sum(axis=0) / 7, rtol=1e-5
    )


def test_a_lacking_extractor_is_named(small, tmp_path):
  file = tmp_path / "bank.safetensors"
  bank.save(small, file)
  with pytest.raises(types.FawkesError) as caught:
    bank.load(["one", "three"], file=file)
  assert str(file) in str(caught.value)
  assert "lacks three" in str(caught.value)


@pytest.mark.parametrize("damage", ["missing", "empty", "short", "folder"])
def test_damaged_files(small, tmp_path, damage):
  file = tmp_path / "bank.safetensors"
  bank.save(small, file)
  data = file.read_bytes()
  file.unlink()
  if damage == "folder":
    file.mkdir()
  elif damage != "missing":
    file.write_bytes(b"" if damage == "empty" else data[: len(data) // 2])
  with pytest.raises(types.FawkesError, match=r"bank\.safetensors must be"):
    bank.load(["one"], file=file)


def test_the_packages_bank():
  """Many identities that are unlike, and nothing but embeddings."""
  assert bank.path().is_file()
  with safetensors.safe_open(bank.path(), framework="numpy") as tensors:
    assert not tensors.metadata()
    for name in tensors.keys():  # noqa: SIM118
      assert tensors.get_slice(name).get_shape()[0] >= 100
  loaded = bank.load(["dlib_resnet"])
  embeddings = loaded.embeddings["dlib_resnet"]
  assert embeddings.shape[1] == 128
  assert np.isfinite(embeddings).all()
  centred = embeddings - loaded.centres["dlib_resnet"]
  unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
  cosines = unit @ unit.T - 2 * np.eye(len(unit))
  # No identity is there twice, and each has somebody far from it.
  assert cosines.max() < 0.9
  assert (cosines + 2 * np.eye(len(unit))).min(axis=1).max() < -0.1
