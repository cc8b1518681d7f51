"""Who takes part."""

import hashlib
import sys
import types as python_types

import numpy as np
import pytest
from PIL import Image

from fawkes_jax import types
from fawkes_jax.evaluation import people
from fawkes_jax.options import EvaluateOptions

from . import conftest


@pytest.fixture
def options(people_folder, tmp_path):
  def of(**changes):
    given = {"data": str(people_folder), "identities": 4, "train": 3, "test": 2}
    return EvaluateOptions(output=tmp_path / "out", **(given | changes))

  return of


def test_people_are_chosen_evenly(options):
  everybody = people.choose(options(), extras=True)
  assert [p.name for p in everybody.chosen] == [
    "Person 0", "Person 1", "Person 3", "Person 5"
  ]  # fmt: skip
  assert [p.name for p in everybody.protected] == ["Person 0", "Person 3"]
  assert [p.name for p in everybody.others] == ["Person 1", "Person 5"]
  assert [p.name for p in everybody.extras] == [
    "Person 2", "Person 4", "Person 6"
  ]  # fmt: skip
  assert everybody.excluded == {"Person 7": 2}
  labels = [p.label for p in (*everybody.chosen, *everybody.extras)]
  assert labels == list(range(7))
  first = everybody.chosen[0]
  assert [p.name for p in first.train] == [
    f"Person 0/{i}.png" for i in range(3)
  ]
  assert [p.path.name for p in first.test] == ["3.png", "4.png"]
  digest = hashlib.sha256(first.test[0].path.read_bytes()).hexdigest()
  assert first.test[0].sha256 == digest
  assert not people.choose(options(), extras=False).extras


@pytest.mark.parametrize(
  ("changes", "rule"),
  [
    ({"identities": 8}, "8 identities .* with 5 photos .* got 7 of 8 in"),
    ({"train": 4}, "4 identities .* with 6 photos .* got 0 of 8 in"),
    ({"data": "/no/where"}, "--data must be a folder of identities"),
  ],
)
def test_too_few(options, changes, rule):
  with pytest.raises(types.FawkesError, match=rule):
    people.choose(options(**changes), extras=True)


def test_one_identity(options, people_folder):
  for folder in list(people_folder.iterdir())[1:]:
    for photo in folder.iterdir():
      photo.unlink()
  with pytest.raises(types.FawkesError, match=r"2 identities .* got [01] of"):
    people.choose(options(identities=2), extras=True)


def test_staging_copies_these_and_no_others(options, tmp_path):
  everybody = people.choose(options(), extras=False)
  stage = tmp_path / "stage"
  people.stage(people.train_photos(everybody.chosen), stage)
  people.stage(people.train_photos(everybody.protected), stage)
  found = {
    path.relative_to(stage).as_posix(): path.read_bytes()
    for path in stage.rglob("*")
    if path.is_file()
  }
  assert found == {
    photo.name: photo.path.read_bytes()
    for photo in people.train_photos(everybody.protected)
  }


def test_a_dataset(options, monkeypatch):
  """Its examples become files, with the same pixels."""
  fake = python_types.ModuleType("tensorflow_datasets")
  examples = [
    {"image": conftest.picture(person, number), "label": f"A/{person}".encode()}
    for person in range(3)
    for number in range(3)
  ]
  fake.builder = lambda name, **_: python_types.SimpleNamespace(
    info=python_types.SimpleNamespace(
      features={"image": None, "label": None},
      full_name="people/1.0.0",
      splits=("train",),
    ),
    as_data_source=lambda split: examples,
  )
  monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
  wanted = options(data="tfds:people", identities=2, train=2, test=1)
  everybody = people.choose(wanted, extras=False)
  photo = everybody.chosen[1].train[1]
  assert photo.name == "A_1/train-00000004.png"
  assert photo.path.is_relative_to(wanted.output)
  np.testing.assert_array_equal(
    np.asarray(Image.open(photo.path)), conftest.picture(1, 1)
  )
  assert people.choose(wanted, extras=False) == everybody
