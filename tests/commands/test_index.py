"""An archive that is only looked through, and what is left of it."""

import base64
import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from terminal import run

from fawkes_jax.archive import index, manifest, names
from fawkes_jax.faces import finder

pytestmark = pytest.mark.slow

FLAGS = ("--crop_size=160", "--batch_size=2", "--surrogates=dlib_resnet")


@pytest.fixture(scope="module")
def archive(tmp_path_factory, small_astronaut):
  """A person in two photos, a wall, and a file that is no photo."""
  folder = tmp_path_factory.mktemp("archive")
  Image.fromarray(small_astronaut).save(folder / "a.png")
  Image.fromarray(small_astronaut[:, ::-1]).save(folder / "b.png")
  Image.new("RGB", (99, 99)).save(folder / "wall.png")
  (folder / "empty.jpg").write_bytes(b"")
  return folder


def test_cloaking_needs_not_look_again_after_an_index(
  archive, tmp_path, monkeypatch
):
  output = tmp_path / "out"
  ended = run("index", f"--input={archive}", f"--output={output}", *FLAGS)
  assert ended.code == 0, ended.said
  assert "3 photos looked through (0 of them before)" in ended.said
  assert "2 faces of 1 person in the archive" in ended.said
  assert "1 zero bytes" in ended.said or "zero bytes" in ended.said
  assert f"stay in {output}/{index.FOLDER}" in ended.said
  again = run("index", f"--input={archive}", f"--output={output}", *FLAGS)
  assert "(3 of them before)" in again.said
  (tmp_path / "in").mkdir()
  for name in ("a.png", "b.png"):
    shutil.copy(archive / name, tmp_path / "in")

  def look(self, photos, pool=None):
    raise AssertionError("photos were looked at again")

  monkeypatch.setattr(finder.Finder, "look", look)
  done = run(
    "cloak", f"--input={tmp_path / 'in'}", f"--output={output}", *FLAGS,
    "--steps=6", "--rho=0.012",
  )  # fmt: skip
  assert done.code == 0, done.said
  assert "2 cloaked" in done.said
  assert "at risk: 1 person has fewer than 3 photos (a.png)" in done.said


def test_what_is_known_of_faces_can_be_forgotten(archive, tmp_path):
  output = tmp_path / "out"
  run("index", f"--input={archive}", f"--output={output}", *FLAGS)
  assert (output / index.FOLDER).exists()
  ended = run("forget", f"--output={output}")
  assert (ended.code, "3 files of faces" in ended.said) == (0, True)
  assert not (output / index.FOLDER).exists()
  assert "0 files of faces" in run("forget", f"--output={output}").said


def test_an_archive_without_a_face_has_nobody(tmp_path):
  source, output = tmp_path / "in", tmp_path / "out"
  source.mkdir()
  Image.new("RGB", (99, 99)).save(source / "wall.png")
  ended = run("index", f"--input={source}", f"--output={output}", *FLAGS)
  assert "0 faces of 0 people in the archive" in ended.said


def test_people_are_listed_and_shown(archive, tmp_path):
  output, sheet = tmp_path / "out", tmp_path / "sheet.html"
  places = (f"--input={archive}", f"--output={output}")
  run("index", *places, *FLAGS)
  listed = run("people", *places, f"--sheet={sheet}")
  assert listed.code == 0, listed.said
  assert "1 person in" in listed.said
  assert "person 0: 2 photos; at risk: fewer than 3 photos" in listed.said
  page = sheet.read_text()
  found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
  assert len(found) == 2
  for data in found:
    shown = Image.open(io.BytesIO(base64.b64decode(data)))
    assert shown.size == (96, 96)
    assert np.asarray(shown).std() > 20
  # Nothing comes from elsewhere.
  assert "://" not in page and "<script" not in page


def test_people_get_names_that_outlive_the_index(archive, tmp_path):
  output, sheet = tmp_path / "out", tmp_path / "sheet.html"
  places = (f"--input={archive}", f"--output={output}")
  run("index", *places, *FLAGS)
  named = run("people", *places, "--name=0=Anna <3", f"--sheet={sheet}")
  assert named.code == 0, named.said
  assert "person 0, Anna <3: 2 photos" in named.said
  assert f"names lie in {output}/.manifest/people" in named.said
  assert "person 0, Anna &lt;3: 2 photos" in sheet.read_text()
  more = shutil.copytree(archive, tmp_path / "more")
  again = Image.open(archive / "a.png").rotate(5)
  again.save(more / "0.png")
  cloak = (
    *("cloak", f"--input={more}", f"--output={output}", *FLAGS, "--rho=0.012"),
    *("--steps=6", "--protect=Anna <3"),
  )
  done = run(*cloak)
  assert "3 cloaked" in done.said
  # The index is gone, and the person is found by its photos.
  assert not (output / index.FOLDER).exists()
  gone = run("people", f"--output={output}")
  assert "these names are kept for it: Anna <3" in gone.errors
  again.rotate(3).save(more / "1.png")
  done = run(*cloak)
  assert "4 cloaked" in done.said, done.said
  assert "5 of them by an earlier run" in done.said
  assert run("forget", f"--output={output}").said.startswith("1 file of faces")
  assert not (output / names.FOLDER).exists()
  lost = run(*cloak)
  assert (lost.code, "nobody in" in lost.errors) == (2, True)


def test_names_can_be_changed_and_taken_away(archive, tmp_path):
  places = (f"--input={archive}", f"--output={tmp_path / 'out'}")
  run("index", *places, *FLAGS)
  for given, said in (
    ("0=anna", "person 0, anna:"),
    ("0=Ben", "person 0, Ben:"),
    ("0=", "person 0:"),
  ):
    assert said in run("people", *places, "--name", given).said
  assert not (tmp_path / "out" / names.FOLDER).exists()


@pytest.mark.parametrize(
  ("given", "said"),
  [
    (("--name=9=anna",), "--name=9=anna must be for one of the people"),
    (("--name=anna",), "--name must be NUMBER=NAME"),
    (("--name=0=a/b",), "--name must be NUMBER=NAME"),
    (("--name=0=a", "--name=0=b"), "--name must be given once for each person"),
  ],
)
def test_a_name_that_cannot_be_given_is_refused(archive, tmp_path, given, said):
  places = (f"--input={archive}", f"--output={tmp_path / 'out'}")
  run("index", *places, *FLAGS)
  ended = run("people", *places, *given)
  assert (ended.code, said in ended.errors) == (2, True), ended.errors


def test_a_photo_in_which_a_face_is_likely_is_named(small_astronaut, tmp_path):
  source, output = tmp_path / "in", tmp_path / "out"
  source.mkdir()
  hidden = small_astronaut.copy()
  hidden[110:] = 90
  Image.fromarray(hidden).save(source / "hidden.png")
  Image.new("RGB", (256, 256)).save(source / "wall.png")
  flags = (*FLAGS, "--min_face_pixels=60")
  ended = run("cloak", f"--input={source}", f"--output={output}", *flags)
  assert (ended.code, "2 no_face" in ended.said) == (0, True)
  assert re.search(
    r"copied: hidden.png: no face was found, but one is likely at [\d, to]+\n",
    ended.said,
  )
  assert "copied: wall.png" not in ended.said
  with manifest.reading(output) as (rows, _):
    assert rows.get("wall.png").likely is None
    assert 0.2 < rows.get("hidden.png").likely["score"] < 0.43


def test_people_that_cannot_be_read_are_named(archive, tmp_path):
  output = tmp_path / "out"
  places = (f"--input={archive}", f"--output={output}")
  run("index", *places, *FLAGS)
  path = output / index.FOLDER / "people-faces.parquet"
  path.write_bytes(path.read_bytes()[:-9])
  ended = run("people", *places)
  assert ended.code == 2
  assert f"{path} is damaged: `fawkes-jax index` makes it anew" in ended.errors
  assert run("index", *places, *FLAGS).code == 0
  assert "person 0: 2 photos" in run("people", *places).said


def test_people_that_nobody_has_looked_for(tmp_path):
  ended = run("people", f"--output={tmp_path}")
  assert ended.code != 0
  assert "must hold an index of its people" in ended.errors


def test_a_sheet_needs_the_photos(tmp_path):
  ended = run("people", f"--output={tmp_path}", "--sheet=sheet.html")
  assert "--sheet must be given together with --input" in ended.errors
