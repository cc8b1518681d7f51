"""Looks photos through: finds their faces, and embeds them."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fawkes_jax import types
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.faces import cloaker as cloaker_lib
from fawkes_jax.faces import finder
from fawkes_jax.options import CloakOptions
from fawkes_jax.photos.photo import Photo
from fawkes_jax.runs import saving
from fawkes_jax.runs.failures import each
from fawkes_jax.runs.stages import Stages
from fawkes_jax.runs.triage import Loaded
from fawkes_jax.runs.waves import waves


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Embedded:
  """The faces of a photo, with their embeddings by extractor."""

  faces: list[finder.AlignedFace]
  raw: dict[str, np.ndarray]
  own: dict[str, np.ndarray]


class Looking:
  """Looks photos through, a wave at a time."""

  def __init__(
    self,
    options: CloakOptions,
    cloaker: cloaker_lib.Cloaker,
    pool: concurrent.futures.Executor,
    stages: Stages,
  ):
    """Looks at nothing yet.

    Args:
      options: of the run.
      cloaker: of the same options.
      pool: of as many threads as the options have.
      stages: are told how long it takes.
    """
    self._options = options
    self._cloaker = cloaker
    self._pool = pool
    self._stages = stages

  def through(
    self,
    sources: Sequence[SourceFile],
    read: Callable[[SourceFile], Any],
  ) -> Iterator[tuple[SourceFile, Any, saving.Job | None]]:
    """Finds and embeds the faces of photos.

    Args:
      sources: their files.
      read: gives a `Loaded` to be decoded, or something else where there is
        nothing to see.

    Yields:
      Each source, what came of it, and a job where there are faces; instead
      of a photo that could not be looked at, a PhotoError.
    """
    ahead = waves(
      iter(sources), read, threads=self._options.threads, pool=self._pool
    )
    while True:
      with self._stages.stage("loading"):
        wave = next(ahead, None)
      if wave is None:
        return
      photos = {
        i: item.photo
        for i, (_, item) in enumerate(wave)
        if isinstance(item, Loaded)
      }
      seen = dict(zip(photos, self._look(list(photos.values())), strict=True))
      del photos
      # Each photo goes as soon as it is done with, before others come.
      for i, (source, item) in enumerate(_emptied(wave)):
        found = seen.get(i)
        if isinstance(found, types.PhotoError):
          yield source, found, None
        else:
          job = None if found is None else self._job(source, item, found)
          yield source, item, job
        del item

  def smallest_face(self, photo: Photo) -> float:
    """The smallest face that is looked for in a photo, see `manifest.Row`."""
    return self._cloaker.recognition.finder.smallest(photo.pixels)

  def _look(
    self, photos: Sequence[Photo]
  ) -> list[_Embedded | types.PhotoError | None]:
    """The faces of photos, None where there are none, or what went wrong."""
    find = self._cloaker.recognition.finder.find
    with self._stages.stage("finding"):
      found = each(
        lambda some: find([photo.pixels for photo in some], self._pool),
        photos,
        "looking for faces",
      )
    with self._stages.stage("embedding"):
      return each(self._embedded, found, "looking at its faces")

  def _embedded(
    self, found: Sequence[list[finder.AlignedFace]]
  ) -> list[_Embedded | None]:
    """Embeds the faces of photos, those of all in one go."""
    everything = [face for faces in found for face in faces]
    if not everything:
      return [None] * len(found)
    raw = self._cloaker.recognition.embed(everything)
    own = self._cloaker.normalised(raw)
    embedded: list[_Embedded | None] = []
    first = 0
    for faces in found:
      rows = slice(first, first + len(faces))
      first = rows.stop
      parts = [{name: e[rows] for name, e in x.items()} for x in (raw, own)]
      embedded.append(
        _Embedded(faces=faces, raw=parts[0], own=parts[1]) if faces else None
      )
    return embedded

  def _job(
    self, source: SourceFile, item: Loaded, found: _Embedded
  ) -> saving.Job:
    return saving.Job(
      source=source,
      sha256=item.sha256,
      grey=item.photo.grey,
      jpeg_tables=item.photo.jpeg_tables,
      smallest_face=self.smallest_face(item.photo),
      faces=found.faces,
      raw=found.raw,
      own=found.own,
    )


def _emptied(wave: list[Any]) -> Iterator[Any]:
  """The items of a list, which forgets them."""
  wave.reverse()
  while wave:
    yield wave.pop()
