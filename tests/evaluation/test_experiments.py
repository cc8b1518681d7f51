"""The experiments on trackers and cloaks whose answers are known."""

import numpy as np
import pytest
from PIL import Image

from fawkes_jax import types
from fawkes_jax.evaluation import countermeasures, experiments
from fawkes_jax.options import HEADS, MODES

from . import conftest


def values(rows, column="PSR"):
  return [row[column]["value"] for row in rows]


def test_a_perfect_cloak(fakes, begin):
  tables = experiments.protection(begin(heads=HEADS))
  rows = tables["protection"]
  assert [row["head"] for row in rows] == list(HEADS)
  assert values(rows) == [1] * 4
  assert values(rows, "accuracy without cloaks") == [1] * 4
  assert values(rows, "accuracy on others") == [1] * 4
  assert rows[0]["PSR"] == {
    "value": 1, "low": 1, "high": 1, "people": 2, "photos": 4
  }  # fmt: skip
  [moved] = tables["features"]
  assert moved["cosine"] < 0.5
  assert moved["clean faces not found"] == []
  [photos] = tables["photos"]
  assert (photos["photos"], photos["faces"]) == (6, 6)
  assert photos["DSSIM"] > 0.1
  assert photos["change of a*, b*"] > 5
  assert photos["faces a second"] > 0


def test_a_cloak_that_does_nothing(fakes, begin):
  fakes.use(conftest.nothing)
  tables = experiments.protection(begin())
  assert values(tables["protection"]) == [0, 0]
  [moved] = tables["features"]
  assert moved["cosine"] > 0.99
  assert tables["photos"][0]["DSSIM"] < 0.01


def test_nothing_is_done_twice(fakes, begin):
  """A second run of the same, or of another experiment on the same cloaks."""
  tables = experiments.protection(begin())
  counted = (fakes.cloaked, fakes.embedded, fakes.found)
  assert counted == (6, 26, 26)  # 4 x 5 clean photos and 6 cloaked ones.
  assert experiments.protection(begin()) == tables
  experiments.leak(begin(experiments=("leak",)))
  assert (fakes.cloaked, fakes.embedded, fakes.found) == counted


def test_other_cloaks_share_the_clean_photos(fakes, begin):
  experiments.protection(begin())
  fakes.embedded = 0
  experiments.dssim(begin(rhos=(0.004, MODES["mid"].rho)))
  # The second is the mode itself; the first is cloaked to the same bytes.
  assert fakes.cloaked == 12
  assert fakes.embedded == 0


def test_a_changed_photo_is_looked_at_again(fakes, begin, people_folder):
  experiments.protection(begin())
  fakes.embedded = fakes.cloaked = 0
  changed = people_folder / "Person 0" / "1.png"
  Image.fromarray(conftest.picture(0, 77)).save(changed)
  experiments.protection(begin())
  assert fakes.embedded == 2
  assert fakes.cloaked == 6  # Of which a real pipeline does only one.


def test_photos_that_fail_are_left_out_and_named(fakes, begin, people_folder):
  def fails(pixels, path):
    return None if path.endswith("1.png") else conftest.opposite(pixels, path)

  fakes.use(fails)
  black = people_folder / "Person 1" / "2.png"
  Image.new("RGB", (48, 48)).save(black)
  damaged = people_folder / "Person 3" / "4.png"
  damaged.write_bytes(damaged.read_bytes()[:300])
  study = begin()
  tables = experiments.protection(study)
  assert values(tables["protection"]) == [1, 1]
  failed = tables["photos"][0]["not cloaked"]
  assert [line.split(":")[0] for line in failed] == [
    f"{person.name}/1.png" for person in study.people.protected
  ]
  assert "on purpose" in failed[0]
  [moved] = tables["features"]
  assert set(moved["clean faces not found"]) == {
    photo.name
    for person in study.people.chosen
    for photo in (*person.train, *person.test)
    if photo.path in (black, damaged)
  }


def test_leaks_undo_protection(fakes, begin):
  study = begin(leaks=(0.0, 0.34, 1.0), heads=("neighbour",))
  rows = experiments.leak(study)["leak"]
  assert [row["clean photos"] for row in rows] == [0, 1, 3]
  assert values(rows) == [1, 0, 0]


def test_the_number_of_people(fakes, begin):
  study = begin(experiments=("identities",), sizes=(2, 3, 50))
  rows = experiments.identities(study)["identities"]
  # Of seven people two are protected; never more than one is in a tracker.
  assert [row["people"] for row in rows[::2]] == [2, 3, 6]
  assert values(rows) == [1] * 6
  assert values(rows, "errors without cloaks") == [0] * 6


def test_countermeasures(fakes, begin):
  study = begin(heads=("centroid",))
  rows = experiments.counter(study)["counter"]
  names = [row["countermeasure"] for row in rows]
  assert names == list(countermeasures.COUNTERMEASURES)
  assert values(rows) == [1] * 6
  assert values(rows, "accuracy without cloaks") == [1] * 6


def test_a_tracker_that_learns(fakes, begin):
  study = begin(experiments=("adaptive",), adaptive_people=4)
  rows = experiments.adaptive(study)["adaptive"]
  assert {row["learned from people"] for row in rows} == {4}
  assert len({row["adaptation"] for row in rows}) == 4
  by_name = {(row["adaptation"], row["head"]): row for row in rows}
  assert by_name["none", "centroid"]["PSR"]["value"] == 1
  for row in rows:
    assert 0 <= row["PSR"]["value"] <= 1
    if row["adaptation"] == "none":
      assert row["accuracy on others"]["value"] == 1
  # The protected are never among those it learns from.
  assert fakes.cloaked == 3 * (2 + 4)


def test_verification(fakes, begin):
  study = begin(rates=(0.1, 1e-6))
  some, none = experiments.matching(study)["matching"]
  pairs = 20 * 15 // 2
  assert some["impostor pairs"] == pairs
  assert some["plain with another photo"]["value"] == 1
  assert some["plain with another photo"]["photos"] == 2 * 3 * 2
  assert some["cloaked with another photo"]["value"] == 0
  assert some["cloaked with its original"]["photos"] == 6
  assert none["plain with another photo"] is None


def test_ablations_and_budgets(fakes, begin):
  study = begin(
    ablations=((("jpeg", 0.0),), (("blur", 0.0), ("steps", 2.0))),
    solver_changes=(("steps", 3),),
  )
  tables = experiments.ablation(study)
  names = [row["cloak"] for row in tables["photos"]]
  assert names == ["mid", "mid, jpeg 0", "mid, blur 0, steps 2"]
  tables = experiments.dssim(begin(rhos=(0.004, 0.02)))
  assert [row["rho"] for row in tables["photos"]] == [0.004, 0.02]


def test_surrogates_as_trackers(fakes, begin):
  study = begin(
    experiments=("leaveoneout",),
    extractors=("dlib_resnet", "other.onnx", "student"),
    heads=("centroid",),
  )
  rows = experiments.leaveoneout(study)["leaveoneout"]
  assert [(row["cloak"], row["tracker"]) for row in rows] == [
    ("mid, without dlib_resnet", "dlib"),
    ("mid", "dlib"),
    ("mid, without other", "other.onnx"),
    ("mid", "other.onnx"),
    ("mid, without student", "student"),
  ]
  assert "PSR" not in rows[-1]


def test_a_tracker_that_sees_nothing(fakes, begin, people_folder):
  for photo in people_folder.glob("*/*.png"):
    Image.new("RGB", (48, 48)).save(photo)
  fakes.use(lambda pixels, path: pixels)
  with pytest.raises(types.FawkesError, match="must find a face, got none"):
    experiments.protection(begin())


def test_cloaked_faces_that_are_not_found(fakes, begin):
  """A tracker that finds no cloaked face does not know the person."""
  fakes.use(lambda pixels, path: np.zeros_like(pixels))
  tables = experiments.protection(begin(heads=HEADS))
  assert values(tables["protection"]) == [1] * 4
  [moved] = tables["features"]
  assert moved["cosine"] is None
  assert len(moved["cloaked faces not found"]) == 6


@pytest.mark.parametrize("name", countermeasures.COUNTERMEASURES)
def test_countermeasures_keep_shape_and_repeat(name):
  photo = conftest.picture(1, 1)[:47, :33]
  apply = countermeasures.COUNTERMEASURES[name]
  changed = apply(photo)
  assert changed.shape == photo.shape
  assert changed.dtype == np.uint8
  np.testing.assert_array_equal(changed, apply(photo))
  assert (name == "none") == np.array_equal(changed, photo)
  assert np.abs(changed.astype(int) - photo).mean() < 25
