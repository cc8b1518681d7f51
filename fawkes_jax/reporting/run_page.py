"""The page about a run: what became of the photos, and how faces look now."""

import dataclasses
import datetime
import math
from collections.abc import Iterator, Sequence

from fawkes_jax import version
from fawkes_jax.reporting import charts, gathering, page, pictures
from fawkes_jax.reporting.page import text

_BARS = 60
_STATUSES = {
  "cloaked": "at least one face is cloaked",
  "spared": "only people who were not to be cloaked",
  "no_face": "no face was found; copied, unless --on_no_face=skip",
  "copied": "not a photo; copied as it was",
  "skipped": "left out",
  "failed": "nothing was written",
}
_NOTES = 10
_SUFFIXES = 8
_CHARACTERS = 300
"""The longest text of a row that is shown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
  """What a page says of itself.

  Attributes:
    output: the output folder.
    input: the input; None where it was not given.
    faces: whether there are pictures.
    notes: what was noticed in the manifest, in words.
    running: whether a process is still writing.
    command: how the page is made again without pictures.
  """

  output: str
  input: str | None
  faces: bool
  notes: Sequence[str]
  running: bool
  command: str


def make(
  found: gathering.Gathered, shown: pictures.Pictures, about: About
) -> str:
  """The page.

  Args:
    found: what the rows say.
    shown: the pictures of its faces and photos; none without pictures.
    about: the rest.

  Returns:
    HTML.
  """
  sections = list(_sections(found, shown, about))
  links = "".join(
    f'<li><a href="#{identity}">{text(title)}</a></li>'
    for identity, title, _ in sections
  )
  return page.document(
    f"Cloaked photos: {about.output}",
    (
      "<header>",
      "<h1>What became of the photos</h1>",
      f'<p class="sub">{text(about.output)}{_when(found)}</p>',
      *_notices(about),
      f'<nav aria-label="Contents"><ul>{links}</ul></nav>',
      "</header>",
      '<main id="main" tabindex="-1">',
      *(page.section(*each) for each in sections),
      "</main>",
      f"<footer><p>Made by fawkes-jax {text(version.__version__)} on"
      f" {_date(datetime.datetime.now(datetime.UTC))}. This file loads nothing"
      " from anywhere.</p></footer>",
    ),
    script="report.js",
  )


def _sections(
  found: gathering.Gathered, shown: pictures.Pictures, about: About
) -> Iterator[tuple[str, str, Sequence[str]]]:
  """The identity, the title and the parts of each section."""
  yield "summary", "Summary", tuple(_summary(found))
  if len(found.failed):
    yield "failed", "Photos that failed", tuple(_failed(found))
  if len(found.bare):
    yield (
      "unprotected",
      "Faces left unprotected",
      tuple(_unprotected(found, shown)),
    )
  if found.faces:
    control = _control(shown)
    for identity, title, words, faces in (
      (
        "weakest",
        "Weakest protection",
        "The faces that still look most like the person to the recognisers"
        " that they were cloaked against, these first.",
        found.weakest,
      ),
      (
        "visible",
        "Most visible change",
        "The faces that were changed most, by their structural dissimilarity"
        " (DSSIM), these first.",
        found.visible,
      ),
      (
        "sample",
        "Some of the other faces",
        "A random sample.",
        found.sample,
      ),
    ):
      if faces:
        yield (
          identity,
          title,
          (
            page.paragraph(words),
            control,
            _faces(faces, shown),
          ),
        )
  if found.single.seen:
    yield "single", "People with only one photo", tuple(_single(found, shown))
  if found.faceless.seen or found.likely.seen:
    yield "faceless", "Photos without a face", tuple(_faceless(found, shown))
  if found.dssim.total or found.cosines:
    yield "measured", "Measured on the saved files", tuple(_measured(found))
  yield "speed", "Speed", tuple(_speed(found.times))


def _notices(about: About) -> Iterator[str]:
  """What must be known before one reads on, or passes the file on."""
  if about.faces:
    before = (
      ""
      if about.input is None
      else (" also as they were before they were cloaked.")
    )
    yield _notice(
      f"<strong>This file shows people’s faces{',' if before else '.'}</strong>"
      f"{before} Faces are personal data. Keep this file as you keep the"
      " original photos, and do not publish it with the cloaked ones.",
      f"Without pictures: <code>{text(about.command)}</code>",
    )
  else:
    yield _notice(
      "<strong>This file has no pictures,</strong> as it was asked for. It does"
      " name files, and their names may say who is in the photos."
    )
  if about.faces and about.input is None:
    yield _notice(
      "Faces are shown only as they are now. The record of a run does not say"
      " where its photos came from: give <code>--input</code> to see them as"
      " they were, too."
    )
  if about.running:
    yield _notice("A process is still writing: there will be more outcomes.")
  if about.notes:
    more = len(about.notes) - _NOTES
    yield _notice(
      "Some of the record could not be read:",
      *map(text, about.notes[:_NOTES]),
      *([f"and {_count(more, 'line')} more"] if more > 0 else ()),
    )


def _notice(*paragraphs: str) -> str:
  lines = "".join(f"<p>{words}</p>" for words in paragraphs)
  return f'<div class="notice" role="note">{lines}</div>'


def _when(found: gathering.Gathered) -> str:
  times = found.times
  if times.first is None or times.last is None:
    return ""
  first, last = _moment(times.first), _moment(times.last)
  if first.date() == last.date():
    return f", {_date(first)}"
  return f", {_date(first)} to {_date(last)}"


def _summary(found: gathering.Gathered) -> Iterator[str]:
  facts = [
    (found.files, "files" if found.files != 1 else "file", ""),
    (found.faces, _plural(found.faces, "face") + " protected", ""),
  ]
  bare = len(found.bare)
  facts.append(
    (bare, _plural(bare, "face") + " unprotected", "bad" if bare else "")
  )
  failed = found.statuses["failed"]
  facts.append((failed, "failed", "bad" if failed else ""))
  items = [(f"{n:,}", what, kind) for n, what, kind in facts]
  if found.judged:
    less = 100 * (1 - found.alike / found.judged)
    items.append((f"{less:.0f} %", "less like the person", ""))
  if found.dssim.total:
    items.append((f"{found.dssim.quantile(0.5):.4f}", "DSSIM, the median", ""))
  yield (
    '<dl class="facts">'
    + "".join(
      f'<div class="{kind}"><dt>{text(what)}</dt><dd>{text(value)}</dd></div>'
      for value, what, kind in items
    )
    + "</dl>"
  )
  if found.judged:
    many = len(found.cosines)
    yield page.paragraph(
      "“Less like the person” is what the recognisers say that cloaks are made"
      f" against ({many} of them), on average. Other recognisers are less"
      " misled, and strong ones may know the person all the same."
    )
  yield page.table(
    "Files by outcome",
    ("outcome", ">files", ">share", "what it means"),
    [
      (
        status.replace("_", " "),
        f"{count:,}",
        f"{100 * count / found.files:.1f} %",
        _STATUSES.get(status, ""),
      )
      for status, count in found.statuses.most_common()
    ],
  )
  reasons = [
    (_cut(reason), f"{count:,}", status.replace("_", " "))
    for status, known in sorted(found.reasons.items())
    for reason, count, _ in known
  ]
  if reasons:
    yield page.table(
      "Reasons, without those of failed photos",
      ("reason", ">files", "outcome"),
      reasons,
    )
  if found.copied:
    kinds = ", ".join(
      f"{count:,} {suffix}"
      for suffix, count in found.copied.most_common(_SUFFIXES)
    )
    more = ", ..." if len(found.copied) > _SUFFIXES else ""
    yield page.paragraph(
      f"{_count(found.copied.total(), 'other file')} copied unchanged, with any"
      f" faces in them: {kinds}{more}."
    )
  if found.named:
    yield page.paragraph(
      f"{_count(found.named, 'result')} with names of people in the metadata;"
      " --strip_names removes them."
    )
  if len(found.configs) > 1:
    yield page.paragraph(
      f"The files were done with {len(found.configs)} different sets of"
      " options."
    )


def _failed(found: gathering.Gathered) -> Iterator[str]:
  yield page.paragraph(
    "Nothing was written for these. `fawkes-jax status --failed` lists all of"
    " them; `fawkes-jax cloak --retry_failed` tries them again."
  )
  yield _reasons("Failed photos by reason", "photos", found.failed)


def _reasons(caption: str, what: str, reasons: gathering.Reasons) -> str:
  return page.table(
    caption,
    ("reason", f">{what}", "among them"),
    [
      (
        _cut(reason),
        f"{count:,}",
        ", ".join(_cut(path) for path in sorted(paths)),
      )
      for reason, count, paths in reasons
    ],
  )


def _unprotected(
  found: gathering.Gathered, shown: pictures.Pictures
) -> Iterator[str]:
  yield page.paragraph(
    "The cloaks of these faces came out as nearly nothing. A photo in which no"
    " face could be protected was not written."
  )
  yield _reasons("Unprotected faces by reason", "faces", found.bare)
  figures = []
  for face in found.unprotected.items:
    picture = shown.faces.get(face.key)
    jpeg = (picture.before or picture.after) if picture else None
    if jpeg is not None:
      alt = f"{_name(face)}, unprotected"
      figures.append(_figure(page.image(jpeg, alt), face.row.path))
  if figures:
    yield page.gallery(figures)


def _control(shown: pictures.Pictures) -> str:
  """A slider for all faces at once, where there are such."""
  if not any(picture.change for picture in shown.faces.values()):
    return ""
  return (
    '<label class="all">These faces: after <input type="range" min="0"'
    ' max="100" value="50" aria-label="All faces of this section: how much of'
    ' them is shown as it was before"> before</label>'
  )


def _faces(faces: Sequence[gathering.Face], shown: pictures.Pictures) -> str:
  """The faces side by side; in a table where there are no pictures."""
  if not shown.faces:
    return page.table(
      "Faces",
      ("photo", ">face", ">likeness left", ">DSSIM", ">change up to"),
      [
        (
          _cut(face.row.path),
          face.index + 1,
          _number(gathering.likeness(face.measured), ".2f"),
          _number(face.measured.get("dssim"), ".4f"),
          _number(face.measured.get("linf"), ".0f"),
        )
        for face in faces
      ],
    )
  return page.gallery(
    (_face(face, shown.faces.get(face.key)) for face in faces), kind="faces"
  )


def _face(face: gathering.Face, picture: pictures.FacePictures | None) -> str:
  """A face before, after, and the change, with what was measured of it."""
  picture = picture or pictures.FacePictures()
  name = _name(face)
  inner = []
  if picture.before and picture.after and picture.change:
    inner.append(
      '<div class="compare">'
      + page.image(picture.before, f"{name}, before", kind="before")
      + page.image(picture.after, f"{name}, after", kind="after")
      + '<span class="was">before</span><span class="is">after</span>'
      f'<input type="range" min="0" max="100" value="50"'
      f' aria-label="{text(name)}: how much of it is shown as it was before">'
      "</div>"
    )
    inner.append(
      page.image(
        picture.change,
        f"{name}, the change times {pictures.GAIN}; grey is unchanged",
      )
    )
  else:
    for jpeg, what in (picture.before, "before"), (picture.after, "after"):
      if jpeg:
        inner.append(page.image(jpeg, f"{name}, {what}"))
  pair = f'<div class="pair">{"".join(inner)}</div>' if inner else ""
  measured = face.measured
  said = [
    f"{label} {value:{form}}{unit}"
    for label, value, form, unit in (
      ("likeness left", gathering.likeness(measured), ".2f", ""),
      ("DSSIM", measured.get("dssim"), ".4f", ""),
      ("change up to", measured.get("linf"), ".0f", " of 255"),
    )
    if value is not None
  ]
  lines = [", ".join(said), *picture.missing]
  return _figure(pair, name, *lines)


def _figure(picture: str, name: str, *lines: str) -> str:
  said = "".join(f"<br>{text(line)}" for line in lines if line)
  return (
    f"<figure>{picture}<figcaption><b>{text(_cut(name))}</b>{said}</figcaption>"
    "</figure>"
  )


def _single(
  found: gathering.Gathered, shown: pictures.Pictures
) -> Iterator[str]:
  sample = found.single
  are = "person is" if sample.seen == 1 else "people are"
  told = (
    f"{sample.seen:,} {are} in no other photo, as far as their faces told."
    " Their faces are cloaked against this one photo instead of what several"
    " have in common, which protects them less. More photos of them in the same"
    " run help."
  )
  if sample.seen > len(sample.items):
    told += f" These are {len(sample.items)} of them, chosen at random."
  yield page.paragraph(told)
  yield _control(shown)
  faces = sorted(sample.items, key=lambda face: face.key)
  yield _faces(faces, shown)


def _faceless(
  found: gathering.Gathered, shown: pictures.Pictures
) -> Iterator[str]:
  likely, rest = found.likely, found.faceless
  seen = likely.seen + rest.seen
  told = (
    f"No face was found in {_count(seen, 'photo')}; they are as they were. Look"
    " for faces that were missed."
  )
  if likely.seen:
    told += (
      f" In {likely.seen:,} of them a face is likely, though the detector is"
      " not sure: look at these first."
    )
  some = len(likely.items) + len(rest.items)
  if shown.photos and seen > some:
    told += f" These are {some} of them, chosen at random."
  yield page.paragraph(told)
  if found.smallest:
    low, high = (f"{side:.0f}" for side in found.smallest)
    sides = low if low == high else f"{low} to {high}"
    yield page.paragraph(
      f"Faces smaller than {sides} pixels, depending on the size of the photo,"
      " were not looked for; --min_face_pixels finds smaller ones."
    )
  figures, untold = [], []
  for row in (
    *sorted(likely.items, key=lambda row: row.path),
    *sorted(rest.items, key=lambda row: row.path),
  ):
    name = f"{row.path} (a face is likely)" if row.likely else row.path
    picture = shown.photos.get(row.path)
    if isinstance(picture, bytes):
      alt = f"{row.path}, a photo in which no face was found"
      figures.append(_figure(page.image(picture, alt), name))
    else:
      untold.append(f"{name}: {picture}" if picture else name)
  if figures:
    yield page.gallery(figures, kind="photos")
  if untold:
    items = "".join(f"<li>{text(_cut(line))}</li>" for line in untold)
    yield f"<ul>{items}</ul>"


def _measured(found: gathering.Gathered) -> Iterator[str]:
  dssim = found.dssim
  if dssim.total:
    yield "<h3>How much faces were changed</h3>"
    said = _spread(dssim, ".4f")
    yield page.paragraph(
      "Structural dissimilarity (DSSIM): 0 is the same picture. Faces stay"
      f" within the budget of the mode, and most come close to it. {said}"
    )
    high = _round_up(dssim.greatest)
    yield _histogram(
      dssim,
      (0.0, high, 48),
      form=".4f",
      title="Faces by DSSIM",
      said=said,
      across="DSSIM",
    )
  if found.cosines:
    yield "<h3>How much they still look like the person</h3>"
    yield page.paragraph(
      "The cosine between a face before and after, to each recogniser that it"
      " was cloaked against: 1 is the same person, 0 a stranger."
    )
    low = min(0.0, *(h.least for h in found.cosines.values()))
    low = math.floor(low * 5) / 5
    parts = []
    for name, cosines in sorted(found.cosines.items()):
      said = _spread(cosines, ".2f")
      parts.append(
        f"<div><h4>{text(name)}</h4>"
        + page.paragraph(said)
        + _histogram(
          cosines,
          (low, 1.0, round((1 - low) * 20)),
          form=".2f",
          title=f"Faces by cosine, {name}",
          said=said,
          across="cosine that is left",
          width=charts.HALF,
        )
        + "</div>"
      )
    yield f'<div class="charts">{"".join(parts)}</div>'


def _histogram(
  values: gathering.Histogram,
  span: tuple[float, float, int],
  *,
  form: str,
  title: str,
  said: str,
  across: str,
  width: int = charts.WHOLE,
) -> str:
  low, high, bars = span
  counts = values.bars(low, high, bars)
  edges = [low + (high - low) * i / bars for i in range(bars + 1)]
  marks = [low + (high - low) * i / 5 for i in range(6)]
  return charts.bars(
    counts,
    title=title,
    description=said,
    ticks=[(i / 5, f"{mark:.3g}") for i, mark in enumerate(marks)],
    across=across,
    up="faces",
    width=width,
    names=[
      f"{count:,} from {edges[i]:{form}} to {edges[i + 1]:{form}}"
      for i, count in enumerate(counts)
    ],
  )


def _spread(values: gathering.Histogram, form: str) -> str:
  if values.total == 1:
    return f"The only one: {values.least:{form}}."
  return (
    f"The median is {values.quantile(0.5):{form}}; nine of ten are at most"
    f" {values.quantile(0.9):{form}}, and the largest is"
    f" {values.greatest:{form}}."
  )


def _speed(times: gathering.Timeline) -> Iterator[str]:
  first, last = times.first, times.last
  if first is None or last is None or last - first < 2:
    yield page.paragraph("The run was too short to tell.")
    return
  seconds, rates = times.rates(_BARS)
  mean = times.total / (last - first)
  said = (
    f"{times.total:,} files in {_duration(last - first)}, from the first"
    f" outcome to the last: {mean:.2f} a second, pauses included."
  )
  yield page.paragraph(said)
  begins = [_moment(first + i * seconds) for i in range(len(rates))]
  whole = first + len(rates) * seconds
  days = last - first > 86_400
  ticks = []
  for i in range(5):
    moment = _moment(round(first + (whole - first) * i / 4))
    ticks.append((i / 4, f"{moment:{'%d %b %H:%M' if days else '%H:%M:%S'}}"))
  yield charts.bars(
    rates,
    title="Files per second over time",
    description=said,
    ticks=ticks,
    across="time, UTC",
    up="files per second",
    names=[
      f"{rate:.2f} a second from {begin:%d %b %H:%M:%S}"
      for rate, begin in zip(rates, begins, strict=True)
    ],
  )


def _name(face: gathering.Face) -> str:
  """The photo of a face, and which of its faces it is."""
  path, many = face.row.path, len(face.row.faces)
  return path if many == 1 else f"{path}, face {face.index + 1} of {many}"


def _cut(words: str) -> str:
  if len(words) <= _CHARACTERS:
    return words
  return words[: _CHARACTERS - 3] + "..."


def _number(value: float | None, form: str) -> float | str:
  return "" if value is None else f"{value:{form}}"


def _plural(count: int, what: str) -> str:
  return what if count == 1 else f"{what}s"


def _count(count: int, what: str) -> str:
  return f"{count:,} {_plural(count, what)}"


def _round_up(value: float) -> float:
  """A round number that is not smaller, for the end of an axis."""
  if value <= 0:
    return 1.0
  unit = 10.0 ** math.floor(math.log10(value))
  ends = (factor * unit for factor in (1, 1.5, 2, 2.5, 3, 4, 5, 10))
  return min(end for end in ends if end >= value)


def _moment(second: int) -> datetime.datetime:
  return datetime.datetime.fromtimestamp(second, datetime.UTC)


def _date(moment: datetime.datetime) -> str:
  return f"{moment.day} {moment:%B %Y}"


def _duration(seconds: int) -> str:
  minutes, rest = divmod(seconds, 60)
  hours, minutes = divmod(minutes, 60)
  days, hours = divmod(hours, 24)
  if days:
    return f"{_count(days, 'day')} {hours} h"
  if hours:
    return f"{hours} h {minutes} min"
  return f"{minutes} min {rest} s" if minutes else f"{rest} s"
