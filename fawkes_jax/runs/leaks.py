"""For whom protection is at risk when a run has ended.

A cloak protects a person as far as all photos of the person have one: what is
left clean is what a tracker learns from.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Bool, Int64

from fawkes_jax import types
from fawkes_jax.archive import manifest, scan, storage
from fawkes_jax.faces import cloaker as cloaker_lib
from fawkes_jax.faces import finder, recognition
from fawkes_jax.runs import choosing, outcomes, people

FEW = 3
"""A cloak hides less of a person with fewer photos."""
_NAMED = 3
"""So many photos are named of each risk."""
_WAVE = 16
"""Photos in which faces are looked for at once."""


def found(
  store: storage.Store,
  rows: Iterable[manifest.Row],
  *,
  published: Int64[np.ndarray, " p"] | None = None,
) -> list[outcomes.Risk]:
  """The risks of the people of an archive.

  Args:
    store: the output folder.
    rows: of the manifest.
    published: how many clean photos of each person are known to be out there.

  Returns:
    Those that somebody has; none where it is not known who is who.

  Raises:
    FawkesError: what is known of people cannot be read.
  """
  if not people.are_known(store):
    return []
  whose = people.whose(store)
  count = int(whose.people.max(initial=-1)) + 1
  photos = np.bincount(whose.people, minlength=count)
  failed, spared, unsure = np.zeros((3, count), np.int64)
  names: dict[int, str] = {}
  for row in rows:
    shown = whose.of(row.source_sha256 or "")
    if shown is None or not len(shown):
      continue
    for person in shown.tolist():
      names.setdefault(person, row.path)
    if row.status == "failed":
      np.add.at(failed, shown, 1)
    elif row.decisions:
      kept = [not decision["cloak"] for decision in row.decisions]
      np.add.at(spared, shown[np.flatnonzero(kept)], 1)
      doubted = [not d["cloak"] and d["unsure"] for d in row.decisions]
      np.add.at(unsure, shown[np.flatnonzero(doubted)], 1)
  risks: list[tuple[str, Bool[np.ndarray, " p"]]] = [
    ("photos that failed", failed > 0),
    ("some photos that a rule spares", (spared > 0) & (spared < photos)),
    ("photos that a rule spares though it is unsure", unsure > 0),
    (f"fewer than {FEW} photos", photos < FEW),
  ]
  if published is not None:
    risks.insert(0, ("clean photos among the published ones", published > 0))
  return [
    outcomes.Risk(
      what=what,
      people=int(mask.sum()),
      first=tuple(
        itertools.islice(
          (names[p] for p in np.flatnonzero(mask).tolist() if p in names),
          _NAMED,
        )
      ),
    )
    for what, mask in risks
    if mask.any()
  ]


def published(
  folder: str, cloaker: cloaker_lib.Cloaker, everybody: people.People
) -> Int64[np.ndarray, " p"]:
  """How many photos of each person of an archive are in a folder.

  Args:
    folder: photos that are known to be out there without a cloak.
    cloaker: of the run.
    everybody: the people of the archive.

  Raises:
    FawkesError: the folder cannot be read.
  """
  counts = np.zeros(len(everybody), np.int64)
  for faces in _faces(folder, cloaker):
    own = cloaker.normalised(cloaker.recognition.embed(faces))
    nearest, likeness = everybody.nearest(own)
    np.add.at(counts, nearest[likeness >= choosing.LIKE], 1)
  return counts


def _faces(
  folder: str, cloaker: cloaker_lib.Cloaker
) -> Iterator[list[finder.AlignedFace]]:
  """The faces of photos, some at a time."""
  sources = iter(scan.scan(folder, flag="published"))
  while some := list(itertools.islice(sources, _WAVE)):
    photos = []
    for source in some:
      with contextlib.suppress(types.PhotoError):
        photo = recognition.load_photo(source, cloaker.options)
        photos.append(photo.pixels)
    faces = [f for one in cloaker.recognition.finder.find(photos) for f in one]
    if faces:
      yield faces
