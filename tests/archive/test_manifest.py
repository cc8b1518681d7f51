import hashlib
import json
import os
import subprocess
import sys
import time

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
  """Of the merged manifest, and of what is not merged yet."""
  found = []
  for path in (output / manifest.NAME, *parts(output)):
    found += path.read_text().splitlines() if path.exists() else []
  return found


def parts(output):
  return sorted((output / manifest.FOLDER).glob("*.jsonl"))


def paths(record):
  return [row.path for row in record.rows]


LIKELY = {"box": [1, 2, 30, 40], "score": 0.375}


def test_a_row_on_disk(tmp_path):
  with manifest.Manifest(tmp_path) as record:
    record.append(
      row(
        faces=(FACE,),
        seconds=1 / 3,
        output_sha256="o1",
        finished="2026-05-04T12:00:00+00:00",
        lost=("gain map",),
        names=True,
      )
    )
    (line,) = lines(tmp_path)  # at once
  assert json.loads(line) == {
    "path": "a.jpg",
    "status": "cloaked",
    "reason": None,
    "source_sha256": "s1",
    "output_sha256": "o1",
    "place": None,
    "config": "c1",
    "seconds": 0.333333,
    "finished": "2026-05-04T12:00:00+00:00",
    "smallest_face": None,
    "output": None,
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
    "lost": ["gain map"],
    "names": True,
    "decisions": [],
    "likely": None,
  }


def test_rows_come_back(tmp_path):
  with manifest.Manifest(tmp_path / "new") as record:
    record.append(row("b.jpg", "failed", reason="truncated"))
    record.append(row("a.jpg"))
    record.append(row("b.jpg", "no_face", source_sha256=None, likely=LIKELY))
  with manifest.Manifest(tmp_path / "new") as record:
    assert paths(record) == ["a.jpg", "b.jpg"]
    assert record.rows.get("b.jpg").status == "no_face"
    assert record.rows.get("b.jpg").reason is None
    assert record.rows.get("b.jpg").lost == ()
    assert record.rows.get("b.jpg").likely == LIKELY
    assert record.rows.get("c.jpg") is None
    assert record.notes == []


def test_finish_leaves_one_row_a_path_in_order(tmp_path):
  with manifest.Manifest(tmp_path) as record:
    for name in ("c", "a", "b", "a", "c"):
      record.append(row(name))
    record.finish()
    assert [json.loads(line)["path"] for line in lines(tmp_path)] == [
      "a", "b", "c"
    ]  # fmt: skip
    assert sorted(os.listdir(tmp_path)) == [
      manifest.LOCK_NAME, manifest.NAME
    ]  # fmt: skip
    record.append(row("d"))
  assert len(lines(tmp_path)) == 4
  with manifest.Manifest(tmp_path) as record:
    assert paths(record) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("merged", [False, True])
def test_a_torn_last_line_is_dropped_and_said(tmp_path, merged):
  with manifest.Manifest(tmp_path) as record:
    record.append(row("a"))
    record.append(row("b"))
    if merged:
      record.finish()
  (path,) = [tmp_path / manifest.NAME] if merged else parts(tmp_path)
  path.write_bytes(path.read_bytes()[:-9])
  with manifest.Manifest(tmp_path) as record:
    assert paths(record) == ["a"]
    assert "not whole" in record.notes[0]
    record.append(row("c"))
    record.finish()
  assert [json.loads(line)["path"] for line in lines(tmp_path)] == ["a", "c"]
  with manifest.Manifest(tmp_path) as record:
    assert record.notes == []


def test_later_generations_count_more(tmp_path):
  """Whatever the clocks say, and whichever process wrote them."""
  for process, reason in ((1, "first"), (0, "second"), (1, "third")):
    with manifest.Manifest(tmp_path, process=process, processes=2) as record:
      record.append(row("a", "failed", reason=reason))
      record.append(row(reason))
  assert len(parts(tmp_path)) == 3
  with manifest.Manifest(tmp_path) as record:
    assert record.rows.get("a").reason == "third"
    assert paths(record) == ["a", "first", "second", "third"]
    record.finish()
    assert len(lines(tmp_path)) == 4
    assert parts(tmp_path) == []
    record.append(row("a", "failed", reason="fourth"))
  with manifest.Manifest(tmp_path) as record:
    assert record.rows.get("a").reason == "fourth"


def test_the_first_process_merges_what_others_add(tmp_path):
  with (
    manifest.Manifest(tmp_path, process=0, processes=2) as first,
    manifest.Manifest(tmp_path, process=1, processes=2) as second,
  ):
    first.append(row("a"))
    second.append(row("b"))
    first.rows.expect([("a", 0), ("b", 1), ("c", 1), ("d", 0)])
    assert first.rows.missing() == {0: 1, 1: 2}
    first.refresh()
    assert first.rows.missing() == {0: 1, 1: 1}
    second.append(row("c"))
    second.append(row("d"))
    first.finish()
    assert first.rows.missing() == {}
  assert [json.loads(line)["path"] for line in lines(tmp_path)] == [
    "a", "b", "c", "d"
  ]  # fmt: skip


def test_a_refresh_reads_what_is_new(address):
  """In every store; rows that came later count more, whatever was read when."""
  with manifest.Manifest(address, process=1, processes=3) as early:
    early.append(row("a", "failed", reason="first"))
    early.append(row("b", "failed", reason="first"))
    early.sync()
    with (
      manifest.Manifest(address, process=0, processes=3) as first,
      manifest.Manifest(address, process=2, processes=3) as late,
    ):
      late.append(row("a", "failed", reason="second"))
      late.sync()
      for round_ in range(3):
        first.refresh()
        assert first.rows.get("a").reason == "second"
        assert first.rows.get("b").reason == "first"
        assert len(first.rows) == 2 + 1000 * round_
        for number in range(1000):
          early.append(row(f"{round_}/{number}"))
        early.sync()
      first.finish()
  with manifest.Manifest(address) as record:
    assert len(record.rows) == 3002
    assert record.rows.get("a").reason == "second"
    left = record.store.names(manifest.FOLDER)
    assert not [name for name in left if not name.endswith(".lock")]


def test_many_rows(tmp_path):
  """More than are handled at once, in the order of their names' bytes."""
  names = [f"{number * 7919 % 10_000:04}.jpg" for number in range(10_000)]
  with manifest.Manifest(tmp_path) as record:
    record.rows.put(map(row, names))
    assert len(record.rows) == 10_000
    record.rows.expect((name, 0) for name in names[:9_000])
    assert [r.path for r in record.rows.unexpected()] == sorted(names[9_000:])
    record.finish()
  assert [json.loads(line)["path"] for line in lines(tmp_path)] == sorted(names)


@pytest.mark.parametrize(
  "line", ["garbage", "[1]", '{"path": "a"}', '{"path": "a", "status": "odd"}']
)
def test_lines_that_are_no_rows_are_said(tmp_path, line):
  (tmp_path / manifest.NAME).write_text(line + "\n" + row("b").to_json() + "\n")
  with manifest.Manifest(tmp_path) as record:
    assert paths(record) == ["b"]
    assert "ignored line 1" in record.notes[0]


def test_fields_of_later_versions_are_ignored(tmp_path):
  later = json.loads(row("a").to_json()) | {"mood": "good"}
  (tmp_path / manifest.NAME).write_text(json.dumps(later) + "\n")
  with manifest.Manifest(tmp_path) as record:
    assert paths(record) == ["a"]


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
  with manifest.Manifest(tmp_path, process=0, processes=2):
    assert "another process" in other()
    with pytest.raises(types.FawkesError, match="number 0 is allowed"):
      manifest.Manifest(tmp_path, process=0, processes=3)
    with manifest.Manifest(tmp_path, process=1, processes=2):
      pass


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
    assert paths(record) == ["a"]


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
      return manifest.why_unfinished(
        record.rows.get(path),
        record.store,
        source_sha256=source_sha256,
        config=config,
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


def test_a_full_disk_is_named_and_others_can_go_on(tmp_path, full_disk):
  record = manifest.Manifest(tmp_path)
  long = row(reason="x" * 2000)
  with full_disk:
    for act in (lambda: record.append(long), record.close):
      with pytest.raises(types.FawkesError, match="File too large"):
        act()
  with manifest.Manifest(tmp_path) as record:
    record.append(long)
    assert paths(record) == ["a.jpg"]


def test_results_that_come_while_others_work_are_not_foreign(tmp_path):
  """Whoever has written them may be gone without a row of them."""
  (tmp_path / "before.png").write_bytes(b"")
  time.sleep(0.02)
  with manifest.Manifest(tmp_path, process=1, processes=2) as record:
    (tmp_path / "meanwhile.png").write_bytes(b"")
    assert record.is_foreign("before.png")
    assert not record.is_foreign("meanwhile.png")
