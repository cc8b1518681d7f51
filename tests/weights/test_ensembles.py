import functools
import http.server
import shutil
import threading

import pytest
from terminal import run

from fawkes_jax.options import FaceOptions
from fawkes_jax.weights import catalogue, ensembles

MOBILEFACENET = "foamliu_mobilefacenet.onnx"


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """Where fetched weights lie; still empty."""
  monkeypatch.setenv("FAWKES_JAX_CACHE", str(tmp_path / "cache"))
  folder = catalogue.folder()
  folder.mkdir(parents=True)
  return folder


def test_free_is_what_the_package_brings_where_nothing_was_fetched(folder):
  assert ensembles.free() == ("dlib_resnet", *catalogue.students())


def test_a_student_makes_room_for_its_teacher(folder):
  # Its name is all that is looked at.
  (folder / "mobilefacenet.onnx").touch()
  names = ensembles.free()
  assert names[:2] == ("dlib_resnet", "mobilefacenet")
  assert "student_mobilefacenet" not in names
  assert "student_se_mobilenet" in names


@pytest.mark.parametrize("name", ["buffalo_l", "auraface", "mine"])
def test_free_leaves_out_what_is_not_free_or_heavy_or_not_known(folder, name):
  (folder / f"{name}.onnx").touch()
  assert name not in ensembles.free()


def test_each_recogniser_is_asked_once(folder):
  options = FaceOptions(extractors=("student_se_mobilenet", "free"))
  names = ensembles.resolved(options).extractors
  assert names[:2] == ("student_se_mobilenet", "dlib_resnet")
  assert len(set(names)) == len(names)
  assert set(names) == set(ensembles.free())
  assert ensembles.resolved(ensembles.resolved(options)).extractors == names


def test_one_that_cannot_be_fetched_does_not_cost_the_others(
  folder, data_dir, tmp_path, monkeypatch
):
  place = tmp_path / "mirror"
  place.mkdir()
  shutil.copy(
    data_dir / "weights" / MOBILEFACENET, place / "mobilefacenet.onnx"
  )
  monkeypatch.setenv("no_proxy", "127.0.0.1")
  handler = functools.partial(
    http.server.SimpleHTTPRequestHandler, directory=place
  )
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    code, said, errors = run("weights", "fetch", "free", f"--mirror={address}")
    server.shutdown()
    thread.join()
  assert code == 2
  assert "mobilefacenet was in" in said or "mobilefacenet is in" in said
  missing = set(ensembles.fetchable()) - {"mobilefacenet"}
  assert missing
  assert all(name in errors for name in missing)
  assert "mobilefacenet" in ensembles.free()
