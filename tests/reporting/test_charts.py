"""Charts are pictures that can be read without seeing them."""

from xml.etree import ElementTree

import pytest

from fawkes_jax.reporting import charts


def chart(values):
  drawn = charts.bars(
    values,
    title="Faces by <size>",
    description="most are small",
    ticks=[(0.0, "0"), (1.0, "1")],
    across="size",
    up="faces",
    names=[f"{value} faces" for value in values],
  )
  return ElementTree.fromstring(drawn)


def test_a_chart_has_a_name_and_a_description():
  drawn = chart([1, 2])
  named = {part.get("id"): part.text for part in drawn if part.get("id")}
  assert [named[key] for key in drawn.get("aria-labelledby").split()] == [
    "Faces by <size>",
    "most are small",
  ]


@pytest.mark.parametrize("most", [1e-4, 0.3, 1, 7, 12, 999, 1_000_000])
def test_bars_are_as_high_as_their_values(most):
  drawn = chart([0, most / 2, most])
  bars = [part for part in drawn if part.get("class") == "bar"]
  heights = [float(bar.get("height")) for bar in bars]
  assert len(heights) == 2  # There is nothing to see of 0.
  assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)
  marks = [p for p in drawn if p.get("class") == "end" and p.get("x") == "58"]
  assert 2 <= len(marks) <= 6
  low, high = (float(marks[i].text.replace(",", "")) for i in (0, -1))
  # The axis ends where the bars need it: they fill half of it and more.
  assert low == 0 and most <= high <= 2 * most


def test_a_chart_without_a_value_is_empty():
  drawn = chart([0, 0, 0])
  assert not [part for part in drawn if part.get("class") == "bar"]


def test_what_is_counted_has_whole_numbers_beside_it():
  drawn = chart([1, 2, 0])
  marks = [p.text for p in drawn if p.get("class") == "end"]
  assert marks[:3] == ["0", "1", "2"]
