"""What one photo costs: itself; and faces that came out without a cloak."""

import dataclasses
import errno
import json
import logging

import numpy as np
import pytest
from PIL import Image
from terminal import run

from fawkes_jax.archive import manifest
from fawkes_jax.engine import embedder
from fawkes_jax.faces import finder, recognition
from fawkes_jax.imaging import geometry
from fawkes_jax.photos import codec
from fawkes_jax.runs import outcomes, phases, pipeline

pytestmark = pytest.mark.slow

FLAGS = (
  *("--crop_size=160", "--batch_size=2", "--surrogates=dlib_resnet"),
  "--min_face_pixels=60",
)
ODD = 77
"""The first pixel of the photo that nothing can be done with."""


class Kept(outcomes.Tally):
  def __init__(self):
    super().__init__()
    self.rows = {}

  def settled(self, outcome):
    super().settled(outcome)
    self.rows[outcome.row.path] = outcome.row


@pytest.fixture
def folder(tmp_path, small_astronaut):
  """Two photos of a face, and between them one with an odd first pixel."""
  source = tmp_path / "in"
  source.mkdir()
  for name in ("a.png", "b.png", "c.png"):
    pixels = small_astronaut.copy()
    pixels[0, 0] = ODD if name == "b.png" else 10
    Image.fromarray(pixels).save(source / name)
  return source


def cloak(cloaker, source, output, **changes):
  options = dataclasses.replace(
    cloaker.options, input=source, output=output, **changes
  )
  kept = Kept()
  pipeline.cloak_archive(options, kept, cloaker=cloaker)
  return kept


def is_odd(value):
  if isinstance(value, finder.AlignedFace):
    return False
  return isinstance(value, np.ndarray) and (value[0, 0] == ODD).all()


def faulty(original, error, notices):
  """The function, which raises when it meets the odd photo."""

  def act(*arguments, **options):
    if notices(*arguments, **options):
      raise error
    return original(*arguments, **options)

  return act


STAGES = {
  "decoding": (recognition, "decode", lambda *_, **__: False),
  "finding": (
    finder.Finder,
    "look",
    lambda self, photos, *_: any(map(is_odd, photos)),
  ),
  "cropping": (geometry, "extract", lambda pixels, *_, **__: is_odd(pixels)),
  "encoding": (
    codec,
    "encode",
    lambda photo, *_, **__: is_odd(photo.pixels),
  ),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
  "error", [IndexError("5"), RecursionError(), OSError()]
)
def test_one_photo_costs_only_itself(
  cloaker, folder, tmp_path, monkeypatch, caplog, stage, error
):
  place, name, notices = STAGES[stage]
  original = getattr(place, name)
  if stage == "decoding":
    odd = (folder / "b.png").read_bytes()
    notices = lambda data, *_, **__: data == odd  # noqa: E731
  monkeypatch.setattr(place, name, faulty(original, error, notices))
  output = tmp_path / "out"
  with caplog.at_level(logging.ERROR):
    kept = cloak(cloaker, folder, output)
  statuses = {path: row.status for path, row in kept.rows.items()}
  assert statuses == {"a.png": "cloaked", "b.png": "failed", "c.png": "cloaked"}
  assert type(error).__name__ in kept.rows["b.png"].reason
  assert "unexpected" in kept.rows["b.png"].reason
  assert not (output / "b.png").exists()
  [record] = caplog.records
  assert "b.png" in record.getMessage()
  assert "Traceback" in caplog.text
  monkeypatch.undo()
  kept = cloak(cloaker, folder, output, retry_failed=True)
  assert kept.counts["cloaked"] == 3


def test_one_face_that_cannot_be_embedded(
  cloaker, folder, tmp_path, monkeypatch
):
  """Those of several photos are embedded together, or alone if that fails."""
  dark = np.asarray(Image.open(folder / "b.png")) // 2
  Image.fromarray(dark).save(folder / "b.png")
  [[odd]] = cloaker.recognition.finder.find([dark])

  def notices(self, crops, sides):
    return any(np.array_equal(crop, odd.crop) for crop in crops)

  monkeypatch.setattr(
    embedder.Embedder,
    "embed",
    faulty(embedder.Embedder.embed, ValueError("no"), notices),
  )
  kept = cloak(cloaker, folder, tmp_path / "out")
  assert kept.rows["b.png"].status == "failed"
  assert "unexpected ValueError" in kept.rows["b.png"].reason
  assert kept.counts["cloaked"] == 2


@pytest.mark.parametrize(
  "error", [MemoryError(), OSError(errno.ENOSPC, "No space left on device")]
)
def test_memory_and_disk_end_the_run(
  cloaker, folder, tmp_path, monkeypatch, error
):
  """The next photo would meet the same; the same command continues."""
  later = {n: (folder / n).read_bytes() for n in ("b.png", "c.png")}
  for name in later:
    (folder / name).unlink()
  assert cloak(cloaker, folder, tmp_path / "out").counts["cloaked"] == 1
  for name, data in later.items():
    (folder / name).write_bytes(data)
  notices = STAGES["finding"][2]
  with monkeypatch.context() as patch:
    patch.setattr(
      finder.Finder, "look", faulty(finder.Finder.look, error, notices)
    )
    with pytest.raises(type(error)):
      cloak(cloaker, folder, tmp_path / "out")
  assert (
    "no process is writing"
    in run("status", f"--output={tmp_path / 'out'}").said
  )
  assert cloak(cloaker, folder, tmp_path / "out").counts["cloaked"] == 3


def test_a_run_without_any_cloak_says_so(tmp_path, small_astronaut):
  """One step finds none."""
  source, output = tmp_path / "in", tmp_path / "out"
  source.mkdir()
  pixels = np.concatenate([small_astronaut, small_astronaut], axis=1)
  Image.fromarray(small_astronaut).save(source / "one.jpg")
  Image.fromarray(pixels).save(source / "two.png")
  flags = (f"--input={source}", f"--output={output}", *FLAGS, "--steps=1")
  for _ in range(2):  # also of an earlier run
    ended = run("cloak", *flags)
    assert ended.code == 1
    assert "3 faces left unprotected: no cloak was found" in " ".join(
      ended.said.split()
    )
    assert "0 cloaked" not in ended.said
  assert not list(output.glob("*.jpg")) + list(output.glob("*.png"))
  lines = (output / "manifest.jsonl").read_text().splitlines()
  rows = list(map(json.loads, lines))
  assert [row["status"] for row in rows] == ["failed", "failed"]
  assert "its face is left unprotected" in rows[0]["reason"]
  assert "all its 2 faces are left unprotected" in rows[1]["reason"]
  assert all(f["unprotected"] for row in rows for f in row["faces"])
  status = run("status", f"--output={output}")
  assert "3 faces left unprotected" in status.said


def test_what_the_format_would_swallow_is_encoded_finer(
  cloaker, tmp_path, small_astronaut
):
  """Lossy WebP at a budget that its usual loss alone uses up."""
  source = tmp_path / "in"
  source.mkdir()
  Image.fromarray(small_astronaut).save(source / "a.webp", quality=40)
  budget = 0.002
  tight = dataclasses.replace(
    cloaker.options,
    solver=dataclasses.replace(cloaker.options.solver, rho=budget, steps=24),
  )
  from fawkes_jax.faces import cloaker as cloaker_lib

  kept = cloak(
    cloaker_lib.Cloaker(tight), source, tmp_path / "out", solver=tight.solver
  )
  row = kept.rows["a.webp"]
  assert row.status == "cloaked"
  [face] = row.faces
  assert 0.5 * budget < face["dssim"] <= budget
  assert face["extractors"]["dlib_resnet"]["cosine"] < 0.95
  written = (tmp_path / "out" / "a.webp").read_bytes()
  assert written != (source / "a.webp").read_bytes()


def test_one_bare_face_among_others(cloaker, folder, tmp_path, monkeypatch):
  """The photo is written, and everything says that a face in it is bare."""
  pixels = np.asarray(Image.open(folder / "a.png"))
  for name in ("a.png", "b.png", "c.png"):
    (folder / name).unlink()
  two = np.concatenate([pixels, pixels], axis=1)
  Image.fromarray(two).save(folder / "two.png")
  solve = type(cloaker.executor).solve

  def forgetful(self, problems, **options):
    for (job, index), solution in solve(self, problems, **options):
      if index == 1:
        solution = dataclasses.replace(
          solution, change=np.zeros_like(solution.change), dssim=0.0
        )
      yield (job, index), solution

  monkeypatch.setattr(type(cloaker.executor), "solve", forgetful)
  output = tmp_path / "out"
  kept = cloak(cloaker, folder, output)
  row = kept.rows["two.png"]
  assert row.status == "cloaked"
  assert row.reason.startswith("1 of 2 faces is left unprotected: no cloak")
  assert [bool(f.get("unprotected")) for f in row.faces] == [False, True]
  assert (kept.counts["faces"], kept.counts["unprotected"]) == (1, 1)
  verified = run("verify", f"--output={output}", f"--input={folder}")
  assert verified.code == 1
  assert "faces left unprotected: two.png" in verified.said
  assert "1 face left unprotected" in run("status", f"--output={output}").said
  with manifest.reading(output) as (rows, _):
    assert rows.get("two.png").unprotected == row.unprotected


def test_names_of_converted_pictures(
  cloaker, tmp_path, small_astronaut, monkeypatch
):
  """They are beside the source's, and never another file's."""
  source, output = tmp_path / "in", tmp_path / "out"
  source.mkdir()
  image = Image.fromarray(small_astronaut)
  image.convert("CMYK").save(source / "a.jpg", quality=95)
  image.save(source / "b.gif")
  Image.new("RGB", (99, 99)).save(source / "b.gif.png")
  Image.new("RGB", (99, 99)).save(source / "wall.gif")
  kept = cloak(cloaker, source, output, convert=True)
  assert kept.rows["a.jpg"].status == "cloaked"
  assert kept.rows["a.jpg"].output == "a.jpg.jpg"
  assert "written as JPEG: CMYK" in kept.rows["a.jpg"].reason
  assert kept.rows["b.gif"].status == "failed"
  assert "that of b.gif.png" in kept.rows["b.gif"].reason
  assert kept.rows["wall.gif"].status == "no_face"
  names = {p.name for p in output.iterdir() if not p.name.startswith(".")}
  assert names == {"a.jpg.jpg", "b.gif.png", "wall.gif.png", "manifest.jsonl"}
  ended = run("verify", f"--output={output}", f"--input={source}")
  assert ended.code == 0, ended.said
  (output / "a.jpg.jpg").unlink()
  kept = cloak(cloaker, source, output, convert=True)
  assert (output / "a.jpg.jpg").exists()
  # One after the other: the later file has to give way.
  other = tmp_path / "other"
  monkeypatch.setattr(phases, "_SOME", 1)
  kept = cloak(cloaker, source, other, convert=True)
  assert kept.rows["b.gif"].output == "b.gif.png"
  assert kept.rows["b.gif.png"].status == "failed"
  assert "that of b.gif, converted" in kept.rows["b.gif.png"].reason
