import functools
import re
import shutil

import numpy as np
import pytest

from fawkes_jax import types
from fawkes_jax.weights import catalogue
from fawkes_jax.weights.formats import dlib

[RESNET] = catalogue.public()["dlib_resnet"].files
READERS = {
  RESNET.name: functools.partial(
    dlib.read_resnet, name=RESNET.name, sha256=RESNET.sha256
  ),
  dlib.MMOD_FILE: dlib.read_mmod,
  dlib.LANDMARK_FILE: dlib.read_shape_predictor,
}


@pytest.mark.parametrize("name", READERS)
def test_changed_byte_is_refused(name, tmp_path):
  data = bytearray(dlib.package_file(name).read_bytes())
  data[len(data) // 2] ^= 1
  path = tmp_path / "changed.dat"
  path.write_bytes(data)
  with pytest.raises(types.FawkesError, match="sha256") as caught:
    READERS[name](path)
  assert str(path) in str(caught.value)
  sha256 = (dlib.SHA256 | {RESNET.name: RESNET.sha256})[name]
  assert sha256 in str(caught.value)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("size", [0, 1000])
def test_truncated_file_is_refused(name, size, tmp_path):
  path = tmp_path / "short.dat"
  path.write_bytes(dlib.package_file(name).read_bytes()[:size])
  with pytest.raises(types.FawkesError, match=f"of {size} bytes"):
    READERS[name](path)


@pytest.mark.parametrize("name", READERS)
def test_missing_file_is_refused(name, tmp_path):
  path = tmp_path / "missing.dat"
  with pytest.raises(
    types.FawkesError, match=f"{re.escape(str(path))}.*{name}.*No such file"
  ):
    READERS[name](path)


def test_folder_in_place_of_a_file_is_refused(tmp_path):
  with pytest.raises(types.FawkesError, match="must be a readable copy"):
    dlib.read_mmod(tmp_path)


def test_missing_package_is_reported(monkeypatch):
  monkeypatch.setattr(dlib, "_PACKAGE", "no_such_package_of_models")
  with pytest.raises(types.FawkesError, match="must be installed: pip install"):
    dlib.package_file(dlib.MMOD_FILE)


def test_68_landmarks_are_not_known():
  assert not any("68" in name for name in [*dlib.SHA256, RESNET.name])


def test_file_may_lie_anywhere(tmp_path):
  path = shutil.copy(dlib.package_file(dlib.MMOD_FILE), tmp_path / "x")
  np.testing.assert_array_equal(dlib.read_mmod(path)["window"], [80, 80])


def test_reader_decodes_integers_and_numbers():
  reader = dlib._Reader(b"\x01\x02\x82\x00\x01\x00\x01\x03\x81\x01\x82\x02\x01")
  assert reader.integers(3) == [2, -256, 0]
  assert reader.number() == 1.5
  assert reader.integer() == -258
