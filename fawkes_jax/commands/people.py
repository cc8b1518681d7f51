"""`fawkes-jax people`: who is on the photos of an archive."""

import collections
import contextlib
import dataclasses
import io
import itertools

from PIL import Image

from fawkes_jax import types
from fawkes_jax.archive import (
  files,
  index,
  manifest,
  names,
  scan,
  stores,
)
from fawkes_jax.commands import terminal
from fawkes_jax.faces import recognition
from fawkes_jax.options import CloakOptions, PeopleOptions
from fawkes_jax.reporting import page
from fawkes_jax.runs import leaks, people

_SHOWN = 6
"""Faces of each person on the page."""
_SIDE = 96
"""Of a thumbnail, in pixels."""


@dataclasses.dataclass(kw_only=True)
class _Person:
  """What is known of a person.

  Attributes:
    number: of the person.
    name: that was given to the person, if any.
    faces: the photos by their sha256, and which of their faces it is.
    statuses: what became of these.
    spared: how many of them keep this person's face as it was, by a rule.
  """

  number: int
  name: str | None = None
  faces: list[tuple[str, int]] = dataclasses.field(default_factory=list)
  statuses: collections.Counter[str] = dataclasses.field(
    default_factory=collections.Counter
  )
  spared: int = 0

  def line(self) -> str:
    """In words."""
    called = f", {files.printable(self.name)}" if self.name else ""
    photos = terminal.number(len(self.faces), "photo")
    said = f"person {self.number}{called}: {photos}"
    if self.statuses:
      said += f" ({terminal.counted(self.statuses)})"
    if risks := self.risks():
      said += f"; at risk: {', '.join(risks)}"
    return said

  def risks(self) -> list[str]:
    """Why a tracker may know the person all the same."""
    risks = []
    if failed := self.statuses["failed"]:
      risks.append(f"{failed} failed")
    if self.spared:
      risks.append(f"{self.spared} spared by a rule")
    if len(self.faces) < leaks.FEW:
      risks.append(f"fewer than {leaks.FEW} photos")
    return risks


def run(options: PeopleOptions) -> int:
  """Gives people names, and lists them.

  Args:
    options: of the run.

  Returns:
    0.

  Raises:
    FawkesError: there is no index, or it cannot be read; nobody has a number
      that was given, or the names cannot be written.
  """
  console = terminal.console()
  store = stores.open_store(options.output)
  everybody: dict[int, _Person] = {}
  if not people.are_known(store):
    kept = names.read(store)
    raise types.FawkesError(
      f"{store.address} must hold an index of its people: `fawkes-jax index`,"
      " or `cloak` with --keep_index, makes one"
      + (f"; these names are kept for it: {names.shown(kept)}" if kept else "")
    )
  whose = people.whose(store)
  if options.named:
    with manifest.Manifest(options.output):
      names.write(store, _renamed(options, whose, names.read(store)))
  ends = itertools.pairwise(whose.first.tolist())
  for sha256, (begin, end) in zip(
    whose.sha256.astype(str).tolist(), ends, strict=True
  ):
    for face, number in enumerate(whose.people[begin:end].tolist()):
      person = everybody.setdefault(number, _Person(number=number))
      person.faces.append((sha256, face))
  for number, name in whose.called(names.read(store)).items():
    everybody[number].name = name
  _count(options, everybody)
  order = sorted(everybody.values(), key=lambda p: (-len(p.faces), p.number))
  count = len(order)
  console.print(
    f"{count} {'person' if count == 1 else 'people'} in"
    f" {files.printable(options.output)}"
  )
  for person in order[: options.most]:
    console.print(f"  {person.line()}")
  more = count - options.most
  if more > 0:
    console.print(f"  and {more} more, see --most")
  if options.named:
    console.print(
      f"  names lie in {files.printable(options.output)}/{names.FOLDER}, also"
      " without the index; `fawkes-jax forget` removes them"
    )
  if options.sheet is not None:
    sheet = _sheet(options, order[: options.most])
    try:
      files.write_atomically(options.sheet, sheet.encode())
    except OSError as error:
      raise types.FawkesError(
        f"--sheet={files.printable(options.sheet)} cannot be written:"
        f" {files.reason(error)}"
      ) from error
    console.print(f"  {files.printable(options.sheet)} shows them")
  return 0


def _renamed(
  options: PeopleOptions, whose: people.Whose, known: names.Names
) -> names.Names:
  """The names that there are when those of some people have changed.

  Raises:
    FawkesError: there is nobody of a number.
  """
  count = int(whose.people.max(initial=-1)) + 1
  for number, name in options.named:
    if number >= count:
      whom = f"their numbers end at {count - 1}" if count else "there are none"
      raise types.FawkesError(
        f"--name={number}={files.printable(name)} must be for one of the people"
        f" in {files.printable(options.output)}: {whom}"
      )
    name = names.plain(name)
    others = whose.called(known)
    former = others.pop(number, name)
    known = {
      called: frozenset(f for f in faces if whose.person(f) != number)
      for called, faces in known.items()
    }
    if former != name and former not in others.values():
      # Its other faces are on photos that are not here, and nobody's now.
      del known[former]
    if name:
      known[name] = known.get(name, frozenset()).union(whose.faces_of(number))
  return {called: faces for called, faces in known.items() if faces}


def _count(options: PeopleOptions, everybody: dict[int, _Person]) -> None:
  """Adds what became of the people's photos, if anything has."""
  rows = manifest.Rows()
  with contextlib.suppress(types.FawkesError):  # Only looked through so far.
    rows, _, _ = manifest.peek(options.output)
  found = {row.source_sha256: row for row in rows if row.source_sha256}
  for person in everybody.values():
    for sha256, face in person.faces:
      row = found.get(sha256)
      if row is not None:
        person.statuses[row.status] += 1
        if row.decisions[face : face + 1]:
          person.spared += not row.decisions[face]["cloak"]


def _sheet(options: PeopleOptions, order: list[_Person]) -> str:
  """A page with thumbnails, which needs nothing but itself."""
  wanted: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)
  for person in order:
    for sha256, face in person.faces[:_SHOWN]:
      wanted[sha256].append((person.number, face))
  seen = index.Index(stores.open_store(options.output), config=None)
  paths = {one.path: sha256 for sha256 in wanted if (one := seen.get(sha256))}
  faces: dict[int, list[bytes]] = collections.defaultdict(list)
  assert options.input is not None
  given = CloakOptions(input=options.input, output=options.output, convert=True)
  for source in scan.scan(options.input):
    sha256 = paths.pop(source.name, "")
    one = seen.get(sha256) if sha256 else None
    if one is None:
      continue
    with contextlib.suppress(types.PhotoError):
      picture = Image.fromarray(recognition.load_photo(source, given).pixels)
      for number, face in wanted[sha256]:
        faces[number].append(_thumbnail(picture, one.boxes[face].tolist()))
  title = f"People in {files.printable(options.output)}"
  sections = (
    page.section(
      f"person-{person.number}",
      person.line(),
      [
        page.gallery(
          page.image(jpeg, f"face {i} of person {person.number}")
          for i, jpeg in enumerate(faces[person.number], 1)
        )
      ],
    )
    for person in order
  )
  return page.document(
    title,
    [
      f"<header><h1>{page.text(title)}</h1></header>",
      '<main id="main">',
      '<div class="notice">'
      + page.paragraph(
        "This page shows faces, which are personal data. Do not publish it."
      )
      + "</div>",
      *sections,
      "</main>",
    ],
  )


def _thumbnail(picture: Image.Image, box: list[int]) -> bytes:
  """A face with a little around it, as a JPEG."""
  left, top, right, bottom = box
  more = (right - left) // 4
  face = picture.crop(
    (left - more, top - more, right + more, bottom + more)
  ).resize((_SIDE, _SIDE))
  file = io.BytesIO()
  face.save(file, "jpeg", quality=80)
  return file.getvalue()
