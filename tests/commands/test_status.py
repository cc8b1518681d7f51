"""`fawkes-jax status`, on small folders without any photo."""

import datetime
import json

import pytest
from terminal import run

from fawkes_jax.archive import manifest, membership, stores

BEGUN = datetime.datetime(2026, 5, 4, 12, tzinfo=datetime.UTC)


def row(number, status="cloaked", seconds=0.0, **fields):
  finished = BEGUN + datetime.timedelta(seconds=seconds)
  return manifest.Row(
    path=f"{number}.jpg",
    status=status,
    config="c",
    finished=finished.isoformat(timespec="seconds"),
    **fields,
  )


@pytest.fixture
def folders(tmp_path):
  """Ten files, of which six have an outcome: one every four seconds."""
  source, output = tmp_path / "in", tmp_path / "out"
  source.mkdir()
  for number in range(10):
    (source / f"{number}.jpg").touch()
  return source, output


def fill(record):
  for number in range(5):
    record.append(row(number, seconds=4 * number, faces=({}, {})))
  record.append(row(5, "failed", seconds=20, reason="zero bytes"))


def test_while_a_run_writes_and_afterwards(folders):
  source, output = folders
  with manifest.Manifest(output) as record:
    fill(record)
    (part,) = (output / manifest.FOLDER).glob("*.jsonl")
    with part.open("ab") as file:
      file.write(b'{"path": "6.jpg", "sta')  # As far as it has come.
    before = part.read_bytes()
    ended = run("status", f"--output={output}", f"--input={source}")
    assert part.read_bytes() == before
  assert (ended.code, ended.errors) == (0, "")
  assert "6 outcomes (5 cloaked, 1 failed), 10 faces in" in ended.said
  assert "  failed: 5.jpg: zero bytes\n" in ended.said
  assert (
    "a process is writing, 0.25 photos/s of late, 4 left, 16.0 s" in ended.said
  )
  ended = run("status", f"--output={output}")
  assert "no process is writing, 0.25 photos/s" in ended.said
  assert "dropped a last line that is not whole" in ended.said
  assert "left" not in ended.said


def test_an_early_rate_is_forgotten(folders):
  """What was done an hour before the last pause says nothing of now."""
  _, output = folders
  with manifest.Manifest(output) as record:
    for number in range(10):
      record.append(row(number, seconds=number))
    for number in range(10, 13):
      record.append(row(number, seconds=3600 + 10 * number))
  assert "0.10 photos/s" in run("status", f"--output={output}").said


def test_nothing_to_tell(folders):
  source, output = folders
  ended = run("status", f"--output={output}")
  assert ended.code == 2
  assert f"--output must hold a {manifest.NAME}" in ended.errors
  with manifest.Manifest(output) as record:
    record.append(manifest.Row(path="0.jpg", status="no_face", config="c"))
  ended = run("status", f"--output={output}", f"--input={source}")
  assert "1 outcome (1 no_face), 0 faces" in ended.said
  assert "no process is writing, 9 left" in ended.said
  assert "photos/s" not in ended.said


def test_several_processes_in_a_bucket(s3_server):
  """What each says of itself; one has been silent for an hour."""
  output = "s3://photos/status"
  store = stores.open_store(output)
  fields = {"processes": 3, "config": "c", "wait_seconds": 1.0}
  now = datetime.datetime.now(datetime.UTC)
  for number in range(3):
    with membership.Team(
      store, process=number, counts=lambda: {"files": 7}, **fields
    ) as process:
      if number == 1:
        process.done()
  before = (now - datetime.timedelta(hours=1)).isoformat(timespec="seconds")
  name = f"{manifest.FOLDER}/process-0002.json"
  said = json.loads(store.read(name)) | {"time": before}
  store.write(name, json.dumps(said).encode())
  with manifest.Manifest(output, process=0, processes=3) as record:
    record.append(row(0))
  lines = run("status", f"--output={output}").said.splitlines()
  assert "1 outcome (1 cloaked), 0 faces in s3://photos/status" in lines
  assert "  process 0 of 3: 7 outcomes, running, last heard of" in lines[1]
  assert lines[2] == "  process 1 of 3: 7 outcomes, done"
  assert "  process 2 of 3: 7 outcomes, silent, last heard of 1 h" in lines[3]
  assert lines[4] == "  a process is writing"
  ended = run("verify", f"--output={output}")
  assert ended.code == 0
  assert "1 outcome (1 cloaked)" in ended.said


REASONS = ("zero bytes", "truncated")


def test_the_first_failed_files_are_named_and_all_on_demand(folders):
  """Names that would command a terminal appear as what they are."""
  _, output = folders
  evil = "evil\x1b[31m\nname\u202egpj.jpg"
  with manifest.Manifest(output) as record:
    record.append(row("0/" + evil, "failed", reason="zero bytes"))
    for number in range(1, 25):
      reason = "truncated" if number % 2 else "zero bytes"
      record.append(row(f"{number:02}", "failed", reason=reason))
    record.append(row("fine"))
  said = run("status", f"--output={output}").said
  shown = r"  failed: 0/evil\x1b[31m\nname\u202egpj.jpg.jpg: zero bytes"
  assert shown in said.splitlines()
  assert "  13 failed: zero bytes\n  12 failed: truncated\n" in said
  named = [line for line in said.splitlines() if line.endswith(REASONS)]
  assert sum(line.startswith("  failed: ") for line in named) == 10
  all_of_them = f"fawkes-jax status --failed --output={output}"
  assert f"  failed: 15 more, see {all_of_them}\n" in said
  lines = run(*all_of_them.split()[1:]).said.splitlines()
  assert len(lines) == 1 + 25
  assert shown in lines
  assert "  failed: 24.jpg: zero bytes" in lines
  assert not any("fine" in line for line in lines)


def test_photos_in_which_a_face_is_likely_are_named(folders):
  _, output = folders
  likely = {"box": [1, 2, 30, 40], "score": 0.375}
  with manifest.Manifest(output) as record:
    record.append(row("maybe", "no_face", likely=likely, output_sha256="0"))
    record.append(row("out", "no_face", likely=likely))
    record.append(row("wall", "no_face"))
  told = "no face was found, but one is likely at 1,2 to 30,40"
  for flags in ((), ("--failed",)):
    said = run("status", f"--output={output}", *flags).said
    assert f"  copied: maybe.jpg: {told}" in said.splitlines()
    assert f"  left out: out.jpg: {told}" in said.splitlines()
    assert "wall" not in said


def test_other_files_are_counted_by_their_kind(folders):
  _, output = folders
  with manifest.Manifest(output) as record:
    for name in ("a.MP4", "b.mp4", "c.xmp", "README"):
      fields = {"path": name, "config": "c", "reason": "not an image"}
      record.append(manifest.Row(status="copied", **fields))
  said = run("status", f"--output={output}").said
  assert "4 copied" in said
  assert (
    "4 other files copied unchanged, faces and all (2 .mp4, 1"
    " no suffix, 1 .xmp)"
  ) in said
