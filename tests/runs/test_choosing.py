"""Who is cloaked where only some people shall be."""

import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fawkes_jax import types
from fawkes_jax.archive import manifest, names, stores
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.options import CloakOptions
from fawkes_jax.runs import choosing, outcomes, pipeline, saving


def job(faces, cosines):
  """A photo whose faces have so much in common with the x axis."""
  mean = np.array([[c, (1 - c * c) ** 0.5] for c in cosines], np.float32)
  return saving.Job(
    source=SourceFile(relative="a.jpg"), sha256="", grey=False,
    jpeg_tables=None, smallest_face=24.0, faces=faces[: len(cosines)],
    raw={"a": mean}, own={"a": mean}, means={"a": mean},
    numbers=list(range(len(cosines))), targets={"a": mean},
    target_names=["bank/7"] * len(cosines),
  )  # fmt: skip


SURE, MAYBE, OTHER = 0.9, 0.5, 0.1


@pytest.mark.parametrize(
  ("protect", "unsure", "cloaked"),
  [
    (True, True, [0, 1]),
    (True, False, [0]),
    (False, True, [1, 2]),
    (False, False, [2]),
  ],
)
def test_who_is_cloaked(faces, protect, unsure, cloaked):
  """One who was shown, one who may be, and somebody else."""
  shown = choosing.Shown(name="anna", mean={"a": np.float32([1, 0])})
  choice = choosing.Choice([shown], protect=protect, unsure=unsure)
  result = choice.apply(job(faces, [SURE, MAYBE, OTHER]))
  assert result.numbers == cloaked
  assert [len(result.faces), len(result.targets["a"])] == [len(cloaked)] * 2
  assert [d["cloak"] for d in result.decisions] == [
    i in cloaked for i in range(3)
  ]
  for decision, cosine in zip(
    result.decisions, (SURE, MAYBE, OTHER), strict=True
  ):
    assert decision["likeness"] == pytest.approx(cosine)
    assert decision["nearest"] == "anna"
    assert decision["unsure"] == (cosine == MAYBE)
    above = decision["likeness"] >= decision["threshold"]
    assert decision["cloak"] == (above == protect)


@pytest.mark.parametrize("protect", [True, False])
def test_people_who_have_names_are_decided_about_by_them(faces, protect):
  """Anna; Ben, who looks like her; somebody without a name who does, too."""
  everybody = SimpleNamespace(
    names={3: "anna", 5: "ben"}, mean=lambda who: {"a": np.float32([1, 0])}
  )
  choice = choosing.Choice([], protect=protect, unsure=True, names=["anna"])
  photo = job(faces, [SURE, SURE, SURE])
  photo.called = ["anna", "ben", None]
  result = choice.among(everybody).apply(photo)
  meant = [True, False, True]
  assert [d["cloak"] for d in result.decisions] == [m == protect for m in meant]
  assert [d["nearest"] for d in result.decisions] == ["anna", "ben", "anna"]
  assert [d["likeness"] for d in result.decisions] == [
    pytest.approx(SURE), None, pytest.approx(SURE),
  ]  # fmt: skip
  assert not any(d["unsure"] for d in result.decisions)


def test_a_folder_shows_people_who_have_names_too(faces):
  shown = choosing.Shown(name="photos/", mean={"a": np.float32([1, 0])})
  everybody = SimpleNamespace(names={5: "ben"})
  choice = choosing.Choice([shown], protect=True, unsure=True)
  photo = job(faces, [SURE])
  photo.called = ["ben"]
  assert choice.among(everybody).apply(photo).numbers == [0]


def test_a_name_that_nobody_has_any_more_ends_the_run(faces):
  choice = choosing.Choice([], protect=True, unsure=True, names=["anna"])
  with pytest.raises(types.FawkesError, match=r"--protect=anna must name"):
    choice.among(SimpleNamespace(names={5: "ben"}))


@pytest.fixture
def named(tmp_path, monkeypatch):
  """Options of a run whose output folder knows Anna and Zoë."""
  monkeypatch.chdir(tmp_path)
  store = stores.open_store(tmp_path / "out")
  face = ("00", (0, 0, 9, 9))
  names.write(store, {"anna": frozenset([face]), "Zoë": frozenset([face])})

  def make(**changes):
    return CloakOptions(input="in", output=tmp_path / "out", **changes)

  return make


def test_names_are_told_from_folders(named, tmp_path):
  (tmp_path / "ben").mkdir()
  given = named(protect=("ben", "anna", "Zoë", "./carl"))
  assert [name for name, _ in choosing.resolved(given).named] == ["anna", "Zoë"]
  assert choosing.resolved(named()).named == ()


def test_a_word_that_is_a_name_and_a_folder_is_refused(named, tmp_path):
  (tmp_path / "anna").mkdir()
  with pytest.raises(types.FawkesError, match=r"it is both: \./anna is the"):
    choosing.resolved(named(protect=("anna",)))
  assert choosing.resolved(named(protect=("./anna",))).named == ()


def test_an_unknown_name_is_answered_with_those_that_there_are(named, tmp_path):
  with pytest.raises(
    types.FawkesError, match=r"--spare=ana must be .*have one: Zoë, anna"
  ):
    choosing.resolved(named(spare=("ana",)))
  names.write(stores.open_store(tmp_path / "out"), {})
  with pytest.raises(types.FawkesError, match=r"nobody in .*out has one"):
    choosing.resolved(named(spare=("anna",)))


def test_photos_are_done_again_when_names_have_changed(named, tmp_path):
  """A photo that was spared may show somebody who is meant now."""
  before = choosing.resolved(named(protect=("anna",))).fingerprint()
  assert choosing.resolved(named(protect=("anna",))).fingerprint() == before
  store = stores.open_store(tmp_path / "out")
  known = names.read(store)
  names.write(store, known | {"ben": frozenset([("11", (0, 0, 9, 9))])})
  assert choosing.resolved(named(protect=("anna",))).fingerprint() != before


@pytest.fixture
def folder(tmp_path, small_astronaut):
  """A photo of somebody, and another one that shows who is meant."""
  (tmp_path / "in").mkdir()
  Image.fromarray(small_astronaut).save(tmp_path / "in" / "a.png")
  (tmp_path / "anna").mkdir()
  Image.fromarray(small_astronaut[:, ::-1]).save(tmp_path / "anna" / "b.png")
  return tmp_path


def options(cloaker, folder, **changes):
  return dataclasses.replace(
    cloaker.options, input=folder / "in", output=folder / "out", **changes
  )


@pytest.mark.slow
@pytest.mark.parametrize("who", ["protect", "spare"])
def test_a_spared_photo_keeps_its_bytes_and_says_why(cloaker, folder, who):
  given = options(cloaker, folder, **{who: (str(folder / "anna"),)})
  tally = outcomes.Tally()
  pipeline.cloak_archive(given, tally, cloaker=cloaker)
  with manifest.reading(folder / "out") as (rows, _):
    row = rows.get("a.png")
  [decision] = row.decisions
  assert decision["nearest"] == str(folder / "anna")
  assert decision["likeness"] >= decision["threshold"]
  before, after = (
    np.asarray(Image.open(folder / part / "a.png")) for part in ("in", "out")
  )
  if who == "protect":
    assert (row.status, decision["cloak"]) == ("cloaked", True)
    assert (before != after).any()
  else:
    assert (row.status, decision["cloak"]) == ("spared", False)
    assert row.reason == "nobody on it is to be cloaked"
    np.testing.assert_array_equal(before, after)


def test_a_reference_folder_without_a_face_is_named(cloaker, folder):
  shutil.rmtree(folder / "anna")
  (folder / "anna").mkdir()
  Image.new("RGB", (99, 99)).save(folder / "anna" / "wall.png")
  given = options(cloaker, folder, protect=(str(folder / "anna"),))
  with pytest.raises(types.FawkesError, match=r"--protect must .*none .*anna"):
    choosing.of(given, cloaker)


def test_a_person_without_a_face_among_others_is_named(cloaker, folder):
  (folder / "all" / "bert").mkdir(parents=True)
  shutil.move(folder / "anna", folder / "all" / "anna")
  Image.new("RGB", (99, 99)).save(folder / "all" / "bert" / "wall.png")
  given = options(cloaker, folder, spare=(str(folder / "all"),))
  with pytest.raises(types.FawkesError, match=r"--spare must show .*all/bert"):
    choosing.of(given, cloaker)


def test_a_reference_photo_of_two_people_is_named(
  cloaker, folder, small_astronaut
):
  two = np.concatenate([small_astronaut, small_astronaut], axis=1)
  Image.fromarray(two).save(folder / "anna" / "two.png")
  given = options(cloaker, folder, protect=(str(folder / "anna"),))
  with pytest.raises(types.FawkesError, match=r"two.png shows more than one"):
    choosing.of(given, cloaker)


@pytest.mark.slow
def test_who_is_shown_and_not_in_the_archive_is_named(
  cloaker, folder, data_dir
):
  """Of two who are meant, one; the other's photo is cloaked."""
  stranger = next((data_dir / "lfw" / "Abdullah_Gul").iterdir())
  (folder / "all" / "ben").mkdir(parents=True)
  shutil.copy(stranger, folder / "all" / "ben")
  shutil.move(folder / "anna", folder / "all" / "anna")
  warned = []
  tally = outcomes.Tally()
  tally.warned = warned.append
  given = options(cloaker, folder, protect=(str(folder / "all"),))
  pipeline.cloak_archive(given, tally, cloaker=cloaker)
  assert tally.counts["cloaked"] == 1
  [said] = warned
  assert said.startswith(
    "--protect: nobody in the archive is like the person in"
    f" {folder}/all/ben; the cosine is at most "
  )


def test_both_at_once_are_refused():
  with pytest.raises(types.FawkesError, match="spare must be left out"):
    CloakOptions(input="a", output="b", protect=("c",), spare=("d",))
