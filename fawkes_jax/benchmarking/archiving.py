"""Measures the stages before and after the solver."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import io
import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from fawkes_jax import types
from fawkes_jax.archive import files, scan
from fawkes_jax.benchmarking import rounds
from fawkes_jax.faces import cloaker, recognition
from fawkes_jax.options import BenchmarkOptions, CloakOptions
from fawkes_jax.photos import codec
from fawkes_jax.photos.photo import Photo
from fawkes_jax.runs import outcomes, pipeline, waves


def gather(options: BenchmarkOptions, folder: Path) -> list[Photo]:
  """Copies photos into a folder.

  Args:
    options: of the run: photos evenly over `data`, or copies of scikit-image's
      photograph of an astronaut, 512 x 512 pixels with one face.
    folder: gets the files, all of which can be decoded.

  Returns:
    The first ones, decoded.

  Raises:
    FawkesError: there is no photo.
  """
  most = options.photos or (8 if jax.default_backend() == "cpu" else 512)
  found = _from_data(options, most) if options.data else _astronauts(most)
  photos: list[Photo] = []
  # What finder and codecs get: what the pipeline looks at in one go.
  room = waves.BYTES
  for index, (suffix, photo) in enumerate(found):
    files.write_atomically(folder / f"{index:06}{suffix}", photo.source)
    if len(photos) < waves.PHOTOS and room > 0:
      photos.append(photo)
      room -= photo.pixels.nbytes
  if not photos:
    raise types.FawkesError(
      "--data must hold a photo that can be cloaked, got"
      f" {files.printable(options.data or '')}"
    )
  return photos


def _from_data(
  options: BenchmarkOptions, most: int
) -> Iterator[tuple[str, Photo]]:
  """Photos that can be decoded, evenly over a folder."""
  assert options.data is not None
  sources = [s for s in scan.scan(options.data, flag="data") if not s.status]
  count = min(most, len(sources))
  chosen = [sources[i * len(sources) // count] for i in range(count)]
  for source in chosen:
    with contextlib.suppress(types.PhotoError):
      data = recognition.read(source)
      photo = codec.decode(data, max_pixels=options.max_pixels)
      yield source.suffix, photo


def _astronauts(count: int) -> Iterator[tuple[str, Photo]]:
  """Copies of one photograph as JPEG."""
  import skimage.data

  buffer = io.BytesIO()
  Image.fromarray(skimage.data.astronaut()).save(buffer, "JPEG", quality=90)
  photo = codec.decode(buffer.getvalue(), max_pixels=1 << 20)
  return itertools.repeat((".jpg", photo), count)


def finding(
  loaded: cloaker.Cloaker, photos: Sequence[Photo]
) -> Iterator[rounds.Subject]:
  """Detection, alignment and embedding of one wave of photos."""
  networks = loaded.recognition
  finder = networks.finder
  pixels = [photo.pixels for photo in photos]
  faces = list(itertools.chain(*finder.find(pixels)))
  found = {"faces": len(faces)}
  amounts = {**_amounts(photos), **found}

  def boxes() -> None:
    finder.detector.detect(pixels, min_face_pixels=finder.min_face_pixels)

  def work(what: str, call: Callable[[], Any], amounts: dict) -> rounds.Work:
    title = {"what": what, "photos": len(photos)}
    return rounds.Work(part="detector", title=title, call=call, amounts=amounts)

  yield work("find boxes", boxes, amounts)
  yield work("find and align", lambda: finder.find(pixels), amounts)
  if faces:
    yield work("embed", lambda: networks.embed(faces), found)


def coding(
  photos: Sequence[Photo], options: BenchmarkOptions
) -> Iterator[rounds.Subject]:
  """Decoding and encoding of one wave of photos, in threads."""
  pool = concurrent.futures.ThreadPoolExecutor(options.threads)
  amounts = _amounts(photos)
  amounts["MB"] = sum(len(photo.source) for photo in photos) / 1e6

  def decode(photo: Photo) -> None:
    codec.decode(photo.source, max_pixels=options.max_pixels)

  def encode(photo: Photo) -> None:
    codec.encode(photo, [_patch(photo)])

  def work(what: str, function: Callable[[Photo], None]) -> rounds.Work:
    return rounds.Work(
      part="codecs",
      title={
        "what": what,
        "photos": len(photos),
        "threads": options.threads,
      },
      call=lambda: list(pool.map(function, photos)),
      amounts=amounts,
    )

  yield work("decode", decode)
  yield work("encode", encode)


def _amounts(photos: Sequence[Photo]) -> dict[str, float]:
  pixels = sum(photo.pixels.size // 3 for photo in photos)
  return {"photos": len(photos), "megapixels": pixels / 1e6}


def _patch(photo: Photo) -> types.Patch:
  """A random change of the middle ninth of a photo."""
  height, width = (side // 3 for side in photo.pixels.shape[:2])
  change = np.random.default_rng(0).integers(-8, 9, (height, width, 3))
  return types.Patch(left=width, top=height, change=change.astype(np.float32))


@dataclasses.dataclass(kw_only=True, eq=False)
class Pipeline(rounds.Subject):
  """Whole runs of `fawkes-jax cloak` with programs that are compiled.

  Attributes:
    part: see `Subject`.
    title: see there.
    options: the options of each run.
    loaded: what each run uses.
  """

  options: CloakOptions
  loaded: cloaker.Cloaker
  part: str = "pipeline"
  title: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    networks = self.loaded.recognition
    self.title = {
      "surrogates": "+".join(e.name for e in networks.extractors),
      "devices": networks.mesh.size,
      "batch size": self.loaded.executor.slots,
    }

  def prepare(self) -> Mapping[str, Any]:
    """One run, which compiles."""
    counts, _ = self._run()
    return {
      "photos": counts["files"],
      "faces": counts["faces"],
      "failed": counts["failed"],
    }

  def measure(self, seconds: float) -> Mapping[str, float]:
    """One run, however long it takes."""
    del seconds
    started = time.perf_counter()
    counts, stages = self._run()
    spent = time.perf_counter() - started
    return {
      "photos/s": counts["files"] / spent,
      "faces/s": counts["faces"] / spent,
      **{f"share {stage}": share / spent for stage, share in stages.items()},
    }

  def _run(self) -> tuple[collections.Counter[str], dict[str, float]]:
    """A run into a folder that is removed afterwards.

    Returns:
      What came of the files, see `outcomes.Outcome.count`; seconds by stage.
    """
    tally = outcomes.Tally()
    try:
      stages = pipeline.cloak_archive(self.options, tally, cloaker=self.loaded)
    finally:
      shutil.rmtree(self.options.output, ignore_errors=True)
    return tally.counts, stages
