"""What is packed for a machine without network, and how it is measured."""

import contextlib
import fcntl
import importlib.metadata
import json
import sys
import tarfile
import time
import tomllib

import pytest
from benchmarks.gpu import measure, pack


def _missing(installed):
  project = tomllib.loads((pack.REPOSITORY / "pyproject.toml").read_text())
  return pack.missing(project["project"]["dependencies"], installed, "3.12")


def test_packages_that_the_machine_lacks_are_carried_and_no_others():
  listed = pack.INSTALLED.read_text()
  needed = _missing(pack.names(listed))
  assert needed == {
    name: importlib.metadata.version(name)
    for name in ("dm-pix", "faiss-cpu", "jpeglib", "tenacity")
  }


def test_what_a_carried_package_needs_is_carried_too():
  # Of the project's own dependencies none asks for it.
  installed = pack.names(pack.INSTALLED.read_text()) - {"packaging"}
  assert "packaging" in _missing(installed)


def test_a_list_of_installed_packages_may_be_that_of_pip():
  text = "# a comment\nPillow==11.1.0\ndm_pix\njax @ file:///x.whl  # own\n\n"
  assert pack.names(text) == {"pillow", "dm-pix", "jax"}


def test_photos_are_those_of_whole_people(tmp_path):
  for person in "ann", "bob", "cy":
    (tmp_path / "all" / person).mkdir(parents=True)
    for name in "1.jpg", "2.JPG", "notes.txt":
      (tmp_path / "all" / person / name).write_text(person + name)
  pack.pack_photos(tmp_path / "all", 4, tmp_path / "some")
  found = [path for path in (tmp_path / "some").rglob("*") if path.is_file()]
  assert {path.name for path in found} == {"1.jpg", "2.JPG"}
  assert len({path.parent for path in found}) == 2 and len(found) == 4
  assert all(path.read_text() == path.parent.name + path.name for path in found)
  with pytest.raises(SystemExit, match=r"7 photos .*, got 6"):
    pack.pack_photos(tmp_path / "all", 7, tmp_path / "seven")


def test_weights_are_found_where_they_are_packed(tmp_path, monkeypatch):
  from fawkes_jax.weights import catalogue, extractors

  mine = extractors.load_extractor("dlib_resnet")
  student = catalogue.students()["student_mobilefacenet"]
  pack.pack_weights(["dlib_resnet", str(student)], tmp_path / "cache")
  monkeypatch.setenv("FAWKES_JAX_CACHE", str(tmp_path / "cache"))
  assert set(catalogue.kept()) == {"student_mobilefacenet"}
  # What would be converted anew is not there.
  monkeypatch.setattr(extractors, "_READERS", {})
  packed = extractors.load_extractor("dlib_resnet")
  kernel = mine.variables["params"]["stem"]["kernel"]
  assert (packed.variables["params"]["stem"]["kernel"] == kernel).all()


def test_a_pack_that_is_too_large_is_refused():
  sizes = {"checkout": 3 * pack.MIB, "photos": pack.MIB // 2}
  assert pack.within(sizes, 3.5).startswith("3.5 of 3.5 MiB: checkout 3.0,")
  with pytest.raises(SystemExit, match=r"too large, 3\.5 of 3\.4 MiB"):
    pack.within(sizes, 3.4)


def test_the_checkout_is_counted_without_what_git_ignores():
  if not (pack.REPOSITORY / ".git").exists():
    pytest.skip("no checkout of git")
  counted = {path.relative_to(pack.REPOSITORY) for path in pack.checkout()}
  names = {str(path) for path in counted}
  assert {"pyproject.toml", "checkpoints/detector.safetensors"} <= names
  assert not any(name.startswith("build/") for name in names)


def test_a_command_is_ended_at_its_limit_with_what_it_has_started(
  tmp_path, wait_for
):
  held = tmp_path / "held"
  child = f"import fcntl, time; file = open({str(held)!r}, 'w')\n\
fcntl.flock(file, fcntl.LOCK_EX); print('begun', flush=True); time.sleep(600)"
  parent = f"import subprocess, sys; subprocess.run(\
[sys.executable, '-c', {child!r}])"
  command = measure.Command(
    name="slow", seconds=5, words=(sys.executable, "-c", parent)
  )
  began = time.monotonic()
  ended = measure.run(command, 5, {}, tmp_path)
  assert ended["exit code"] is None and time.monotonic() - began < 600
  assert "begun" in (tmp_path / "log.txt").read_text()

  def released():
    with open(held) as file, contextlib.suppress(BlockingIOError):
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return True
    return False

  wait_for(released, "the child is ended")


def test_cloaks_are_compared_face_by_face(tmp_path):
  for name, dssim in ("processor", (0.010, 0.012)), ("float32", (0.011, 0.012)):
    rows = [
      {
        "path": f"{i}.jpg",
        "faces": [{"dssim": d, "extractors": {"dlib": {"shift": 1.0}}}],
      }
      for i, d in enumerate(dssim)
    ]
    (tmp_path / name).mkdir()
    (tmp_path / name / "manifest.jsonl").write_text(
      "".join(json.dumps(row) + "\n" for row in rows)
    )
  said = measure.compared(tmp_path)
  assert said["float32 dssim"] == {
    "faces": 2,
    "mean": pytest.approx(0.0115),
    "mean difference": pytest.approx(0.0005),
    "largest difference": pytest.approx(0.001),
  }
  assert said["float32 shift dlib"]["largest difference"] == 0
  assert not any(key.startswith("bfloat16") for key in said)


def test_results_are_few_and_small(tmp_path, monkeypatch):
  work, output = tmp_path / "work", tmp_path / "output"
  names = "rows/all/manifest.jsonl", "rows/all/a.jpg", "trace/b.pb"
  for name in *names, "trained/a.md", "trained/state/a.safetensors":
    (work / name).parent.mkdir(parents=True, exist_ok=True)
    (work / name).write_bytes(bytes(range(256)) * 64)
  output.mkdir()
  (output / "log.txt").write_text("begun\n" * 1000)
  assert measure.keep(work, output) == {}
  with tarfile.open(output / "rows.tar.gz") as file:
    assert file.getnames() == ["rows/all/manifest.jsonl"]
  with tarfile.open(output / "trained.tar.gz") as file:
    assert file.getnames() == ["trained/a.md"]
  monkeypatch.setattr(measure, "LARGEST", 300)
  assert set(measure.keep(work, output)) == {
    *("rows.tar.gz", "trace.tar.gz", "trained.tar.gz")
  }
  assert (output / "log.txt").read_text().endswith("begun\n")
  assert all(path.stat().st_size <= 300 for path in output.iterdir())
