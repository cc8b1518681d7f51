"""Results in files of their own, and in tar files."""

import io
import tarfile

import pytest

from fawkes_jax import types
from fawkes_jax.archive import manifest, results, stores

NAMES = ("a b/é.jpg", "x/" + 150 * "long" + "/y.jpg", "empty.jpg")


def content(name):
  return b"" if name.startswith("empty") else name.encode() * 9


@pytest.fixture
def store(address):
  return stores.open_store(address)


def tars(store):
  return [name for name in store.names("") if name.endswith(".tar")]


def members(store, name):
  with tarfile.open(fileobj=io.BytesIO(store.read(name))) as tar:
    return {m.name: tar.extractfile(m).read() for m in tar}


def test_a_file_each(store):
  kept = results.open_results(store, "tree")
  done = []
  for name in ("a b/é.jpg", "empty.jpg"):
    place = kept.write(name, content(name))
    assert place is None
    assert kept.read(name, place) == content(name)
    kept.after(place, lambda name=name: done.append(name))
  assert done == ["a b/é.jpg", "empty.jpg"]  # At once.
  kept.flush()
  assert store.read("a b/é.jpg") == content("a b/é.jpg")


def test_tar_files(store):
  kept = results.open_results(store, "tar")
  done, places = [], {}
  for name in NAMES:
    places[name] = kept.write(name, content(name))
    assert kept.read(name, places[name]) == content(name)
    kept.after(places[name], lambda name=name: done.append(name))
  kept.after(None, lambda: done.append("a failure"))
  assert done == ["a failure"]
  assert tars(store) == []
  kept.flush()
  kept.flush()
  assert tuple(done[1:]) == NAMES
  (tar,) = tars(store)
  assert members(store, tar) == {name: content(name) for name in NAMES}
  for name, place in places.items():
    assert place.tar == tar
    assert kept.read(name, place) == content(name)
    assert store.read_part(tar, place.offset, place.size) == content(name)


def test_a_tar_file_ends_when_it_is_large_or_old(tmp_path, monkeypatch):
  store = stores.open_store(tmp_path)
  kept = results.open_results(store, "tar")
  done = []
  monkeypatch.setattr(results, "_TAR_BYTES", 10_000)
  for number in range(5):
    place = kept.write(f"{number}.jpg", bytes(4000))
    kept.after(place, lambda: done.append(None))
  assert len(tars(store)) == 1
  assert len(done) == 3
  monkeypatch.setattr(results, "_TAR_SECONDS", 0.0)
  kept.after(None, lambda: None)
  assert len(tars(store)) == 2
  assert len(done) == 5


def test_a_tar_file_that_cannot_be_written(tmp_path):
  store = stores.open_store(tmp_path / "out")
  kept = results.open_results(store, "tar")
  kept.after(kept.write("a.jpg", b"1"), lambda: pytest.fail("it does not last"))
  (tmp_path / "out").write_text("a file in the way")
  with pytest.raises(types.FawkesError, match=r"\.tar cannot be written"):
    kept.flush()


def test_what_no_row_names_is_removed(store):
  kept = results.open_results(store, "tar")
  place = kept.write("a.jpg", b"1")
  kept.flush()
  kept.write("b.jpg", b"2")
  kept.flush()
  store.write("other.tar", b"")
  rows = manifest.Rows()
  rows.put(
    [
      manifest.Row(path="a.jpg", status="cloaked", config="c", place=place),
      manifest.Row(path="c.jpg", status="failed", config="c"),
    ]
  )
  assert rows.get("a.jpg").place == place
  assert rows.tars() == {place.tar}
  results.tidy(store, rows)
  assert tars(store) == ["other.tar", place.tar]
