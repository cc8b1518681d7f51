"""Names of people are kept, and what is wrong with them is said."""

import pytest

from fawkes_jax import types
from fawkes_jax.archive import manifest, names, stores

KNOWN = {
  "Zoë": frozenset([("0a", (1, 2, 3, 4)), ("0b", (5, 6, 7, 8))]),
  "anna": frozenset([("0b", (1, 2, 3, 4))]),
}


@pytest.fixture(params=["folder", "bucket"])
def store(request, tmp_path):
  if request.param == "folder":
    return stores.open_store(tmp_path)
  request.getfixturevalue("s3_server")
  return stores.open_store("s3://photos/names of people")


def test_names_are_there_again(store):
  assert names.read(store) == {}
  names.write(store, KNOWN)
  assert names.read(store) == KNOWN
  names.write(store, {})
  assert names.read(store) == {}
  assert store.names(names.FOLDER) == []


def test_names_that_are_damaged_are_named(tmp_path):
  store = stores.open_store(tmp_path)
  names.write(store, KNOWN)
  [name] = store.names(names.FOLDER)
  data = store.read(f"{names.FOLDER}/{name}")
  for bad in (data[:-9], b"[]", b'{"format": 1, "names": [1]}'):
    store.write(f"{names.FOLDER}/{name}", bad)
    with pytest.raises(types.FawkesError, match=r"names\.json .*is damaged"):
      names.read(store)
  store.write(f"{names.FOLDER}/{name}", b'{"format": 0}')
  with pytest.raises(types.FawkesError, match="another version"):
    names.read(store)


def test_a_name_is_the_same_however_it_is_typed():
  assert names.plain(" Zoe\N{COMBINING DIAERESIS}") == "Zoë"


def test_names_do_not_look_like_a_run_that_was_cut_off(tmp_path):
  """Else a file of somebody else would be taken for its result."""
  with manifest.Manifest(tmp_path):
    pass
  names.write(stores.open_store(tmp_path), KNOWN)
  (tmp_path / "a.png").write_bytes(b"")
  with manifest.Manifest(tmp_path) as record:
    assert record.is_foreign("a.png")
