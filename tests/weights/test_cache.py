import os
import pathlib

import numpy as np
import pytest

from fawkes_jax.weights import cache

SHA256 = "0123456789abcdef" * 4
WEIGHTS = {
  "params": {
    "a": {"kernel": np.arange(12, dtype=np.float32).reshape(3, 4).T},
    "b": np.array([1, 2], np.int32),
  },
  "c": np.array([0.1, 0.2]),
}


class Converter:
  """Counts how often it is asked to convert."""

  def __init__(self):
    self.calls = 0

  def __call__(self):
    self.calls += 1
    return WEIGHTS


@pytest.fixture
def folder(tmp_path, monkeypatch):
  path = tmp_path / "not yet there"
  monkeypatch.setenv("FAWKES_JAX_CACHE", str(path))
  return path


def assert_is_weights(loaded):
  assert loaded.keys() == WEIGHTS.keys()
  for mine, expected in (
    (loaded["params"]["a"]["kernel"], WEIGHTS["params"]["a"]["kernel"]),
    (loaded["params"]["b"], WEIGHTS["params"]["b"]),
    (loaded["c"], WEIGHTS["c"]),
  ):
    assert mine.dtype == expected.dtype
    np.testing.assert_array_equal(mine, expected)


def test_converts_once(folder):
  convert = Converter()
  for _ in range(3):
    assert_is_weights(cache.load("w", SHA256, convert))
  assert convert.calls == 1
  assert [path.name for path in folder.iterdir()] == [
    f"w-{SHA256[:12]}-v1.safetensors"
  ]


def test_another_source_is_another_entry(folder):
  convert = Converter()
  cache.load("w", SHA256, convert)
  cache.load("w", SHA256[::-1], convert)
  assert convert.calls == 2


def test_entry_is_reproducible(folder):
  path = cache.entry("w", SHA256)
  cache.load("w", SHA256, Converter())
  first = path.read_bytes()
  path.unlink()
  cache.load("w", SHA256, Converter())
  assert path.read_bytes() == first


@pytest.mark.parametrize("damage", ["last byte", "half", "empty", "text"])
def test_damaged_entry_is_rebuilt(folder, damage):
  convert = Converter()
  cache.load("w", SHA256, convert)
  path = cache.entry("w", SHA256)
  good = path.read_bytes()
  path.write_bytes(
    {
      "last byte": good[:-1] + bytes([good[-1] ^ 1]),
      "half": good[: len(good) // 2],
      "empty": b"",
      "text": b"not safetensors" * 9,
    }[damage]
  )
  assert_is_weights(cache.load("w", SHA256, convert))
  assert convert.calls == 2
  assert path.read_bytes() == good
  assert len(list(folder.iterdir())) == 1


def test_falls_back_to_memory(tmp_path, monkeypatch):
  # A file in the folder's place fails for every user, even for root.
  blocker = tmp_path / "file"
  blocker.write_bytes(b"")
  monkeypatch.setenv("FAWKES_JAX_CACHE", str(blocker / "cache"))
  convert = Converter()
  for _ in range(2):
    assert_is_weights(cache.load("w", SHA256, convert))
  assert convert.calls == 2


def test_failed_write_leaves_nothing(folder, monkeypatch):
  def fail(*_):
    raise OSError("disk full")

  monkeypatch.setattr(os, "replace", fail)
  assert_is_weights(cache.load("w", SHA256, Converter()))
  assert list(folder.iterdir()) == []


def test_conversion_errors_are_passed_on(folder):
  def convert():
    raise RuntimeError("no source")

  with pytest.raises(RuntimeError, match="no source"):
    cache.load("w", SHA256, convert)


def test_directory(monkeypatch):
  monkeypatch.delenv("FAWKES_JAX_CACHE", raising=False)
  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  monkeypatch.setenv("HOME", "/home/someone")
  assert cache.directory() == pathlib.Path("/home/someone/.cache/fawkes_jax")
  monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
  assert cache.directory() == pathlib.Path("/shared/fawkes_jax")
  monkeypatch.setenv("FAWKES_JAX_CACHE", "/own")
  assert cache.directory() == pathlib.Path("/own")


def test_scalars_keep_their_shape(folder):
  for _ in range(2):  # Converted, then read back.
    loaded = cache.load("slope", "0" * 64, lambda: {"a": np.float32(0.25)})
    assert np.shape(loaded["a"]) == ()
