"""What a run tells other programs."""

import json
import socket
import urllib.request

import pytest
import servers

from fawkes_jax import types
from fawkes_jax.archive import manifest
from fawkes_jax.commands import telemetry
from fawkes_jax.options import CloakOptions
from fawkes_jax.runs import outcomes


def outcome(path, status="cloaked", reason=None, faces=0, fresh=True):
  row = manifest.Row(
    path=path,
    status=status,
    reason=reason,
    config="c",
    faces=tuple({} for _ in range(faces)),
  )
  return outcomes.Outcome(row=row, fresh=fresh)


OUTCOMES = (
  outcome("a.jpg", faces=2),
  outcome("b.jpg", faces=3, fresh=False),
  outcome("c.jpg", "failed", "c.jpg cannot be written: No space left"),
  outcome("d.jpg", "failed", "d.jpg cannot be written: No space left"),
  outcome("e.jpg", "failed", "more than 1000 pixels"),
  outcome("f.jpg", "no_face"),
)


def test_metrics():
  port = servers.free_port()
  metrics = telemetry.Metrics(port)
  metrics.listed(9)
  for item in OUTCOMES:
    metrics.looked()
    metrics.settled(item)
  metrics.spent("loading", 0.5)
  metrics.spent("loading", 0.25)
  with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
    lines = answer.read().decode().splitlines()
  values = dict(
    line.rsplit(" ", 1) for line in lines if not line.startswith("#")
  )
  values = {k: float(v) for k, v in values.items() if "_created" not in k}
  assert values == {
    "fawkes_jax_files": 9,
    'fawkes_jax_photos_total{status="cloaked"}': 2,
    'fawkes_jax_photos_total{status="failed"}': 3,
    'fawkes_jax_photos_total{status="no_face"}': 1,
    'fawkes_jax_failures_total{reason="No space left"}': 2,
    'fawkes_jax_failures_total{reason="more than N pixels"}': 1,
    "fawkes_jax_faces_total": 2,
    "fawkes_jax_earlier_total": 1,
    "fawkes_jax_looked_through_total": 6,
    'fawkes_jax_stage_seconds_total{stage="loading"}': 0.75,
  }


def test_a_port_that_is_taken():
  with socket.socket() as taken:
    taken.bind(("0.0.0.0", 0))
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(types.FawkesError, match=f"--metrics_port={port} must"):
      telemetry.Metrics(port)


def test_json_lines(capsys, monkeypatch):
  monkeypatch.setattr(telemetry, "_PROGRESS_EVERY", 0.0)
  options = CloakOptions(
    input="s3://b/in", output="out", num_processes=4, process_id=2
  )
  log = telemetry.JsonLog(options)
  log.listed(9)
  for item in OUTCOMES[:3]:
    log.settled(item)
  lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
  assert [line["event"] for line in lines] == [
    "begun", "listed", "progress", "progress", "failed", "progress"
  ]  # fmt: skip
  for line in lines:
    assert line["time"].endswith("+00:00")
    assert (line["process"], line["processes"]) == (2, 4)
  assert lines[0]["input"] == "s3://b/in"
  assert lines[0]["config"] == options.fingerprint()
  assert lines[1]["files"] == 9
  assert lines[4]["path"] == "c.jpg"
  assert lines[4]["reason"] == "c.jpg cannot be written: No space left"
  assert lines[5]["files"] == 3
  assert lines[5]["faces"] == 5
  assert lines[5]["fresh faces"] == 2


def test_several_are_told_everything():
  told = []

  class Telling(outcomes.Watcher):
    def __getattribute__(self, name):
      return lambda *args: told.append((name, *args))

  several = telemetry.Several([Telling(), Telling()])
  names = [n for n in vars(outcomes.Watcher) if not n.startswith("_")]
  assert len(names) == 8
  for name in names:
    count = {"looked": 0, "spent": 2}.get(name, 1)
    getattr(several, name)(*range(count))
    assert told == 2 * [(name, *range(count))]
    told.clear()
