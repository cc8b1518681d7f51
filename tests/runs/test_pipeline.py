"""A small archive through the command line, and what became of it."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import hiding
import numpy as np
import pytest
import skimage.metrics
from PIL import Image
from terminal import run

from fawkes_jax.archive import files, index, manifest, others
from fawkes_jax.faces import finder
from fawkes_jax.imaging import views
from fawkes_jax.runs import outcomes, pipeline

pytestmark = pytest.mark.slow

STEPS = 6
FLAGS = (
  *(f"--steps={STEPS}", "--crop_size=160", "--batch_size=2"),
  *("--surrogates=dlib_resnet", "--rho=0.012"),
)
LIMIT = "--max_pixels=200000"
RHO = 0.012
LATIN_1 = os.fsdecode(b"caf\xe9.png")

# Files that cost only themselves: status and reason of their rows.
BAD = {
  ".hidden.jpg": ("skipped", "hidden"),
  "animated.webp": ("failed", "animated or multi-page: more than one frame"),
  "bomb.png": (
    "failed",
    "500 x 500 is more than 200000 pixels, the limit against decompression"
    " bombs (--max_pixels)",
  ),
  "cmyk.jpg": ("failed", "CMYK is not supported"),
  "corrupted.png": ("failed", "corrupted"),
  "empty.jpg": ("failed", "zero bytes"),
  "link.jpg": ("skipped", "a symbolic link that leads out of the input"),
  "painted.gif": (
    "failed",
    "a GIF holds 256 colours at most, which no cloak fits into",
  ),
  "sixteen.png": ("failed", "more than 8 bits per sample are not supported"),
  "text.jpg": ("failed", "not an image, or damaged at its start"),
  "trip/truncated.jpg": ("failed", "truncated"),
}
# An empty document of Photoshop: a header, and three blocks of no length.
PSD = b"".join(
  (b"8BPS\0\1", bytes(6), b"\0\3\0\0\0\1\0\0\0\1\0\x08\0\3", bytes(17))
)
CLOAKED = ("astronaut.jpg", "grey.jpg", "trip/deep/two.png")


def cloak(source, output, *flags):
  return run("cloak", f"--input={source}", f"--output={output}", *FLAGS, *flags)


def rows_of(output):
  lines = (output / "manifest.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert len({row["path"] for row in rows}) == len(rows)
  return {row["path"]: row for row in rows}


def sha256(path):
  return hashlib.sha256(path.read_bytes()).hexdigest()


def tree(folder):
  """Name, time and bytes of all files but the record."""
  return {
    str(path.relative_to(folder)): (path.stat().st_ctime_ns, path.read_bytes())
    for path in sorted(folder.rglob("*"))
    if path.is_file() and "manifest" not in str(path.relative_to(folder))
  }


def bytes_of(folder):
  return {name: data for name, (_, data) in tree(folder).items()}


def write_photos(folder, astronaut):
  """Three photos with four faces, and one without."""
  (folder / "trip" / "deep").mkdir(parents=True)
  exif = Image.Exif()
  exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.25)
  exif[0x010F] = "Maker"
  Image.fromarray(astronaut).save(
    folder / "astronaut.jpg", quality=90, exif=exif
  )
  small = Image.fromarray(astronaut).resize((192, 192), Image.LANCZOS)
  small.convert("L").save(folder / "grey.jpg", quality=85)
  two = Image.new("RGB", (384, 192))
  two.paste(small, (0, 0))
  two.paste(small, (192, 0))
  two.save(folder / "trip" / "deep" / "two.png")
  wall = np.linspace(0, 200, 160 * 120 * 3).reshape(120, 160, 3)
  Image.fromarray(wall.astype(np.uint8)).save(folder / "wall.png")


@pytest.fixture(scope="module")
def photos(tmp_path_factory, small_astronaut):
  folder = tmp_path_factory.mktemp("photos")
  write_photos(folder, small_astronaut)
  return folder


def write_bad(folder, outside):
  good = (folder / "astronaut.jpg").read_bytes()
  (folder / ".hidden.jpg").write_bytes(good)
  frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
  frames[0].save(
    folder / "animated.webp", save_all=True, append_images=frames[1:]
  )
  Image.new("RGB", (500, 500)).save(folder / "bomb.png")
  Image.new("CMYK", (64, 64)).save(folder / "cmyk.jpg")
  png = bytearray((folder / "wall.png").read_bytes())
  png[60:90] = bytes(30)
  (folder / "corrupted.png").write_bytes(png)
  (folder / "empty.jpg").write_bytes(b"")
  outside.write_bytes(good)
  (folder / "link.jpg").symlink_to(outside)
  (folder / "notes.txt").write_text("Buy milk.")
  frames[0].save(folder / "painted.gif")
  Image.fromarray(np.full((64, 64), 40000, np.uint16)).save(
    folder / "sixteen.png"
  )
  (folder / "text.jpg").write_text("Not a photo at all.")
  (folder / "trip" / "truncated.jpg").write_bytes(good[: len(good) // 2])


@pytest.fixture(scope="module")
def archive(tmp_path_factory, small_astronaut):
  """A folder with everything in it."""
  folder = tmp_path_factory.mktemp("archive")
  write_photos(folder, small_astronaut)
  write_bad(folder, tmp_path_factory.mktemp("outside") / "secret.jpg")
  with contextlib.suppress(OSError):  # Some file systems take UTF-8 only.
    shutil.copy(folder / "wall.png", folder / LATIN_1)
  return folder


@pytest.fixture(scope="module")
def done(archive, tmp_path_factory):
  """The archive, cloaked: the run, its folder and its rows."""
  output = tmp_path_factory.mktemp("cloaked") / "not" / "there" / "yet"
  before = tree(archive)
  result = cloak(archive, output, LIMIT)
  assert tree(archive) == before
  return result, output, rows_of(output)


def test_every_file_has_one_row(archive, done):
  _, _, rows = done
  names = {
    str(path.relative_to(archive))
    for path in archive.rglob("*")
    if not path.is_dir()
  }
  expected = {n.replace(LATIN_1, "caf\\xe9.png") for n in names}
  assert set(rows) == expected


def test_same_tree_and_names(archive, done):
  _, output, rows = done
  written = {path for path, row in rows.items() if row["output_sha256"]}
  assert written >= {*CLOAKED, "wall.png", "notes.txt"}
  assert set(tree(output)) == {
    name.replace("caf\\xe9.png", LATIN_1) for name in written
  }
  assert not list(output.rglob("*.tmp"))


@pytest.mark.parametrize("name", BAD)
def test_bad_files_get_a_reason(done, name):
  _, output, rows = done
  status, reason = BAD[name]
  assert rows[name]["status"] == status
  assert reason in rows[name]["reason"]
  assert rows[name]["faces"] == []
  assert rows[name]["output_sha256"] is None
  assert not (output / name).exists()


def test_the_summary_gives_counts_and_reasons(done):
  result, output, rows = done
  assert result.code == 1
  count = {}
  for row in rows.values():
    count[row["status"]] = count.get(row["status"], 0) + 1
  said = " ".join(result.said.split())
  for status, number in count.items():
    assert f"{number} {status}" in said
  for name, (status, reason) in BAD.items():
    where = f"{name}: " if status == "failed" else ""
    assert f"{status}: {where}{reason}" in said
  cloaked = [face for row in rows.values() for face in row["faces"]]
  mean = np.mean([face["dssim"] for face in cloaked])
  assert f"mean DSSIM {mean:.4f}" in said
  cosines = [face["extractors"]["dlib_resnet"]["cosine"] for face in cloaked]
  less = 100 * (1 - np.mean(np.clip(cosines, 0, 1)))
  assert (
    f"{len(cloaked)} faces look {less:.0f} % less like the person to one"
    " recogniser that cloaks are made against"
  ) in said
  assert "1 other file copied" in said
  assert str(output) in said.replace(" ", "") or str(output) in said
  # Plain lines, without a terminal's control codes.
  assert "\x1b" not in result.said
  assert "\r" not in result.said
  first, second = result.said.splitlines()[:2]
  assert first == "preparing, about 30 s more on the first run"
  assert second == f"{len(rows)} files"


def test_rows_have_the_fields_and_they_are_true(archive, done):
  _, output, rows = done
  fingerprints = {row["config"] for row in rows.values()}
  assert len(fingerprints) == 1
  for path, row in rows.items():
    assert set(row) == {
      *("path", "status", "reason", "source_sha256", "output_sha256"),
      *(
        "config",
        "seconds",
        "finished",
        "faces",
        "place",
        "smallest_face",
        "output",
        "likely",
        "lost",
        "decisions",
        "names",
      ),
    }
    name = path.replace("caf\\xe9.png", LATIN_1)
    if row["status"] in ("cloaked", "no_face", "copied"):
      assert row["source_sha256"] == sha256(archive / name)
      assert row["output_sha256"] == sha256(output / name)
  for name, count in zip(CLOAKED, (1, 1, 2), strict=True):
    row = rows[name]
    assert row["status"] == "cloaked"
    assert row["reason"] is None
    assert row["seconds"] > 0
    assert len(row["faces"]) == count
    for face in row["faces"]:
      assert set(face) == {
        *("box", "target", "steps", "dssim", "linf", "extractors", "photos")
      }
      assert 1 <= face["steps"] <= STEPS
      assert face["target"].startswith("bank/")
      assert set(face["extractors"]) == {"dlib_resnet"}
      assert set(face["extractors"]["dlib_resnet"]) == {"shift", "cosine"}


@pytest.mark.parametrize("name", CLOAKED)
def test_measurements_are_of_the_saved_file(
  archive, done, recognition, cloaker, name
):
  """Decoded by Pillow, measured by scikit-image and the bare extractor."""
  _, output, rows = done
  before = np.asarray(Image.open(archive / name).convert("RGB"))
  after = np.asarray(Image.open(output / name).convert("RGB"))
  [faces] = recognition.finder.find([before])
  crops = np.stack([face.cut(after) for face in faces])
  assert [list(face.box) for face in faces] == [
    face["box"] for face in rows[name]["faces"]
  ]
  [extractor] = recognition.extractors
  for face, crop, row in zip(faces, crops, rows[name]["faces"], strict=True):
    left, top, right, bottom = row["box"]
    difference = np.abs(after.astype(int) - before.astype(int))
    assert row["linf"] == difference[top:bottom, left:right].max() > 0
    _, full = skimage.metrics.structural_similarity(
      face.cut(before),
      crop,
      data_range=255,
      channel_axis=-1,
      gaussian_weights=True,
      sigma=1.5,
      use_sample_covariance=False,
      full=True,
    )
    inner = np.s_[5:-5, 5:-5]
    dssim = (face.weights[inner][..., None] * (1 - full[inner])).sum() / 6
    assert row["dssim"] == pytest.approx(dssim, abs=1e-5)
    assert 0.3 * RHO < row["dssim"] <= RHO
    old, new = (
      extractor.embed(
        np.asarray(
          views.still_view(
            c, np.float32(face.alignment.side), extractor.template, 150
          )
        )[None]
      )[0]
      for c in (face.crop, crop)
    )
    shift = np.linalg.norm(new - old)
    measured = row["extractors"]["dlib_resnet"]
    # What is known of the original is kept as half floats.
    assert measured["shift"] == pytest.approx(shift, abs=5e-4)
    assert measured["shift"] > 0.2
    centre = cloaker.centres["dlib_resnet"]
    cosine = np.dot(new - centre, old - centre) / (
      np.linalg.norm(new - centre) * np.linalg.norm(old - centre)
    )
    assert measured["cosine"] == pytest.approx(cosine, abs=5e-4)


@pytest.mark.parametrize("name", CLOAKED)
def test_nothing_else_is_disturbed(archive, done, recognition, name):
  """Beyond the faces' crops, and a JPEG's blocks that they touch, no pixel."""
  _, output, _ = done
  with Image.open(archive / name) as source, Image.open(output / name) as cloak:
    assert cloak.mode == source.mode
    assert cloak.size == source.size
    assert cloak.format == source.format
    assert cloak.getexif().get(0x010F) == source.getexif().get(0x010F)
    assert dict(cloak.getexif().get_ifd(0x8825)) == dict(
      source.getexif().get_ifd(0x8825)
    )
    before = np.asarray(source.convert("RGB")).astype(int)
    after = np.asarray(cloak.convert("RGB")).astype(int)
  far = np.ones(before.shape[:2], bool)
  margin = 24 if name.endswith("jpg") else 2
  for face in recognition.finder.find([before.astype(np.uint8)])[0]:
    aligned = face.alignment
    corner = np.array([0, 1, 1j, 1 + 1j]) * aligned.side
    z = aligned.origin + aligned.axis * corner
    left, right = z.real.min() - margin, z.real.max() + margin
    top, bottom = z.imag.min() - margin, z.imag.max() + margin
    far[max(int(top), 0) : int(bottom), max(int(left), 0) : int(right)] = False
  assert far.mean() > 0.1
  np.testing.assert_array_equal(after[far], before[far])
  assert (after != before).any()


def test_greyscale_stays_greyscale(done):
  _, output, _ = done
  with Image.open(output / "grey.jpg") as image:
    assert image.mode == "L"


def test_what_a_run_wrote_is_whole(archive, done):
  _, output, rows = done
  ended = run("verify", f"--input={archive}", f"--output={output}")
  assert ended.code == 0, ended.said
  assert f"{len(rows)} outcomes" in ended.said


def test_two_faces_of_one_photo_have_two_targets(done):
  """The same face is in all photos, twice in one: so there are two people."""
  _, _, rows = done
  one, other, pair = (
    [face["target"] for face in rows[name]["faces"]] for name in CLOAKED
  )
  assert len(set(pair)) == 2
  assert {*one, *other} <= set(pair)


@pytest.fixture(scope="module")
def person(tmp_path_factory, small_astronaut):
  """Two photos of a person that differ."""
  folder = tmp_path_factory.mktemp("person")
  Image.fromarray(small_astronaut).save(folder / "a.png")
  Image.fromarray(small_astronaut[:, ::-1]).save(folder / "b.png")
  return folder


def test_all_photos_of_a_person_count(person, tmp_path):
  """Also after the other ones are done."""
  output = tmp_path / "out"
  assert cloak(person, output).code == 0
  rows = rows_of(output)
  assert (
    rows["a.png"]["faces"][0]["target"] == (rows["b.png"]["faces"][0]["target"])
  )
  together = (output / "a.png").read_bytes()
  single = tmp_path / "single"
  single.mkdir()
  shutil.copy(person / "a.png", single)
  assert cloak(single, tmp_path / "alone").code == 0
  assert (tmp_path / "alone" / "a.png").read_bytes() != together
  (output / "a.png").unlink()
  assert cloak(person, output).code == 0
  assert (output / "a.png").read_bytes() == together


def test_two_people_are_decoys_of_each_other(two_people, cloaker, tmp_path):
  """In the saved files; not where --targets=bank. Also when it is continued."""
  source = tmp_path / "in"
  source.mkdir()
  for name, photo in zip(("a1", "a2", "b1", "b2"), two_people, strict=True):
    Image.fromarray(photo).save(source / f"{name}.png")

  def seen(folder):
    found = cloaker.recognition.finder.find(
      [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]
    )
    raw = cloaker.recognition.embed([face for [face] in found])
    return cloaker.normalised(raw)["dlib_resnet"]

  def aims(folder):
    rows = rows_of(folder)
    return [rows[f"{n}.png"]["faces"][0]["target"] for n in ("a1", "a2", "b1")]

  outputs = {kind: tmp_path / kind for kind in ("archive", "bank")}
  for kind, output in outputs.items():
    assert cloak(source, output, f"--targets={kind}", "--steps=12").code == 0
  ours, theirs = seen(outputs["archive"]), seen(outputs["bank"])
  a, b = np.split(seen(source), 2)
  for cloaks, bank, decoys in (
    (ours[:2], theirs[:2], b),
    (ours[2:], theirs[2:], a),
  ):
    assert (cloaks @ decoys.T).min() > (bank @ decoys.T).max() + 0.1
  first, same, other = aims(outputs["archive"])
  digests = {sha256(path)[:16] for path in sorted(source.glob("*"))}
  assert first == same != other
  for name in (first, other):
    kind, digest, number = name.split("/")
    assert (kind, number) == ("archive", "0") and digest in digests
  assert all(name.startswith("bank/") for name in aims(outputs["bank"]))
  before = bytes_of(outputs["archive"])
  (outputs["archive"] / "b2.png").unlink()
  again = ("--targets=archive", "--steps=12")
  assert cloak(source, outputs["archive"], *again).code == 0
  assert bytes_of(outputs["archive"]) == before


def test_the_order_of_names_does_not_matter(done, photos, tmp_path):
  """A person is who the archive shows; photos are known by their content."""
  _, output, rows = done
  other = tmp_path / "in"
  other.mkdir()
  names = {"astronaut.jpg": "z.jpg", "grey.jpg": "a.jpg"}
  names |= {"trip/deep/two.png": "m.png", "wall.png": "b.png"}
  for name, renamed in names.items():
    shutil.copy(photos / name, other / renamed)
  assert cloak(other, tmp_path / "out").code == 0
  result = bytes_of(tmp_path / "out")
  for name, renamed in names.items():
    assert result[renamed] == (output / name).read_bytes()
  again = rows_of(tmp_path / "out")
  for name in CLOAKED:
    targets = [face["target"] for face in rows[name]["faces"]]
    assert [f["target"] for f in again[names[name]]["faces"]] == targets


def test_a_person_keeps_its_target_when_photos_join(person, tmp_path):
  source, output = tmp_path / "in", tmp_path / "out"
  source.mkdir()
  shutil.copy(person / "a.png", source)
  assert cloak(source, output).code == 0
  [face] = rows_of(output)["a.png"]["faces"]
  # As if it had been another one, which the rule would not choose again.
  name = next(f"bank/{i}" for i in range(2) if f"bank/{i}" != face["target"])
  record = output / "manifest.jsonl"
  record.write_text(
    record.read_text().replace(f'"{face["target"]}"', f'"{name}"')
  )
  shutil.copy(person / "b.png", source)
  assert cloak(source, output).code == 0
  rows = rows_of(output)
  assert [f["target"] for f in rows["b.png"]["faces"]] == [name]


def test_what_is_known_of_faces_goes_unless_it_is_to_stay(
  photos, tmp_path, monkeypatch
):
  output = tmp_path / "out"
  assert cloak(photos, output).code == 0
  assert not (output / index.FOLDER).exists()
  assert cloak(photos, output, "--strip_location", "--keep_index").code == 0
  kept = {path.name for path in (output / index.FOLDER).iterdir()}
  assert {"people.parquet", "people-faces.parquet"} < kept

  def look(self, photos):
    raise AssertionError("photos were looked at again")

  monkeypatch.setattr(finder.Finder, "look", look)
  faceless = ("wall.png",)
  source = tmp_path / "in"
  shutil.copytree(photos, source)
  for name in faceless:
    (source / name).unlink()
  again = cloak(source, output, "--strip_names", "--keep_index")
  assert again.code == 0, again.said
  assert rows_of(output)["astronaut.jpg"]["status"] == "cloaked"


def test_a_photo_that_changes_meanwhile(photos, tmp_path, cloaker, monkeypatch):
  source = tmp_path / "in"
  source.mkdir()
  for name in ("astronaut.jpg", "grey.jpg"):
    shutil.copy(photos / name, source / name)
  options = dataclasses.replace(
    cloaker.options, input=source, output=tmp_path / "out"
  )
  rows = {}

  class Exchanging(outcomes.Watcher):
    def looked(self):
      shutil.copy(photos / "wall.png", source / "astronaut.jpg")

    def settled(self, outcome):
      rows[outcome.row.path] = outcome.row

  pipeline.cloak_archive(options, Exchanging(), cloaker=cloaker)
  assert rows["grey.jpg"].status == "cloaked"
  assert rows["astronaut.jpg"].status == "failed"
  assert rows["astronaut.jpg"].reason == "changed while it was being cloaked"


def test_photos_without_a_face_are_copied(archive, done):
  _, output, rows = done
  for name in ("wall.png", LATIN_1):
    if (archive / name).exists():
      row = rows[name.replace(LATIN_1, "caf\\xe9.png")]
      assert row["status"] == "no_face"
      assert (output / name).read_bytes() == (archive / name).read_bytes()


def test_same_bytes_whatever_else_is_there(done, photos, tmp_path):
  """Other runs, other companions: same photo, same flags, same bytes."""
  _, output, _ = done
  assert cloak(photos, tmp_path / "a").code == 0
  again = bytes_of(tmp_path / "a")
  assert {name: bytes_of(output)[name] for name in again} == again


def test_running_again(photos, tmp_path):
  """Does nothing for finished photos, and what is left of the rest."""
  source, output = tmp_path / "in", tmp_path / "out"
  source.mkdir()
  for name in ("astronaut.jpg", "wall.png"):
    shutil.copy(photos / name, source / name)
  assert cloak(source, output).code == 0
  first, rows = tree(output), rows_of(output)

  second = cloak(source, output)
  assert second.code == 0
  assert tree(output) == first
  assert rows_of(output) == rows
  assert "2 of them by an earlier run" in second.said

  # A lost output is made again, to the same bytes; nothing else is.
  (output / "astronaut.jpg").unlink()
  third = cloak(source, output)
  assert "1 of them by an earlier run" in third.said
  assert "1 done again: output missing" in third.said
  assert bytes_of(output) == {n: data for n, (_, data) in first.items()}
  assert tree(output)["wall.png"] == first["wall.png"]

  # A changed source.
  with Image.open(source / "wall.png") as wall:
    wall.rotate(180).save(source / "wall.png")
  fourth = cloak(source, output)
  assert "1 done again: changed source" in fourth.said
  assert rows_of(output)["wall.png"]["source_sha256"] == sha256(
    source / "wall.png"
  )
  assert bytes_of(output)["wall.png"] == (source / "wall.png").read_bytes()

  # A changed configuration: everything.
  fifth = cloak(source, output, "--strip_location")
  assert "2 done again: changed configuration" in fifth.said
  assert rows_of(output)["wall.png"]["config"] != rows["wall.png"]["config"]
  for folder, has_gps in ((source, True), (output, False)):
    with Image.open(folder / "astronaut.jpg") as image:
      assert bool(image.getexif().get_ifd(0x8825)) == has_gps
      assert image.getexif()[0x010F] == "Maker"


def test_what_is_lost_and_who_is_named_is_said(photos, tmp_path):
  source = tmp_path / "in"
  source.mkdir()
  data = (photos / "astronaut.jpg").read_bytes()
  packet = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:m="urn:m" xmlns:mwg-rs="urn:r">'
    b'<mwg-rs:Regions mwg-rs:Name="Jane Doe"/></x:xmpmeta>'
  )
  xmp = hiding.segment(0xE1, b"http://ns.adobe.com/xap/1.0/\x00" + packet)
  (source / "a.jpg").write_bytes(data[:2] + xmp + data[2:] + data)
  done = cloak(source, tmp_path / "out")
  row = rows_of(tmp_path / "out")["a.jpg"]
  assert row["lost"] == ["second picture"]
  assert row["names"] is True
  assert "taken out or lost: 1 second picture" in done.said
  assert done.said.count("--strip_names") == 1
  done = cloak(source, tmp_path / "out", "--strip_names")
  row = rows_of(tmp_path / "out")["a.jpg"]
  assert row["lost"] == ["second picture"]
  assert row["names"] is False
  assert "--strip_names" not in done.said
  assert b"Jane" not in (tmp_path / "out" / "a.jpg").read_bytes()


def test_failed_photos(photos, tmp_path):
  """Are tried again when they have changed, or when asked for."""
  source, output = tmp_path / "in", tmp_path / "out"
  source.mkdir()
  whole = (photos / "wall.png").read_bytes()
  (source / "wall.png").write_bytes(whole[:100])
  assert cloak(source, output).code == 1
  assert rows_of(output)["wall.png"]["status"] == "failed"
  again = cloak(source, output)
  assert again.code == 1
  assert "1 failed in an earlier run; --retry_failed tries" in again.said
  again = cloak(source, output, "--retry_failed")
  assert again.code == 1
  assert "1 done again: failed before" in again.said
  (source / "wall.png").write_bytes(whole)
  assert cloak(source, output).code == 0
  assert bytes_of(output) == {"wall.png": whole}


@pytest.mark.processes
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_and_continued(photos, done, tmp_path, how, wait_for):
  """Ends in the same files as a run that nobody interrupted."""
  output = tmp_path / "out"
  process = subprocess.Popen(
    [
      *(sys.executable, "-m", "fawkes_jax", "cloak"),
      *(f"--input={photos}", f"--output={output}", *FLAGS),
    ],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  )

  def parts():
    return list((output / ".manifest").glob("*.jsonl"))

  wait_for(
    lambda: any(b'"cloaked"' in part.read_bytes() for part in parts()),
    "a cloaked photo",
    300,
  )
  assert process.poll() is None
  process.send_signal(how)
  _, errors = process.communicate()
  if how == signal.SIGTERM:
    assert process.returncode == 143
    assert "terminated; the same command continues" in errors
    assert not list(output.rglob(".fawkes-jax-*"))
  else:
    assert process.returncode == -how
  before = {
    name: value
    for name, value in tree(output).items()
    if not Path(name).name.startswith(".fawkes-jax-")
  }
  assert before
  (part,) = parts()
  for line in part.read_bytes().splitlines(keepends=True):
    if line.endswith(b"\n"):
      row = json.loads(line)
      if row["output_sha256"]:
        assert row["output_sha256"] == sha256(output / row["path"])
  assert cloak(photos, output).code == 0
  assert set(rows_of(output)) == {*CLOAKED, "wall.png"}
  _, undisturbed, _ = done
  for name in (*CLOAKED, "wall.png"):
    assert (output / name).read_bytes() == (undisturbed / name).read_bytes()


def test_target_dir_and_skip(photos, tmp_path, astronaut):
  """The target's folder may have any name, and other files in it."""
  source, output = tmp_path / "in", tmp_path / "out"
  target = tmp_path / os.fsdecode(b"wh\xf6m {0}")
  source.mkdir()
  try:
    target.mkdir()
  except OSError:  # Some file systems take UTF-8 only.
    target = tmp_path / "whom {0}"
    target.mkdir()
  for name in ("grey.jpg", "wall.png"):
    shutil.copy(photos / name, source / name)
  mirrored = np.ascontiguousarray(astronaut[:256, 356:100:-1])
  Image.fromarray(mirrored).save(target / "someone.png")
  (target / "notes.txt").write_text("Not a photo.")
  flags = (f"--target_dir={target}", "--on_no_face=skip")
  assert cloak(source, output, *flags).code == 0
  rows = rows_of(output)
  [face] = rows["grey.jpg"]["faces"]
  assert face["target"] == files.printable(target)
  assert rows["wall.png"]["status"] == "no_face"
  assert rows["wall.png"]["reason"] == "left out, --on_no_face=skip"
  assert list(bytes_of(output)) == ["grey.jpg"]


@pytest.mark.parametrize("what", ["empty", "missing", "faceless"])
def test_a_target_dir_without_a_face(photos, tmp_path, what):
  target = tmp_path / "whom"
  if what != "missing":
    target.mkdir()
  if what == "faceless":
    shutil.copy(photos / "wall.png", target)
  result = cloak(photos, tmp_path / "out", f"--target_dir={target}")
  assert result.code == 2
  assert "--target_dir must" in result.errors
  assert str(target) in result.errors


def test_dry_run_writes_nothing(archive, tmp_path):
  before = tree(archive)
  result = cloak(archive, tmp_path / "out", "--dry_run", LIMIT)
  assert result.code == 0
  said = " ".join(result.said.split())
  assert "3 photos with 4 faces" in said
  assert "nothing was written" in said
  assert "about" in said
  assert "zero bytes" in said
  assert not (tmp_path / "out").exists()
  assert tree(archive) == before


@contextlib.contextmanager
def tiny_disk(folder, size):
  folder.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
  try:
    mounted = subprocess.run(mount, capture_output=True, check=False)
  except OSError:
    pytest.skip("there is no mount command")
  if mounted.returncode:
    pytest.skip("a small file system cannot be mounted here")
  try:
    yield
  finally:
    subprocess.run(["umount", folder], check=True)


def test_no_space_left(photos, tmp_path):
  """The photo that does not fit fails with the reason; the others do not."""
  source, output = tmp_path / "in", tmp_path / "out"
  source.mkdir()
  noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
  Image.fromarray(noise).save(source / "large.png")
  for name in ("grey.jpg", "wall.png"):
    shutil.copy(photos / name, source / name)
  with tiny_disk(output, "100k"):
    result = cloak(source, output)
    rows, written = rows_of(output), bytes_of(output)
    assert sorted(p.name for p in output.iterdir()) == [
      ".manifest.lock", "grey.jpg", "manifest.jsonl", "wall.png"
    ]  # fmt: skip
  assert result.code == 1
  assert rows["large.png"]["status"] == "failed"
  assert (
    "large.png cannot be written: No space left"
    in (rows["large.png"]["reason"])
  )
  assert rows["grey.jpg"]["status"] == "cloaked"
  assert written["wall.png"] == (photos / "wall.png").read_bytes()


def test_no_space_left_for_what_is_seen_of_faces(photos, tmp_path):
  """The run ends with the reason; with more space the same one goes on."""
  source, output = tmp_path / "in", tmp_path / "out"
  source.mkdir()
  shutil.copy(photos / "grey.jpg", source)
  with tiny_disk(output, "4k"):
    result = cloak(source, output)
    more = ["mount", "-o", "remount,size=1m", output]
    subprocess.run(more, capture_output=True, check=True)
    again = cloak(source, output)
    rows = rows_of(output)
  assert result.code == 2
  assert ".manifest/index cannot be used: No space left" in result.errors
  assert again.code == 0
  assert rows["grey.jpg"]["status"] == "cloaked"


def test_a_single_photo(photos, tmp_path):
  result = cloak(photos / "wall.png", tmp_path / "out")
  assert result.code == 0
  assert list(rows_of(tmp_path / "out")) == ["wall.png"]


def test_a_single_photo_to_a_file(photos, tmp_path):
  """`cloak a.png b.png` makes b.png and nothing else, and replaces nothing."""
  output = tmp_path / "new" / "b.png"
  source = photos / "trip" / "deep" / "two.png"
  ended = run("cloak", source, output, *FLAGS)
  assert ended.code == 0
  assert "1 cloaked in" in ended.said
  assert f": {output}\n" in ended.said
  assert [path.name for path in output.parent.iterdir()] == ["b.png"]
  with Image.open(source) as before, Image.open(output) as after:
    assert np.asarray(before).shape == np.asarray(after).shape
    assert (np.asarray(before) != np.asarray(after)).any()
  assert output.stat().st_mtime_ns == source.stat().st_mtime_ns
  made = output.read_bytes()
  for target, rule in (
    (output, "must not be there yet"),
    (source, "must not be there yet"),
    (tmp_path / "b.jpg", "must end in .png: a photo keeps its format"),
  ):
    ended = run("cloak", source, target, *FLAGS)
    assert ended.code == 2
    assert rule in ended.errors
  ended = run("cloak", photos, tmp_path / "x.jpeg", *FLAGS)
  assert ended.code == 2
  assert "must be a folder for more than one photo" in ended.errors
  assert output.read_bytes() == made


def test_times_and_modes_are_kept(photos, tmp_path):
  source, output = tmp_path / "in", tmp_path / "out"
  source.mkdir()
  for number, name in enumerate(("grey.jpg", "wall.png", "a.xmp")):
    if name == "a.xmp":
      (source / name).write_text("<x/>")
    else:
      shutil.copy(photos / name, source / name)
    os.utime(source / name, ns=(1, 10**18 + number))
    (source / name).chmod(0o640 + number)
  cloak(source, output)
  for name in ("grey.jpg", "wall.png", "a.xmp"):
    before, after = (source / name).stat(), (output / name).stat()
    assert after.st_mtime_ns == before.st_mtime_ns
    assert after.st_mode == before.st_mode
  cloak(source, tmp_path / "tar", "--output_format=tar")
  found = {}
  for path in (tmp_path / "tar").glob("*.tar"):
    with tarfile.open(path) as tar:
      found |= {member.name: (member.mtime, member.mode) for member in tar}
  assert found == {
    "grey.jpg": (10**9, 0o640),
    "wall.png": (10**9, 0o641),
    "a.xmp": (10**9, 0o642),
  }


def test_other_files_make_the_same_tree(tmp_path, monkeypatch):
  """Sidecars, videos, also large ones; no picture passes for one of them."""
  monkeypatch.setattr(others, "LARGE", 5000)
  source, output = tmp_path / "in", tmp_path / "out"
  (source / "d").mkdir(parents=True)
  Image.new("RGB", (64, 48), "teal").save(source / "wall.png")
  (source / "wall.xmp").write_text("<x:xmpmeta/>")
  (source / "d" / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(9999))
  (source / "d" / "README").write_text("Hello")
  (source / "layers.bin").write_bytes(PSD)
  (source / "large.bin").write_bytes(PSD + bytes(9999))
  ended = cloak(source, output)
  rows = rows_of(output)
  copied = ("wall.xmp", "d/clip.mp4", "d/README")
  assert {n for n, r in rows.items() if r["status"] == "copied"} == set(copied)
  for name in copied:
    assert (output / name).read_bytes() == (source / name).read_bytes()
  for name in ("layers.bin", "large.bin"):
    assert rows[name]["status"] == "failed"
    assert "(PSD)" in rows[name]["reason"]
  assert ended.code == 1
  assert run("verify", source, output).code == 0
  again = cloak(source, output)
  assert "6 of them by an earlier run" in again.said
  (output / "d" / "clip.mp4").write_bytes(b"")
  said = run("verify", source, output).said
  assert "output altered: d/clip.mp4" in said
  again = cloak(source, output)
  assert "1 done again: output altered\n    d/clip.mp4\n" in again.said
  assert run("verify", source, output).code == 0


def test_other_files_that_are_left_out(tmp_path):
  """On demand, and where they could tell what shall go."""
  source = tmp_path / "in"
  source.mkdir()
  (source / "a.xmp").write_text("<x:xmpmeta/>")
  for number, (flags, status) in enumerate(
    (
      (("--others=skip",), "skipped"),
      (("--strip_location",), "skipped"),
      (("--strip_names",), "skipped"),
      (("--strip_location", "--others=copy"), "copied"),
      ((), "copied"),
    )
  ):
    output = tmp_path / str(number)
    assert cloak(source, output, *flags).code == 0
    assert rows_of(output)["a.xmp"]["status"] == status
    assert (output / "a.xmp").exists() == (status == "copied")
  # Who changes his mind gets them.
  cloak(source, tmp_path / "0", "--others=copy")
  assert (tmp_path / "0" / "a.xmp").exists()


def test_a_foreign_file_in_the_output_stays(photos, tmp_path):
  source, output = tmp_path / "in", tmp_path / "out"
  source.mkdir()
  output.mkdir()
  shutil.copy(photos / "wall.png", source)
  (source / "a.xmp").write_text("mine")
  for name in ("wall.png", "a.xmp"):
    (output / name).write_text("somebody else's")
  for flags in ((), (), ("--retry_failed",)):
    ended = cloak(source, output, *flags)
    assert ended.code == 1
    assert "wall.png: another file of its name is in the output" in ended.said
    assert (output / "wall.png").read_text() == "somebody else's"
    assert (output / "a.xmp").read_text() == "somebody else's"
  for name in ("wall.png", "a.xmp"):
    (output / name).unlink()
  assert cloak(source, output).code == 0
  assert (output / "a.xmp").read_text() == "mine"


def test_a_result_that_a_killed_run_has_left_is_not_foreign(photos, tmp_path):
  """It was written, and its row was not."""
  source, output = tmp_path / "in", tmp_path / "out"
  source.mkdir()
  shutil.copy(photos / "wall.png", source)
  with manifest.Manifest(output) as record:
    record.append(manifest.Row(path="x.jpg", status="failed", config="c"))
  (output / "wall.png").write_text("half of the work")
  assert cloak(source, output).code == 0
  assert (output / "wall.png").read_bytes() == (
    source / "wall.png"
  ).read_bytes()


def test_what_would_overwrite_the_manifest(photos, tmp_path):
  """As in an input that is an earlier output; also where it is a photo."""
  source = tmp_path / "in"
  source.mkdir()
  shutil.copy(photos / "wall.png", source / "manifest.jsonl")
  shutil.copy(photos / "wall.png", source / "wall.png")
  assert cloak(source, tmp_path / "out").code == 0
  rows = rows_of(tmp_path / "out")
  assert rows["manifest.jsonl"]["status"] == "skipped"
  assert "that of the manifest" in rows["manifest.jsonl"]["reason"]
  assert rows["wall.png"]["status"] == "no_face"


def test_a_list_of_what_lies_in_the_output(photos, tmp_path):
  """A list may lead anywhere: never over its own photos."""
  output = tmp_path / "out"
  output.mkdir()
  shutil.copy(photos / "wall.png", output / "mine.png")
  (tmp_path / "list.txt").write_text(
    f"{output}/mine.png\tmine.png\n{photos}/wall.png\twall.png\n"
    f"{photos}/wall.png\t.manifest/000001-0000.jsonl\n"
  )
  assert cloak(tmp_path / "list.txt", output).code == 1
  rows = rows_of(output)
  assert rows["mine.png"]["status"] == "failed"
  assert rows["mine.png"]["reason"] == "it lies in the output"
  assert rows[".manifest/000001-0000.jsonl"]["status"] == "skipped"
  assert rows["wall.png"]["status"] == "no_face"
  assert (output / "wall.png").read_bytes() == (
    photos / "wall.png"
  ).read_bytes()


@pytest.mark.data
def test_odd_files_of_others(data_dir, tmp_path):
  """Corrupted, empty and truncated files as they came, and a palette PNG."""
  source = tmp_path / "in"
  source.mkdir()
  for name in ("corrupted.png", "empty.png", "truncated.jpg"):
    shutil.copy(data_dir / "photos" / "formats" / name, source)
  result = cloak(source, tmp_path / "out")
  assert result.code == 1
  rows = rows_of(tmp_path / "out")
  assert {row["status"] for row in rows.values()} == {"failed"}
  assert all(row["reason"] for row in rows.values())


def test_tar_files(photos, done, tmp_path):
  """Hold the same bytes; what is missing or altered is done again."""
  output = tmp_path / "out"
  assert cloak(photos, output, "--output_format=tar").code == 0
  _, undisturbed, _ = done
  expected = {n: (undisturbed / n).read_bytes() for n in (*CLOAKED, "wall.png")}
  assert tar_contents(output) == expected
  assert run("verify", f"--output={output}", f"--input={photos}").code == 0
  again = cloak(photos, output, "--output_format=tar")
  assert f"{len(expected)} of them by an earlier run" in again.said
  # One of what was copied at first sight, one of what was cloaked then.
  copied, cloaked = sorted(output.glob("*.tar"))
  copied.unlink()
  cloaked.unlink()
  verified = run("verify", f"--output={output}")
  assert verified.code == 1
  assert f"{len(expected)} output missing" in verified.said
  again = cloak(photos, output, "--output_format=tar")
  assert f"{len(expected)} done again: output missing" in again.said
  assert tar_contents(output) == expected
  assert not [path for path in output.iterdir() if path.suffix == ".jpg"]


def tar_contents(output):
  found = {}
  for path in output.glob("*.tar"):
    with tarfile.open(path) as tar:
      for member in tar:
        assert member.name not in found
        found[member.name] = tar.extractfile(member).read()
  return found
