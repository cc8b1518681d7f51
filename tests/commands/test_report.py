"""`fawkes-jax report`, on outputs that were made up."""

import html.parser
import re

import made_up
import numpy as np
import pytest
from terminal import run

from fawkes_jax.archive import manifest, stores

PICTURE = "data:image/jpeg;base64,"


class Page(html.parser.HTMLParser):
  """The tags of a page, its text, and what each heading is over."""

  def __init__(self, text):
    super().__init__()
    self.tags = []
    self.text = ""
    self._open = []
    self.feed(text)
    assert not self._open, f"never closed: {self._open}"

  def handle_starttag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))
    if tag not in ("meta", "img", "input", "br"):
      self._open.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    if self._open and self._open[-1] not in ("style", "script"):
      self.text += data

  def all(self, tag):
    return [attributes for name, attributes in self.tags if name == tag]

  def alts(self):
    return [image["alt"] for image in self.all("img")]


@pytest.fixture
def places(tmp_path, small_astronaut):
  """A run over three photos with a face each."""
  source, output = tmp_path / "in", tmp_path / "out"
  dark = small_astronaut // 2
  photos = {"a.png": small_astronaut, "b/c.png": dark, "d.png": dark + 60}
  made_up.run(source, output, photos)
  return source, output


def report(output, *arguments, name="report.html"):
  ended = run("report", f"--output={output}", *arguments)
  assert (ended.code, ended.errors) == (0, "")
  return Page((output / name).read_text(encoding="utf-8")), ended.said


def test_faces_are_shown_before_after_and_their_change(places):
  source, output = places
  page, said = report(output, f"--input={source}")
  assert f"report: {output}/report.html" in said
  assert "do not publish it" in said
  for path in ("a.png", "b/c.png", "d.png"):
    for what in ("before", "after", "the change times 8; grey is unchanged"):
      assert f"{path}, {what}" in page.alts()
  assert "This file shows people’s faces" in page.text
  assert page.text.index("personal data") < page.text.index("Summary")
  assert "likeness left 0.40, DSSIM 0.0102, change up to 12 of 255" in page.text


def test_nothing_is_loaded_from_anywhere(places):
  source, output = places
  page, _ = report(output, f"--input={source}")
  addresses = [
    attributes[name]
    for _, attributes in page.tags
    for name in ("src", "href", "srcset", "action", "data")
    if name in attributes
  ]
  assert len(addresses) > 9
  assert all(a.startswith((PICTURE, "#")) for a in addresses)
  text = (output / "report.html").read_text()
  assert not re.search(r"https?:|@import|url\(", text)
  [policy] = [
    meta["content"]
    for meta in page.all("meta")
    if meta.get("http-equiv") == "Content-Security-Policy"
  ]
  assert "default-src 'none'" in policy


def test_without_pictures_there_is_none(places):
  source, output = places
  for flag in ("--no_faces", "--no-faces"):
    page, said = report(output, f"--input={source}", flag)
    assert page.all("img") == []
    assert PICTURE not in (output / "report.html").read_text()
    assert "This file has no pictures" in page.text
    assert "shows faces" not in said
    assert "b/c.png" in page.text  # Still in the tables.


def test_without_the_input_faces_are_shown_as_they_are_now(places):
  _, output = places
  page, said = report(output)
  assert "a.png, after" in page.alts()
  assert not any("before" in alt for alt in page.alts())
  assert "give --input to see them as they were" in page.text
  assert "as they were before they were cloaked" not in page.text
  assert "--input shows them as they were" in said


def test_photos_that_are_gone_or_altered_are_named(places):
  source, output = places
  (source / "a.png").unlink()
  (source / "d.png").write_bytes(b"something else")
  (output / "b/c.png").write_bytes(b"something else")
  page, _ = report(output, f"--input={source}")
  text = page.text
  assert "before cannot be shown: the photo is no longer in the input" in text
  assert "before cannot be shown: the photo has been altered since" in text
  assert "after cannot be shown: the result has been altered since" in text
  shown = set(page.alts())
  assert {"a.png, after", "b/c.png, before", "d.png, after"} <= shown
  assert "a.png, before" not in shown


def test_results_in_tar_files_are_shown(tmp_path, small_astronaut):
  source, output = tmp_path / "in", tmp_path / "out"
  made_up.run(source, output, {"a.png": small_astronaut}, kind="tar")
  page, _ = report(output, f"--input={source}")
  assert {"a.png, before", "a.png, after"} <= set(page.alts())


def test_a_bucket_gets_its_report(tmp_path, s3_server, small_astronaut):
  output = "s3://photos/report"
  made_up.run(tmp_path / "in", output, {"a.png": small_astronaut})
  ended = run("report", f"--output={output}", f"--input={tmp_path / 'in'}")
  assert (ended.code, ended.errors) == (0, "")
  assert f"report: {output}/report.html" in ended.said
  page = Page(stores.open_store(output).read("report.html").decode())
  assert {"a.png, before", "a.png, after"} <= set(page.alts())
  elsewhere = tmp_path / "pages" / "mine.html"
  ended = run("report", f"--output={output}", f"--file={elsewhere}")
  assert (ended.code, ended.errors) == (0, "")
  assert "a.png" in elsewhere.read_text()


def test_what_a_person_should_look_at_has_a_section(tmp_path, small_astronaut):
  output = tmp_path / "out"
  plain = made_up.png(small_astronaut)
  with manifest.Manifest(output) as record:
    (output / "sky.png").write_bytes(plain)
    record.append(
      made_up.row(
        "sky.png",
        "no_face",
        smallest_face=24.0,
        source_sha256=made_up.digest(plain),
        output_sha256=made_up.digest(plain),
      )
    )
    likely = {"box": [1, 2, 30, 40], "score": 0.375}
    record.append(made_up.row("z.png", "no_face", likely=likely))
    record.append(made_up.row("broken.png", "failed", reason="zero bytes"))
    record.append(made_up.row("clip.mp4", "copied"))
    record.append(made_up.row(".hidden", "skipped", reason="hidden"))
    bare = {"box": [0, 0, 9, 9], "unprotected": "too small"}
    alone = made_up.face() | {"photos": 1}
    others = made_up.face() | {"photos": 2}
    record.append(made_up.row("f.png", faces=(alone, bare, others)))
  page, _ = report(output)
  assert "sky.png, a photo in which no face was found" in page.alts()
  assert "Faces smaller than 24 pixels" in page.text
  assert "No face was found in 2 photos" in page.text
  assert "In 1 of them a face is likely" in page.text
  assert "z.png (a face is likely)" in page.text
  for words in ("zero bytes", "broken.png", "too small", "1 .mp4", "hidden"):
    assert words in page.text
  headings = re.findall(
    r"<h2[^>]*>([^<]*)", (output / "report.html").read_text()
  )
  assert {
    "Photos that failed",
    "Faces left unprotected",
    "People with only one photo",
  } < set(headings)
  assert "1 person is in no other photo" in page.text


def test_names_are_text_and_never_markup(tmp_path):
  output = tmp_path / "out"
  name = "<script>alert(1)</script>&amp;\"'.jpg"
  with manifest.Manifest(output) as record:
    record.append(made_up.row(name, "failed", reason="<b>bold</b>"))
    record.append(made_up.row("<i>.jpg", "no_face"))
  page, _ = report(output)
  assert len(page.all("script")) == 1
  assert page.all("b") == page.all("i") == []
  assert name in page.text
  assert "<b>bold</b>" in page.text


def test_a_page_does_not_grow_with_the_rows(tmp_path):
  sizes = []
  for count in (1_500, 5_000):
    output = tmp_path / str(count)
    with manifest.Manifest(output) as record:
      record.rows.put(made_up.many(count))
      record.finish()
    page, _ = report(output, "--no_faces")
    assert f"{count:,}" in page.text
    sizes.append((output / "report.html").stat().st_size)
  assert sizes[1] < 1.2 * sizes[0]


def test_a_run_that_is_writing_can_be_looked_at(tmp_path):
  output = tmp_path / "out"
  with manifest.Manifest(output) as record:
    record.append(made_up.row("a.jpg", faces=(made_up.face(),)))
    page, _ = report(output)
  assert "A process is still writing" in page.text


def test_what_is_no_output_of_a_run_is_refused(tmp_path):
  ended = run("report", f"--output={tmp_path}")
  assert ended.code == 2
  assert f"--output must hold a {manifest.NAME}" in ended.errors
  (tmp_path / manifest.NAME).write_text('{"rows": "of something else"}\n')
  ended = run("report", f"--output={tmp_path}")
  assert ended.code == 2
  assert "has no row that this version can read" in ended.errors
  assert not (tmp_path / "report.html").exists()


def test_rows_that_cannot_be_read_are_told(tmp_path):
  known = made_up.row("a.jpg", "no_face").to_json()
  unknown = known.replace("no_face", "of_a_later_version")
  (tmp_path / manifest.NAME).write_text(f"{known}\n{unknown}\n")
  page, said = report(tmp_path)
  assert "ignored line 2, not a row" in said
  assert "ignored line 2, not a row" in page.text


def test_a_result_is_never_replaced_by_the_report(tmp_path):
  with manifest.Manifest(tmp_path) as record:
    (tmp_path / "report.html").write_text("somebody's own")
    record.append(made_up.row("report.html", "copied"))
  ended = run("report", f"--output={tmp_path}")
  assert ended.code == 2
  assert "is a result of the run; choose another place" in ended.errors
  assert (tmp_path / "report.html").read_text() == "somebody's own"
  page, _ = report(
    tmp_path, f"--file={tmp_path / 'other.html'}", name="other.html"
  )
  assert "1 other file copied unchanged" in page.text


def test_a_place_that_cannot_be_written_is_named(places, tmp_path):
  _, output = places
  (tmp_path / "file").touch()
  ended = run("report", f"--output={output}", f"--file={tmp_path}/file/r.html")
  assert ended.code == 2
  assert f"{tmp_path}/file/r.html cannot be written" in ended.errors


def test_a_photo_is_never_taken_for_the_place_of_the_report(places):
  _, output = places
  before = (output / "a.png").read_bytes()
  ended = run("report", f"--output={output}", f"--file={output}/a.png")
  assert ended.code == 2
  assert "--file must be a name that ends in .html" in ended.errors
  assert (output / "a.png").read_bytes() == before


def test_cloak_writes_it_at_the_end(tmp_path):
  source, output = tmp_path / "in", tmp_path / "out"
  source.mkdir()
  (source / "notes.txt").write_text("no photo")
  options = ("--report", "--surrogates=dlib_resnet")
  ended = run("cloak", *options, source, output)
  assert (ended.code, ended.errors) == (0, "")
  assert f"report: {output}/report.html" in ended.said
  assert (
    "1 other file copied" in Page((output / "report.html").read_text()).text
  )
  again = run("cloak", *options, source, output)
  assert (again.code, again.errors) == (0, "")
  assert run("verify", f"--output={output}", f"--input={source}").code == 0


def test_the_report_of_a_single_photo_needs_a_folder(tmp_path):
  photo = tmp_path / "a.png"
  photo.write_bytes(made_up.png(np.zeros((64, 64, 3), np.uint8)))
  ended = run("cloak", "--report", photo, tmp_path / "b.png")
  assert ended.code == 2
  assert "b.png must be a folder for --report" in ended.errors
