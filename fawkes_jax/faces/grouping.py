"""Which faces of a whole archive are of the same person.

Each face knows its nearest neighbours, by faiss. Then those who are nearest to
each other join, again and again, as long as two groups are near enough; how
near is the mean cosine over all pairs of their faces (average linkage). This
linkage is reducible: what joins when all mutual neighbours join at once is what
joins when one pair after the other does (Bruynooghe 1977, Müllner 2011), so
that a few rounds over arrays do it. The mean over all pairs needs no pairs, as
it is the product of two sums.

The search for neighbours takes most of the time, and knows nothing but its
index: it is done for some faces at a time, by whatever maps it.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

# When it is imported, faiss says for which processor it was compiled.
logging.getLogger("faiss").setLevel(logging.WARNING)

import faiss  # noqa: E402

_NEIGHBOURS = 16
"""So many are asked of each face; people with more photos join in rounds."""
_EXACT = 50_000
"""Up to so many faces all are compared with all."""
_FACES_A_CELL = 256
_CELLS = 12
"""Of many faces, each is compared with those of so many cells."""
_LARGEST_CODE = 512
_LONG_CODES = 400_000
_ROWS = 65_536
_SEARCHED = 16_384
"""For so many faces neighbours are searched at once."""
_DIGITS = 1e-5

Pairs = tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]
Block = tuple[int, np.ndarray]
"""Some rows of many, and the place of the first."""
Map = Callable[[Callable[[Block], Block], Iterator[Block]], Iterable[Block]]
"""Gives what a function makes of each block, in any order: `map`, or what does
so on several machines. The function can be pickled."""


class Coder:
  """Makes vectors of faces; their product is the mean cosine of embeddings.

  Attributes:
    length: of a vector.
  """

  def __init__(self, length: int, *, faces: int):
    """Chooses how long the vectors are.

    Args:
      length: the numbers of all extractors' embeddings together.
      faces: how many there are; with more than 400,000 long vectors are
        projected on 512 random directions, which keeps products but for an
        error of about 0.03, so that a million find room in 2 GB.
    """
    self.length = length
    self._projection = None
    if faces > _LONG_CODES and length > _LARGEST_CODE:
      random = np.random.default_rng(length)
      directions, _ = np.linalg.qr(random.normal(size=(length, _LARGEST_CODE)))
      scale = (length / _LARGEST_CODE) ** 0.5
      self._projection = (directions * scale).astype(np.float32)
      self.length = _LARGEST_CODE

  def codes(
    self, embeddings: Mapping[str, Float32[np.ndarray, "n d"]]
  ) -> Float32[np.ndarray, "n c"]:
    """The vectors of faces, or of identities.

    Args:
      embeddings: normalised, by extractor.
    """
    names = sorted(embeddings)
    side_by_side = np.concatenate(
      [embeddings[name].astype(np.float32) for name in names], axis=1
    ) / np.float32(len(names) ** 0.5)
    if self._projection is None:
      return side_by_side
    return side_by_side @ self._projection


def groups(
  faces: Float32[np.ndarray, "n c"],
  photos: Int64[np.ndarray, " n"],
  *,
  threshold: float,
  mapping: Map = map,
) -> Int64[np.ndarray, " n"]:
  """Finds out which faces are of the same person.

  Two faces of one photo are two people.

  Args:
    faces: from `Coder.codes`, in an order that does not depend on names, so
      that the result does not; they are used up.
    photos: which photo each is in.
    threshold: the least mean cosine between the faces of two groups that are
      of one person.
    mapping: does the searches; the result does not depend on where.

  Returns:
    The person of each face, numbered in the order of their first faces.
  """
  labels = np.arange(len(faces))
  sums, counts = faces, np.ones(len(faces), np.float32)
  del faces  # Of many, only what they are joined to finds room.
  apart = _together(photos)
  while True:
    # People with many photos are too far from one another to be neighbours
    # of neighbours at first.
    joined = _join(sums, counts, apart, threshold, mapping)
    if (joined == np.arange(len(joined))).all():
      break
    kept, new = np.unique(joined, return_inverse=True)
    labels = new[labels]
    sums, counts = sums[kept], counts[kept]
    apart = _unique(new[apart[0]], new[apart[1]], len(kept))
  _, first, labels = np.unique(labels, return_index=True, return_inverse=True)
  return np.argsort(np.argsort(first))[labels]


def _join(
  sums: Float32[np.ndarray, "n c"],
  counts: Float32[np.ndarray, " n"],
  apart: Pairs,
  threshold: float,
  mapping: Map,
) -> Int64[np.ndarray, " n"]:
  """Joins mutual nearest neighbours until none are near enough.

  Args:
    sums: of the faces of each group; become those of the larger groups.
    counts: of faces, likewise.
    apart: groups that must not be joined.
    threshold: see `groups`.
    mapping: likewise.

  Returns:
    For each group the first of those that it has joined.
  """
  total = len(sums)
  leader = np.arange(total)
  left, right = _neighbours(sums, counts, mapping)
  likeness = _likeness(sums, counts, left, right)
  while True:
    near = np.flatnonzero(likeness >= threshold)
    pairs, never = _keys(left[near], right[near], total), _keys(*apart, total)
    near = near[~np.isin(pairs, never)]
    left, right, likeness = left[near], right[near], likeness[near]
    if not len(left):
      return leader
    joins = _mutual(left, right, likeness, total)
    first, second = left[joins], right[joins]
    for start in range(0, len(first), _ROWS):
      part = slice(start, start + _ROWS)
      sums[first[part]] += sums[second[part]]
    counts[first] += counts[second]
    moved = np.arange(total)
    moved[second] = first
    leader = moved[leader]
    changed = np.zeros(total, bool)
    changed[first] = True
    apart = _unique(moved[apart[0]], moved[apart[1]], total)
    left, right, order = _merged(moved[left], moved[right], total)
    likeness = likeness[order]
    again = changed[left] | changed[right]
    likeness[again] = _likeness(sums, counts, left[again], right[again])


def _mutual(
  left: np.ndarray, right: np.ndarray, likeness: np.ndarray, total: int
) -> np.ndarray:
  """The pairs that are each other's nearest.

  Equal ones are told apart as if at random, so that many can join at once.
  """
  mixed = (left * 0x9E3779B1 + right * 0x85EBCA77) & 0xFFFFFFFF
  order = np.lexsort((mixed, np.round(likeness / _DIGITS)))
  rank = np.empty(len(order), np.int64)
  rank[order] = np.arange(len(order))
  best = np.full(total, -1)
  np.maximum.at(best, left, rank)
  np.maximum.at(best, right, rank)
  return np.flatnonzero((best[left] == rank) & (best[right] == rank))


class _Search:
  """Finds the nearest of an index; can be pickled without a copy of it."""

  def __init__(self, index: Any, count: int):
    """Searches nothing yet.

    Args:
      index: of faiss.
      count: how many of the nearest are to be found.
    """
    self._index = index
    self._count = count

  def __call__(self, block: Block) -> Block:
    """The places of the nearest of each row, -1 where there is none."""
    start, vectors = block
    return start, self._index.search(vectors, self._count)[1].astype(np.int32)

  def __reduce__(self) -> tuple:
    """See `pickle`; faiss would make a string of the index."""
    return _found_again, (faiss.serialize_index(self._index), self._count)


def _found_again(index: np.ndarray, count: int) -> _Search:
  return _Search(faiss.deserialize_index(index), count)


def use_cores(count: int) -> None:
  """Lets the searches of this thread use so many cores."""
  faiss.omp_set_num_threads(count)


def _neighbours(
  sums: Float32[np.ndarray, "n c"],
  counts: Float32[np.ndarray, " n"],
  mapping: Map,
) -> Pairs:
  """Pairs of groups whose means are neighbours."""
  total, length = sums.shape
  if total < 2:
    return np.zeros(0, np.int64), np.zeros(0, np.int64)
  index: Any = faiss.IndexFlatIP(length)
  if total > _EXACT:
    cells = total // _FACES_A_CELL
    index = faiss.IndexIVFScalarQuantizer(
      faiss.IndexFlatIP(length),
      length,
      cells,
      # Bytes find the neighbours that half floats find, in half the memory;
      # how alike these are is computed from the floats.
      faiss.ScalarQuantizer.QT_8bit,
      faiss.METRIC_INNER_PRODUCT,
      False,
    )
    index.nprobe = _CELLS
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = 64
    index.cp.niter = 8
    some = np.random.default_rng(0).permutation(total)[: 64 * cells]
    index.train(_means(sums, counts, np.sort(some)))
  for start in range(0, total, _ROWS):
    index.add(_means(sums, counts, slice(start, start + _ROWS)))
  search = _Search(index, min(_NEIGHBOURS + 1, total))
  del index
  if total <= _SEARCHED:
    mapping = map  # It is one block, and done as soon here as elsewhere.
  lefts, rights = [], []
  for start, found in mapping(search, _blocks(sums, counts)):
    own = np.repeat(
      np.arange(start, start + len(found), dtype=np.int32), found.shape[1]
    )
    other = found.ravel()
    there = (other >= 0) & (other != own)
    own, other = own[there], other[there]
    lefts.append(np.minimum(own, other))
    rights.append(np.maximum(own, other))
  del search
  return _unique(np.concatenate(lefts), np.concatenate(rights), total)


def _blocks(sums: np.ndarray, counts: np.ndarray) -> Iterator[Block]:
  """The means of some groups at a time."""
  for start in range(0, len(sums), _SEARCHED):
    yield start, _means(sums, counts, slice(start, start + _SEARCHED))


def _means(
  sums: np.ndarray, counts: np.ndarray, rows: np.ndarray | slice
) -> np.ndarray:
  means = sums[rows] / counts[rows, None]
  return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)


def _likeness(
  sums: np.ndarray, counts: np.ndarray, left: np.ndarray, right: np.ndarray
) -> Float32[np.ndarray, " m"]:
  """The mean cosine over all pairs of faces of two groups each."""
  likeness = np.empty(len(left), np.float32)
  for start in range(0, len(left), _ROWS):
    part = slice(start, start + _ROWS)
    a, b = left[part], right[part]
    products = np.einsum("nd,nd->n", sums[a], sums[b])
    likeness[part] = products / (counts[a] * counts[b])
  return likeness


def _together(photos: Int64[np.ndarray, " n"]) -> Pairs:
  """All pairs of faces of one photo."""
  order = np.argsort(photos, kind="stable")
  _, starts, counts = np.unique(
    photos[order], return_index=True, return_counts=True
  )
  lefts, rights = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
  for start, count in zip(starts, counts, strict=True):
    if count > 1:
      own = np.sort(order[start : start + count])
      first, second = np.triu_indices(count, 1)
      lefts.append(own[first])
      rights.append(own[second])
  return np.concatenate(lefts), np.concatenate(rights)


def _unique(left: np.ndarray, right: np.ndarray, total: int) -> Pairs:
  """Pairs, each once and the smaller first."""
  # Of a million faces there are many: no place is kept of where they were.
  keys = np.unique(_keys(left, right, total))
  left, right = keys // total, keys % total
  differ = left != right
  return left[differ], right[differ]


def _keys(left: np.ndarray, right: np.ndarray, total: int) -> np.ndarray:
  """A number for each pair, whichever of both is first."""
  keys = np.minimum(left, right).astype(np.int64)
  keys *= total
  keys += np.maximum(left, right)
  return keys


def _merged(
  left: np.ndarray, right: np.ndarray, total: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The same, and which of the given they are."""
  keys, order = np.unique(_keys(left, right, total), return_index=True)
  left, right = keys // total, keys % total
  differ = left != right
  return left[differ], right[differ], order[differ]
