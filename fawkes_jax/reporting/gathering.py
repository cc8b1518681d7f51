"""What a page shows of a run, in memory that does not grow with the rows."""

import collections
import dataclasses
import datetime
import heapq
import itertools
import math
import posixpath
import random
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import numpy as np

from fawkes_jax.archive.rows import Row

EXTREMES = 12
"""Faces with the weakest protection, and with the most visible change."""
SAMPLE = 24
"""Other faces that are shown."""
BARE = 12
"""Faces without protection that are shown."""
SINGLE = 12
"""Faces of people with one photo that are shown."""
FACELESS = 48
"""Photos that are shown because no face was found in them."""
EXAMPLES = 3
"""Files that are named for each reason."""
OTHER = "other reasons"
_REASONS = 200
"""Distinct reasons that are told apart."""
_SUFFIXES = 1000
_SECONDS = 4096
"""Spans of time that are told apart."""

Item = TypeVar("Item")


def likeness(face: dict) -> float | None:
  """How much a face still looks like its person to those cloaked against.

  Args:
    face: of a row.

  Returns:
    The mean of the cosines, each in 0..1: 0 for a stranger, 1 for the same
    face. None where the row does not say.
  """
  cosines = [c for _, c in _cosines(face)]
  if not cosines:
    return None
  return sum(min(max(c, 0.0), 1.0) for c in cosines) / len(cosines)


def _cosines(face: dict) -> Iterator[tuple[str, float]]:
  for name, measured in (face.get("extractors") or {}).items():
    if (cosine := measured.get("cosine")) is not None:
      yield name, cosine


@dataclasses.dataclass(frozen=True, kw_only=True)
class Face:
  """One face of a photo.

  Attributes:
    row: of the photo.
    index: of the face in `row.faces`.
  """

  row: Row
  index: int

  @property
  def measured(self) -> dict:
    """What the row says of it."""
    return self.row.faces[self.index]

  @property
  def key(self) -> tuple[str, int]:
    """What tells it from all other faces."""
    return self.row.path, self.index


class Sample(Generic[Item]):
  """A few of many, each as likely as any other (Vitter's algorithm R).

  The same items in the same order always give the same sample.

  Attributes:
    seen: how many there were.
    items: the sample.
  """

  def __init__(self, size: int):
    self._size = size
    self._random = random.Random(0)
    self.seen = 0
    self.items: list[Item] = []

  def add(self, item: Item) -> None:
    """Takes an item into account."""
    self.seen += 1
    if len(self.items) < self._size:
      self.items.append(item)
    elif (place := self._random.randrange(self.seen)) < self._size:
      self.items[place] = item


class Largest(Generic[Item]):
  """The items with the largest values."""

  def __init__(self, size: int):
    self._size = size
    self._numbers = itertools.count()
    self._heap: list[tuple[float, int, Item]] = []

  def add(self, value: float, item: Item) -> None:
    """Takes an item into account; of equal ones the first are kept."""
    entry = (value, -next(self._numbers), item)
    if len(self._heap) < self._size:
      heapq.heappush(self._heap, entry)
    else:
      heapq.heappushpop(self._heap, entry)

  def items(self) -> list[Item]:
    """The largest first."""
    return [item for _, _, item in sorted(self._heap, reverse=True)]


class Histogram:
  """How often values were in each of many narrow bins.

  Attributes:
    total: how many values there were.
    least: the smallest of them.
    greatest: the largest of them.
  """

  def __init__(self, low: float, high: float, bins: int):
    """Begins with no value.

    Args:
      low: the lower end of the first bin.
      high: the upper end of the last one; what is outside counts as the
        nearest bin's.
      bins: how many there are.
    """
    self._low = low
    self._width = (high - low) / bins
    self._counts = [0] * bins
    self.total = 0
    self.least, self.greatest = math.inf, -math.inf

  def add(self, value: float) -> None:
    """Takes a value into account."""
    place = int((value - self._low) / self._width)
    self._counts[min(max(place, 0), len(self._counts) - 1)] += 1
    self.total += 1
    self.least = min(self.least, value)
    self.greatest = max(self.greatest, value)

  def quantile(self, part: float) -> float:
    """What that part of the values is below, to the width of a bin."""
    reached = np.searchsorted(np.cumsum(self._counts), part * self.total)
    edge = self._low + (int(reached) + 1) * self._width
    return min(max(edge, self.least), self.greatest)

  def bars(self, low: float, high: float, bars: int) -> list[int]:
    """Counts in wider bins.

    Args:
      low: where the first begins.
      high: where the last ends.
      bars: how many there are.

    Returns:
      The count of each; what is outside belongs to the nearest.
    """
    middles = self._low + (np.arange(len(self._counts)) + 0.5) * self._width
    places = ((middles - low) / (high - low) * bars).astype(np.int64)
    counts = np.zeros(bars, np.int64)
    np.add.at(counts, np.clip(places, 0, bars - 1), self._counts)
    return counts.tolist()


class Timeline:
  """How many outcomes were known when.

  Attributes:
    total: how many there were.
    first: when the first was known, in seconds since 1970.
    last: the same of the last.
  """

  def __init__(self):
    self._width = 1
    self._counts: collections.Counter[int] = collections.Counter()
    self.total = 0
    self.first: int | None = None
    self.last: int | None = None

  def add(self, finished: str) -> None:
    """Takes a time into account, in ISO 8601; what is none is passed over."""
    try:
      second = int(datetime.datetime.fromisoformat(finished).timestamp())
    except ValueError:
      return
    self.total += 1
    self.first = second if self.first is None else min(self.first, second)
    self.last = second if self.last is None else max(self.last, second)
    self._counts[second // self._width] += 1
    while len(self._counts) > _SECONDS:
      self._width *= 2
      halved: collections.Counter[int] = collections.Counter()
      for key, count in self._counts.items():
        halved[key // 2] += count
      self._counts = halved

  def rates(self, most: int) -> tuple[int, list[float]]:
    """Outcomes a second, from the first to the last.

    Args:
      most: the largest number of spans.

    Returns:
      The length of a span in seconds, and the rate in each.
    """
    if self.first is None or self.last is None:
      return 1, []
    start = self.first // self._width
    keys = self.last // self._width - start + 1
    wide = -(-keys // most)
    counts = [0] * -(-keys // wide)
    for key, count in self._counts.items():
      counts[(key - start) // wide] += count
    seconds = wide * self._width
    rates = [count / seconds for count in counts]
    # The last span ends with the last outcome.
    begun = (start + (len(counts) - 1) * wide) * self._width
    rates[-1] = counts[-1] / max(1, self.last + 1 - begun)
    return seconds, rates


class Reasons:
  """Counts reasons, and keeps some of the files of each."""

  def __init__(self):
    self._known: dict[str, Sample[str]] = {}

  def add(self, reason: str, path: str) -> None:
    """Takes a file into account."""
    if reason not in self._known and len(self._known) >= _REASONS:
      reason = OTHER
    self._known.setdefault(reason, Sample(EXAMPLES)).add(path)

  def __len__(self) -> int:
    """The number of files."""
    return sum(sample.seen for sample in self._known.values())

  def __iter__(self) -> Iterator[tuple[str, int, list[str]]]:
    """Each reason, its count and some files; the most frequent first."""
    for reason, sample in sorted(
      self._known.items(), key=lambda item: (-item[1].seen, item[0])
    ):
      yield reason, sample.seen, sample.items


class Gathered:
  """What the rows of a run say, counted and sampled.

  Attributes:
    statuses: files by status.
    reasons: by status other than "failed", why.
    failed: why files failed.
    bare: why faces are unprotected.
    faces: the number of protected faces.
    alike: the sum of their likeness.
    judged: the number of faces whose likeness is known.
    dssim: of the protected faces.
    cosines: the same by extractor.
    times: when outcomes were known.
    weakest: the faces with the weakest protection.
    visible: the faces with the most visible change.
    sample: some protected faces.
    unprotected: some faces without protection.
    single: some faces of people of whom there was no other photo.
    faceless: some photos in which no face was found.
    likely: the same, in which one is likely; they are in no other list.
    copied: files that are no photos, by suffix.
    smallest: the sides of the smallest faces that were looked for, in pixels.
    named: how many results say who is on them.
    configs: the fingerprints of the configurations.
  """

  def __init__(self, rows: Iterable[Row]):
    self.statuses: collections.Counter[str] = collections.Counter()
    self.reasons: dict[str, Reasons] = collections.defaultdict(Reasons)
    self.failed = Reasons()
    self.bare = Reasons()
    self.faces = self.judged = self.named = 0
    self.alike = 0.0
    self.dssim = Histogram(0.0, 0.5, 5000)
    self.cosines: dict[str, Histogram] = {}
    self.times = Timeline()
    self._weakest: Largest[Face] = Largest(EXTREMES)
    self._visible: Largest[Face] = Largest(EXTREMES)
    self._sample: Sample[Face] = Sample(SAMPLE + 2 * EXTREMES)
    self.unprotected: Sample[Face] = Sample(BARE)
    self.single: Sample[Face] = Sample(SINGLE)
    self.faceless: Sample[Row] = Sample(FACELESS)
    self.likely: Sample[Row] = Sample(FACELESS)
    self.copied: collections.Counter[str] = collections.Counter()
    self.smallest: tuple[float, ...] = ()
    self.configs: set[str] = set()
    for row in rows:
      self._add(row)

  @property
  def files(self) -> int:
    """How many rows there are."""
    return self.statuses.total()

  @property
  def weakest(self) -> list[Face]:
    """The faces that still look most like their people, these first."""
    return self._weakest.items()

  @property
  def visible(self) -> list[Face]:
    """The faces with the largest DSSIM, these first."""
    return self._visible.items()

  @property
  def sample(self) -> list[Face]:
    """Some protected faces that are in neither of the others, by name."""
    shown = {face.key for face in (*self.weakest, *self.visible)}
    rest = [face for face in self._sample.items if face.key not in shown]
    return sorted(rest[:SAMPLE], key=lambda face: face.key)

  def _add(self, row: Row) -> None:
    self.statuses[row.status] += 1
    self.named += row.names
    if len(self.configs) < _REASONS:
      self.configs.add(row.config)
    if row.finished:
      self.times.add(row.finished)
    if (side := row.smallest_face) is not None:
      sides = (side, *self.smallest)
      self.smallest = (min(sides), max(sides))
    if row.status == "failed":
      self.failed.add(row.reason or "for an unknown reason", row.path)
    elif row.status == "copied":
      suffix = posixpath.splitext(row.path)[1].lower() or "no suffix"
      if suffix not in self.copied and len(self.copied) >= _SUFFIXES:
        suffix = "others"
      self.copied[suffix] += 1
    elif row.reason:
      self.reasons[row.status].add(row.reason, row.path)
    if row.status == "no_face":
      (self.likely if row.likely else self.faceless).add(row)
    for index, measured in enumerate(row.faces):
      self._add_face(Face(row=row, index=index), measured)

  def _add_face(self, face: Face, measured: dict) -> None:
    if why := measured.get("unprotected"):
      self.bare.add(why, face.row.path)
      self.unprotected.add(face)
      return
    self.faces += 1
    self._sample.add(face)
    if measured.get("photos") == 1:
      self.single.add(face)
    if (left := likeness(measured)) is not None:
      self.judged += 1
      self.alike += left
      self._weakest.add(left, face)
    if (dssim := measured.get("dssim")) is not None:
      self.dssim.add(dssim)
      self._visible.add(dssim, face)
    for name, cosine in _cosines(measured):
      if name not in self.cosines:
        self.cosines[name] = Histogram(-1.0, 1.0, 400)
      self.cosines[name].add(cosine)
