"""What is kept of faces, and what becomes of it when something goes wrong."""

import dataclasses

import numpy as np
import pytest

from fawkes_jax import types
from fawkes_jax.archive import index, stores


def seen(number, faces):
  random = np.random.default_rng(number)
  return index.Seen(
    path=f"{number}.jpg",
    sha256=f"{number:064x}",
    smallest_face=24.0,
    boxes=random.integers(0, 100, (faces, 4), np.int32),
    scores=random.random(faces, np.float32),
    alignments=random.random((faces, 5)),
    embeddings={
      "a": random.normal(size=(faces, 8)).astype(np.float16),
      "b": random.normal(size=(faces, 3)).astype(np.float16),
    }
    if faces
    else {},
  )


def same(one, other):
  assert (one.path, one.sha256) == (other.path, other.sha256)
  assert one.smallest_face == other.smallest_face
  for name in "boxes", "scores", "alignments":
    np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
  for name, e in one.embeddings.items():
    np.testing.assert_array_equal(e, other.embeddings[name])


@pytest.fixture
def store(tmp_path):
  return stores.open_store(tmp_path)


def shards(store):
  return [n for n in store.names(index.FOLDER) if n.startswith("faces-")]


def written(store, *photos, config="c"):
  one = index.Index(store, config=config)
  for photo in photos:
    one.add(photo)
  one.sync()
  return one


def test_what_was_seen_is_there_again(store):
  photos = [seen(number, number % 3) for number in (5, 3, 4, 0)]
  written(store, *photos)
  again = index.Index(store, config="c")
  assert (len(again), again.faces()) == (4, sum(map(len, photos)))
  for photo in photos:
    same(photo, again.get(photo.sha256))
  assert again.get("unknown") is None
  assert again.notes == []


def test_where_a_face_is_likely_is_kept(store):
  likely = (1, 2, 30, 40, 0.375)
  written(store, dataclasses.replace(seen(1, 0), likely=likely), seen(2, 1))
  again = index.Index(store, config="c")
  assert again.get(seen(1, 0).sha256).likely == likely
  assert again.get(seen(2, 1).sha256).likely is None


def test_before_it_lasts_it_is_known_too(store):
  one = index.Index(store, config="c")
  one.add(seen(1, 2))
  assert shards(store) == []
  assert len(one.get(seen(1, 2).sha256)) == 2


def test_what_others_have_written_is_read(store):
  mine, theirs = (index.Index(store, config="c") for _ in range(2))
  theirs.add(seen(1, 1))
  theirs.sync()
  assert seen(1, 1).sha256 not in mine
  mine.refresh()
  assert seen(1, 1).sha256 in mine


def test_a_photo_that_two_have_looked_at_is_there_once(store):
  one, other = (index.Index(store, config="c") for _ in range(2))
  for each, more in ((one, 2), (other, 3)):
    each.add(seen(1, 2))
    each.add(seen(more, 1))
    each.sync()
  again = index.Index(store, config="c")
  assert (len(again), again.faces()) == (3, 4)
  places = np.concatenate([places for places, _ in again.shards(["a"])])
  assert sorted(places.tolist()) == [0, 1, 2, 3]


def test_places_do_not_depend_on_who_has_looked(store, tmp_path):
  photos = [seen(number, number % 3) for number in range(9)]

  def table(folder, parts):
    store = stores.open_store(tmp_path / folder)
    for part in parts:
      written(store, *part)
    again = index.Index(store, config="c")
    rows = np.zeros((again.faces(), 8), np.float16)
    for places, raw in again.shards(["a"]):
      rows[places] = raw["a"]
    return rows, list(again.photos())

  rows, order = table("one", [photos])
  boxes = np.concatenate([photo.boxes for photo in photos])
  one = index.Index(stores.open_store(tmp_path / "one"), config="c")
  np.testing.assert_array_equal(one.boxes(), boxes)
  others, same_order = table("two", [photos[5:][::-1], photos[:5]])
  np.testing.assert_array_equal(rows, others)
  assert order == same_order == [(p.sha256, len(p)) for p in photos]


@pytest.mark.parametrize("left", [0, 3, 200, 0.5, 0.99])
def test_a_shard_that_is_cut_off_is_named_and_not_used(store, left):
  written(store, seen(1, 2))
  [name] = shards(store)
  written(store, seen(2, 1))
  data = store.read(f"{index.FOLDER}/{name}")
  end = int(left * len(data)) if left < 1 else left
  store.write(f"{index.FOLDER}/{name}", data[:end])
  again = index.Index(store, config="c")
  assert again.notes == [
    f"{index.FOLDER}/{name} is damaged: its photos are looked at again"
  ]
  assert seen(1, 2).sha256 not in again
  assert seen(2, 1).sha256 in again
  again.tidy()
  assert name not in shards(store)


def test_an_index_of_another_configuration_is_named_and_not_used(store):
  written(store, seen(1, 2), config="other")
  again = index.Index(store, config="c")
  assert "is of another configuration" in again.notes[0]
  assert len(again) == 0


def test_an_index_of_another_version_is_named_and_not_used(store, monkeypatch):
  written(store, seen(1, 2))
  monkeypatch.setattr(index, "FORMAT", index.FORMAT + 1)
  again = index.Index(store, config="c")
  assert "is of another version of this program" in again.notes[0]
  assert len(again) == 0


def test_nothing_is_lost_when_the_disk_is_full(store, full_disk):
  before = written(store, seen(1, 2))
  photo = seen(2, 100)
  before.add(photo)
  with full_disk, pytest.raises(types.FawkesError, match="File too large"):
    before.sync()
  assert len(store.names(index.FOLDER)) == 1
  assert len(index.Index(store, config="c")) == 1
  assert photo.sha256 in before
  before.sync()
  again = index.Index(store, config="c")
  assert len(again) == 2
  same(again.get(photo.sha256), photo)


def test_a_shard_that_is_gone_meanwhile_is_named(store):
  one = written(store, seen(1, 2))
  [name] = shards(store)
  store.remove(f"{index.FOLDER}/{name}")
  with pytest.raises(types.FawkesError, match=name):
    one.get(seen(1, 2).sha256)


def test_forgetting_leaves_nothing(store, tmp_path):
  written(store, seen(1, 2))
  assert index.forget(store) == 1
  assert not (tmp_path / index.FOLDER).exists()
  assert index.forget(store) == 0
