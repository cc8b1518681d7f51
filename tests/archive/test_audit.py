"""`fawkes-jax verify`, on small folders without any photo."""

import fcntl
import hashlib

import pytest
from terminal import run

from fawkes_jax.archive import manifest

OUTCOMES = {"a b.jpg": "cloaked", "trip/é.png": "no_face", "x.jpg": "failed"}


def digest(data):
  return hashlib.sha256(data).hexdigest()


@pytest.fixture
def folders(tmp_path):
  """An input of three files, and an output with two results."""
  source, output = tmp_path / "in", tmp_path / "out"
  with manifest.Manifest(output) as record:
    for name, status in OUTCOMES.items():
      data = name.encode()
      (source / name).parent.mkdir(parents=True, exist_ok=True)
      (source / name).write_bytes(data)
      result = None
      if status != "failed":
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_bytes(data * 2)
        result = digest(data * 2)
      record.append(
        manifest.Row(
          path=name,
          status=status,
          source_sha256=digest(data),
          output_sha256=result,
          config="c",
        )
      )
  return source, output


def verify(folders):
  source, output = folders
  return run("verify", f"--output={output}", f"--input={source}")


def test_whole(folders):
  before = {p: p.stat().st_mtime_ns for p in folders[1].rglob("*")}
  ended = verify(folders)
  assert (ended.code, ended.errors) == (0, "")
  assert "3 outcomes" in ended.said
  for status in ("1 cloaked", "1 no_face", "1 failed"):
    assert status in ended.said
  assert "every input file has one" in ended.said
  assert {p: p.stat().st_mtime_ns for p in folders[1].rglob("*")} == before


def altered(path):
  data = bytearray(path.read_bytes())
  data[0] ^= 1
  path.write_bytes(data)


@pytest.mark.parametrize(
  ("harm", "problem"),
  [
    (lambda i, o: altered(o / "a b.jpg"), "output altered: a b.jpg"),
    (lambda i, o: (o / "a b.jpg").unlink(), "output missing: a b.jpg"),
    (lambda i, o: (o / "trip/é.png").unlink(), "output missing: trip/é.png"),
    (lambda i, o: altered(i / "x.jpg"), "source altered: x.jpg"),
    (lambda i, o: (i / "new.jpg").write_bytes(b""), "no outcome: new.jpg"),
  ],
)
def test_harm_is_named_once(folders, harm, problem):
  harm(*folders)
  ended = verify(folders)
  assert ended.code == 1
  lines = ended.said.splitlines()
  assert lines[0] == problem
  assert f"  1 {problem.partition(':')[0]}" in lines
  assert sum(": " in line for line in lines) == 1


def test_an_input_that_is_gone_does_no_harm(folders):
  (folders[0] / "a b.jpg").unlink()
  assert verify(folders).code == 0


def test_results_alone(folders):
  altered(folders[0] / "a b.jpg")
  assert run("verify", f"--output={folders[1]}").code == 0
  altered(folders[1] / "a b.jpg")
  assert run("verify", f"--output={folders[1]}").code == 1


def test_a_torn_last_line_is_left_as_it_is(folders):
  (path,) = (folders[1] / manifest.FOLDER).glob("*.jsonl")
  torn = path.read_bytes()[:-5]
  path.write_bytes(torn)
  ended = verify(folders)
  assert ended.code == 1
  assert "a last line that is not whole" in ended.said
  assert "no outcome: x.jpg" in ended.said
  assert path.read_bytes() == torn


def test_while_a_run_goes_on(folders):
  with (folders[1] / manifest.LOCK_NAME).open("ab") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    ended = verify(folders)
  assert ended.code == 2
  assert "is being written by another process" in ended.errors


def test_no_manifest(tmp_path):
  ended = run("verify", f"--output={tmp_path / 'nowhere'}")
  assert ended.code == 2
  assert f"--output must hold a {manifest.NAME}" in ended.errors
  assert not (tmp_path / "nowhere").exists()
