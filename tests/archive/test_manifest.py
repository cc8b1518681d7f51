import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from fawkes_jax import types
from fawkes_jax.archive import files, manifest

FACE = {
  "box": np.array([1, 2, 30, 40], np.float32),
  "target": "bank:7",
  "steps": np.int32(40),
  "dssim": np.float32(0.0123456789),
  "linf": 12.000000001,
  "extractors": {"dlib_resnet": {"shift": 0.8, "cosine": float("nan")}},
}


def row(path="a.jpg", status="cloaked", **fields):
  return manifest.Row(
    path=path,
    status=status,
    **{"config": "c1", "source_sha256": "s1"} | fields,
  )


def lines(output):
  return (output / manifest.NAME).read_text().splitlines()


def test_a_row_on_disk(tmp_path):
  with manifest.Manifest(tmp_path) as record:
    record.append(
      row(
        faces=(FACE,),
        seconds=1 / 3,
        output_sha256="o1",
        finished="2026-05-04T12:00:00+00:00",
      )
    )
    (line,) = lines(tmp_path)  # at once
  assert json.loads(line) == {
    "path": "a.jpg",
    "status": "cloaked",
    "reason": None,
    "source_sha256": "s1",
    "output_sha256": "o1",
    "config": "c1",
    "seconds": 0.333333,
    "finished": "2026-05-04T12:00:00+00:00",
    "faces": [
      {
        "box": [1.0, 2.0, 30.0, 40.0],
        "target": "bank:7",
        "steps": 40,
        "dssim": 0.0123457,
        "linf": 12.0,
        "extractors": {"dlib_resnet": {"shift": 0.8, "cosine": None}},
      }
    ],
  }


def test_rows_come_back(tmp_path):
  with manifest.Manifest(tmp_path / "new") as record:
    record.append(row("b.jpg", "failed", reason="truncated"))
    record.append(row("a.jpg"))
    record.append(row("b.jpg", "no_face", source_sha256=None))
  with manifest.Manifest(tmp_path / "new") as record:
    assert sorted(record.rows) == ["a.jpg", "b.jpg"]
    assert record.rows["b.jpg"].status == "no_face"
    assert record.rows["b.jpg"].reason is None
    assert record.notes == []


def test_finish_leaves_one_row_a_path_in_order(tmp_path):
  with manifest.Manifest(tmp_path) as record:
    for name in ("c", "a", "b", "a", "c"):
      record.append(row(name))
    record.finish()
    assert [json.loads(line)["path"] for line in lines(tmp_path)] == [
      "a", "b", "c"
    ]  # fmt: skip
    record.append(row("d"))
  assert len(lines(tmp_path)) == 4
  assert sorted(os.listdir(tmp_path)) == [
    manifest.LOCK_NAME, manifest.NAME
  ]  # fmt: skip


def test_a_torn_last_line_is_dropped_and_said(tmp_path):
  with manifest.Manifest(tmp_path) as record:
    record.append(row("a"))
    record.append(row("b"))
  path = tmp_path / manifest.NAME
  path.write_bytes(path.read_bytes()[:-9])
  with manifest.Manifest(tmp_path) as record:
    assert list(record.rows) == ["a"]
    assert "not whole" in record.notes[0]
    record.append(row("c"))
  assert [json.loads(line)["path"] for line in lines(tmp_path)] == ["a", "c"]


@pytest.mark.parametrize(
  "line", ["garbage", "[1]", '{"path": "a"}', '{"path": "a", "status": "odd"}']
)
def test_lines_that_are_no_rows_are_said(tmp_path, line):
  (tmp_path / manifest.NAME).write_text(line + "\n" + row("b").to_json() + "\n")
  with manifest.Manifest(tmp_path) as record:
    assert list(record.rows) == ["b"]
    assert "ignored line 1" in record.notes[0]


def test_fields_of_later_versions_are_ignored(tmp_path):
  later = json.loads(row("a").to_json()) | {"mood": "good"}
  (tmp_path / manifest.NAME).write_text(json.dumps(later) + "\n")
  with manifest.Manifest(tmp_path) as record:
    assert list(record.rows) == ["a"]


def test_unknown_status():
  with pytest.raises(ValueError, match="status must be one of"):
    row(status="done")


def test_a_second_writer_is_refused(tmp_path):
  script = (
    "import sys\nfrom pathlib import Path\n"
    "from fawkes_jax import types\nfrom fawkes_jax.archive import manifest\n"
    "try: manifest.Manifest(Path(sys.argv[1])).close()\n"
    "except types.FawkesError as error: print(error)\n"
    "else: print('open')\n"
  )

  def other():
    command = [sys.executable, "-c", script, str(tmp_path)]
    return subprocess.run(
      command, capture_output=True, text=True, check=True
    ).stdout

  with manifest.Manifest(tmp_path):
    assert "--output" in (said := other())
    assert "another process" in said
    with pytest.raises(types.FawkesError, match="another process"):
      manifest.Manifest(tmp_path)
  assert other() == "open\n"  # the file that is left behind locks nobody out


def test_a_lock_ends_with_its_process(tmp_path):
  script = (
    "import os, sys\nfrom pathlib import Path\n"
    "from fawkes_jax.archive import manifest\n"
    "record = manifest.Manifest(Path(sys.argv[1]))\n"
    "record.append(manifest.Row(path='a', status='no_face', config='c'))\n"
    "os.kill(os.getpid(), 9)\n"
  )
  subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
  with manifest.Manifest(tmp_path) as record:
    assert list(record.rows) == ["a"]


def test_output_that_cannot_be_used(tmp_path):
  (tmp_path / "file").write_text("x")
  with pytest.raises(types.FawkesError, match="file"):
    manifest.Manifest(tmp_path / "file")
  (tmp_path / manifest.NAME).mkdir()
  with pytest.raises(
    types.FawkesError, match=r"manifest\.jsonl cannot be used"
  ):
    manifest.Manifest(tmp_path)


def test_why_unfinished(tmp_path):
  name = os.fsdecode(b"caf\xe9\\1.jpg")
  shown = files.printable(name)
  files.write_atomically(tmp_path / name, b"cloaked")
  digest = hashlib.sha256(b"cloaked").hexdigest()
  with manifest.Manifest(tmp_path) as record:

    def why(path=shown, source_sha256="s1", config="c1"):
      return record.why_unfinished(
        path, source_sha256=source_sha256, config=config
      )

    assert why() == "new"
    record.append(row(shown, output_sha256=digest))
    assert why() is None
    assert why(source_sha256="s2") == "changed source"
    assert why(config="c2") == "changed configuration"
    (tmp_path / name).write_bytes(b"Cloaked")
    assert why() == "output altered"
    (tmp_path / name).unlink()
    assert why() == "output missing"
    record.append(row("b", "failed", reason="no space"))
    assert why("b") == "failed before"
    record.append(row("c", "no_face"))
    assert why("c") is None
