"""`fawkes-jax benchmark --parts=host`. No test looks at a clock."""

import json
import os

import PIL.Image
import pytest
import terminal

from fawkes_jax import types
from fawkes_jax.benchmarking import hosting, scenes
from fawkes_jax.options import BenchmarkOptions
from fawkes_jax.photos import codec


def test_scenes_are_what_they_are_called():
  data = scenes.scene(400, 300, 2, face=80, quality=80, seed=3)
  assert data == scenes.scene(400, 300, 2, face=80, quality=80, seed=3)
  assert data != scenes.scene(400, 300, 2, face=80, quality=80, seed=4)
  photo = codec.decode(data, max_pixels=10**6)
  assert (photo.shape, photo.subsampling) == ((300, 400), "4:2:0")


@pytest.mark.slow
@pytest.mark.processes
def test_what_the_host_costs(small_astronaut, tmp_path, monkeypatch):
  photos = tmp_path / "photos"
  photos.mkdir()
  PIL.Image.fromarray(small_astronaut).save(photos / "a.jpg", quality=90)
  PIL.Image.new("RGB", (200, 160), "teal").save(photos / "wall.png")
  monkeypatch.setattr(hosting, "COUNTS", (1, 2))
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
  code, said, errors = terminal.run(
    *("benchmark", "--parts=host", f"--data={photos}", "--rounds=1"),
    *(f"--output={tmp_path / 'out'}", "--round_seconds=0", "--crop_size=64"),
    *("--surrogates=dlib_resnet", "--faces_per_second=50"),
    "--min_face_pixels=80",
  )
  assert (code, errors) == (0, "")
  tables = json.loads((tmp_path / "out" / "benchmark.json").read_text())[
    "tables"
  ]
  stages = {row["stage"]: row for row in tables["host stages"]}
  assert {"decode", "align", "read coefficients, fit, encode"} < set(stages)
  assert all(row["CPU ms a photo"]["value"] >= 0 for row in stages.values())
  runs = tables["host"]
  assert [(r["processes"], r["threads each"]) for r in runs] == [
    (1, 1), (1, 2), (2, 1)
  ]  # fmt: skip
  for row in runs:
    assert row["problem"] is None
    assert row["faces a photo"] == 0.5
    spent = row["CPU ms a photo"]["value"]
    # Two photos for each face.
    assert row["cores for 50 faces/s"]["value"] == pytest.approx(
      50 * 2 * spent / 1e3, rel=1e-3
    )
    assert row["main thread ms a photo"]["value"] <= spent
    assert 0 < row["main thread busy"]["value"] <= 1
  assert "Everything but what devices do" in said


def test_a_speed_of_nothing_is_refused(tmp_path):
  with pytest.raises(types.FawkesError, match="faces_per_second must be in"):
    BenchmarkOptions(output=tmp_path, faces_per_second=0.0)
