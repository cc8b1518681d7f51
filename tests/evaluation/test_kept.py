"""What is kept between runs."""

import numpy as np
import pytest

from fawkes_jax.evaluation import kept


def test_a_table_is_kept(tmp_path):
  path = tmp_path / "deep" / "table.npz"
  table = kept.Table(path)
  table.get("a b", lambda: np.array([1.5, 2.5]))
  table.get("none", lambda: None)
  table.get("ü", lambda: np.array([3.0, 4.0]))
  table.save()
  again = kept.Table(path)
  assert "a b" in again
  assert "c" not in again
  assert again.width == 2

  def never():
    raise AssertionError("computed twice")

  np.testing.assert_array_equal(again.get("a b", never), [1.5, 2.5])
  np.testing.assert_array_equal(again.get("ü", never), [3, 4])
  assert again.get("none", never) is None


def test_a_table_of_nothing(tmp_path):
  table = kept.Table(tmp_path / "table.npz")
  assert table.width == 0
  table.save()
  assert not list(tmp_path.iterdir())
  table.get("a", lambda: None)
  table.save()
  assert "a" in kept.Table(tmp_path / "table.npz")


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04nonsense", b"text"])
def test_a_damaged_table_is_begun_anew(tmp_path, damage):
  path = tmp_path / "table.npz"
  path.write_bytes(damage)
  table = kept.Table(path)
  table.get("a", lambda: np.ones(2))
  table.save()
  assert kept.Table(path).width == 2


def test_results_are_remembered_by_what_they_depend_on(tmp_path):
  memory = kept.Memory(tmp_path)
  calls = []

  def get(parts):
    return memory.get("some name", parts, lambda: calls.append(1) or [{"x": 1}])

  assert get([1, "a"]) == get([1, "a"]) == [{"x": 1}]
  assert len(calls) == 1
  get([2, "a"])
  assert len(calls) == 2
  for path in tmp_path.iterdir():
    path.write_text("{")
  get([2, "a"])
  assert len(calls) == 3


def test_a_table_of_a_folder_is_read_once(tmp_path):
  tables = kept.Tables(tmp_path)
  table = tables.get("dlib", "one")
  table.get("a", lambda: np.array([1.0]))
  assert tables.get("dlib", "one") is table
  assert "a" not in tables.get("dlib", "other")
  table.save()
  assert "a" in kept.Tables(tmp_path).get("dlib", "one")
