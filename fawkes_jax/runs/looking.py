"""Looks photos through: finds their faces, and embeds them."""

import concurrent.futures
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from fawkes_jax import types
from fawkes_jax.archive import index
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.faces import finder, recognition
from fawkes_jax.imaging import geometry
from fawkes_jax.options import FaceOptions
from fawkes_jax.photos import drafts
from fawkes_jax.photos.photo import Photo
from fawkes_jax.runs.failures import each
from fawkes_jax.runs.stages import Stages
from fawkes_jax.runs.triage import Loaded
from fawkes_jax.runs.waves import waves


class Looking:
  """Looks photos through, a wave at a time."""

  def __init__(
    self,
    options: FaceOptions,
    known: recognition.Recognition,
    pool: concurrent.futures.Executor,
    stages: Stages,
  ):
    """Looks at nothing yet.

    Args:
      options: of the run.
      known: what finds and embeds faces.
      pool: of as many threads as the options have.
      stages: are told how long it takes.
    """
    self._options = options
    self._recognition = known
    self._pool = pool
    self._stages = stages

  def loaded(
    self, sources: Iterable[SourceFile], read: Callable[[SourceFile], Any]
  ) -> Iterator[tuple[SourceFile, Any]]:
    """What comes of reading and decoding each source."""
    for wave in self._waves(sources, read):
      yield from _emptied(wave)

  def through(
    self, sources: Iterable[SourceFile], read: Callable[[SourceFile], Any]
  ) -> Iterator[tuple[SourceFile, Any, index.Seen | None]]:
    """Finds and embeds the faces of photos.

    Args:
      sources: their files.
      read: gives a `Loaded` to be decoded, or something else where there is
        nothing to see.

    Yields:
      Each source, what came of it, and what is seen in a photo; instead of a
      photo that could not be looked at, a PhotoError.
    """
    for wave in self._waves(sources, read):
      looked = iter(
        self._look(
          [(source, item) for source, item in wave if isinstance(item, Loaded)]
        )
      )
      for source, item in _emptied(wave):
        seen = next(looked) if isinstance(item, Loaded) else None
        if isinstance(seen, types.PhotoError):
          yield source, seen, None
        else:
          yield source, item, seen
        del item

  def _waves(
    self, sources: Iterable[SourceFile], read: Callable[[SourceFile], Any]
  ) -> Iterator[list[tuple[SourceFile, Any]]]:
    ahead = waves(
      iter(sources), read, threads=self._options.threads, pool=self._pool
    )
    while True:
      with self._stages.stage("loading"):
        wave = next(ahead, None)
      if wave is None:
        return
      yield wave

  def _look(
    self, photos: Sequence[tuple[SourceFile, Loaded]]
  ) -> list[index.Seen | types.PhotoError]:
    """What is seen in photos, or what went wrong."""
    look = self._recognition.finder.look
    with self._stages.stage("finding"):
      found = each(
        lambda some: look([item.photo.pixels for _, item in some], self._pool),
        photos,
        "looking for faces",
      )
    with self._stages.stage("embedding"):
      embedded = each(self._embedded, found, "looking at its faces")
    return [
      result
      if isinstance(result, types.PhotoError)
      else self._seen(source, item, *result)
      for (source, item), result in zip(photos, embedded, strict=True)
    ]

  def _embedded(
    self, found: Sequence[finder.Look]
  ) -> list[tuple[finder.Look, dict[str, np.ndarray]]]:
    """Embeds the faces of photos, those of all in one go."""
    everything = [face for look in found for face in look.faces]
    if not everything:
      return [(look, {}) for look in found]
    raw = self._recognition.embed(everything)
    embedded: list[tuple[finder.Look, dict[str, np.ndarray]]] = []
    first = 0
    for look in found:
      rows = slice(first, first + len(look.faces))
      first = rows.stop
      embedded.append((look, {name: e[rows] for name, e in raw.items()}))
    return embedded

  def _seen(
    self,
    source: SourceFile,
    item: Loaded,
    look: finder.Look,
    raw: Mapping[str, Float32[np.ndarray, "n d"]],
  ) -> index.Seen:
    faces, likely = look.faces, look.likely
    aligned = [face.alignment for face in faces]
    return index.Seen(
      path=source.name,
      sha256=item.sha256,
      smallest_face=self._recognition.finder.smallest(item.photo.pixels),
      boxes=np.array([face.box for face in faces], np.int32).reshape(-1, 4),
      scores=np.array([face.score for face in faces], np.float32),
      alignments=np.array(
        [
          (a.origin.real, a.origin.imag, a.axis.real, a.axis.imag, a.side)
          for a in aligned
        ],
        np.float64,
      ).reshape(-1, 5),
      embeddings={name: e.astype(np.float16) for name, e in raw.items()},
      likely=None if likely is None else (*likely.box, likely.score),
    )


def faces_of(
  photo: Photo,
  seen: index.Seen,
  known: recognition.Recognition,
  *,
  max_pixels: int,
) -> list[finder.AlignedFace]:
  """The faces of a photo that was looked at before.

  Args:
    photo: of which no more is decoded than they need.
    seen: what was seen of it.
    known: what has found them.
    max_pixels: see `codec.decode`.
  """
  boxes = [tuple(box) for box in seen.boxes.tolist()]
  alignments = [
    geometry.Alignment(
      origin=complex(*numbers[:2]),
      axis=complex(*numbers[2:4]),
      side=int(numbers[4]),
    )
    for numbers in seen.alignments.tolist()
  ]
  areas = [
    finder.area(photo.shape, box, alignment)
    for box, alignment in zip(boxes, alignments, strict=True)
  ]
  parts = drafts.parts(photo, areas, max_pixels=max_pixels)
  return [
    known.finder.at(
      part,
      shape=photo.shape,
      box=box,
      score=score,
      alignment=alignment,
      corner=corner[:2],
    )
    for part, box, score, alignment, corner in zip(
      parts, boxes, seen.scores.tolist(), alignments, areas, strict=True
    )
  ]


def _emptied(wave: list[Any]) -> Iterator[Any]:
  """The items of a list, which forgets them."""
  wave.reverse()
  while wave:
    yield wave.pop()
