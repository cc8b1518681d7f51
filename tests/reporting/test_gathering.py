"""What is gathered from rows for a page, however many there are."""

import collections
import random
import statistics

import made_up
import numpy as np
import pytest

from fawkes_jax.reporting import gathering


def test_counts_are_those_of_the_rows():
  rows = list(made_up.many(3000))
  found = gathering.Gathered(rows)
  assert found.files == 3000
  assert found.statuses == collections.Counter(row.status for row in rows)
  faces = [face for row in rows for face in row.faces]
  assert found.faces == len(faces)
  assert found.dssim.total == len(faces)
  assert len(found.failed) == found.statuses["failed"]
  likeness = [gathering.likeness(face) for face in faces]
  assert found.alike == pytest.approx(sum(likeness))


def test_the_weakest_and_the_most_visible_faces_come_first():
  rows = list(made_up.many(2000))
  found = gathering.Gathered(rows)
  faces = [face for row in rows for face in row.faces]
  weakest = [gathering.likeness(face.measured) for face in found.weakest]
  assert weakest == sorted(map(gathering.likeness, faces), reverse=True)[:12]
  visible = [face.measured["dssim"] for face in found.visible]
  assert visible == sorted((f["dssim"] for f in faces), reverse=True)[:12]
  shown = {face.key for face in (*found.weakest, *found.visible)}
  assert not shown & {face.key for face in found.sample}
  assert len(found.sample) == gathering.SAMPLE


def test_what_is_kept_does_not_grow_with_the_rows():
  found = gathering.Gathered(made_up.many(6_000))
  assert len(found.weakest) == len(found.visible) == gathering.EXTREMES
  assert len(found.faceless.items) == gathering.FACELESS
  reasons = list(found.failed)
  # A thousand reasons are not told apart, but none of the files is lost.
  assert len(reasons) <= 201
  assert sum(count for _, count, _ in reasons) == len(found.failed)
  assert all(len(paths) <= gathering.EXAMPLES for _, _, paths in reasons)


def test_every_item_is_as_likely_to_be_in_a_sample():
  counts = collections.Counter()
  for seed in range(400):
    sample = gathering.Sample(5)
    sample._random = random.Random(seed)
    for item in range(50):
      sample.add(item)
    counts.update(sample.items)
  # 400 * 5 / 50 = 40 times each; five standard deviations.
  assert set(counts) == set(range(50))
  assert all(abs(count - 40) < 5 * 6.0 for count in counts.values())


def test_a_histogram_knows_quantiles_and_coarser_bars():
  values = np.random.default_rng(0).normal(0.4, 0.2, 5000).clip(-1, 1)
  histogram = gathering.Histogram(-1.0, 1.0, 400)
  for value in values:
    histogram.add(float(value))
  for part in (0.1, 0.5, 0.9):
    expected = np.quantile(values, part)
    assert histogram.quantile(part) == pytest.approx(expected, abs=0.006)
  expected, _ = np.histogram(values, 40, (-1, 1))
  assert histogram.bars(-1.0, 1.0, 40) == pytest.approx(expected, abs=20)
  assert sum(histogram.bars(0.0, 0.5, 7)) == 5000
  assert (histogram.least, histogram.greatest) == (min(values), max(values))


@pytest.mark.parametrize("hours", [0.01, 1, 24 * 90])
def test_speed_over_time_holds_every_outcome(hours):
  times = gathering.Timeline()
  seconds = [i * hours * 3600 / 10_000 for i in range(10_001)]
  for second in random.Random(1).sample(seconds, len(seconds)):
    times.add(made_up.row("a", seconds=second).finished)
  width, rates = times.rates(60)
  assert 1 <= len(rates) <= 60
  assert len(rates) * width >= times.last - times.first
  assert sum(rates[:-1]) * width <= times.total == 10_001
  # It was as fast all the time, but for the spans at the ends.
  mean = times.total / (hours * 3600 + 1)
  assert statistics.median(rates) == pytest.approx(mean, rel=0.1)


def test_rows_of_other_versions_cost_only_what_they_do_not_say():
  found = gathering.Gathered(
    [
      made_up.row("a.jpg", faces=({}, {"dssim": None, "extractors": None})),
      made_up.row("b.jpg", faces=({"unprotected": "too small"},)),
    ]
  )
  assert (found.faces, found.judged, len(found.bare)) == (2, 0, 1)
  assert found.weakest == found.visible == []
  assert gathering.likeness({"extractors": {"a": {"cosine": -0.5}}}) == 0.0
