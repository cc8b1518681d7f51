"""Which files are looked at, told from their names, bytes and rows."""

import dataclasses
import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from fawkes_jax import types
from fawkes_jax.archive import results, stores
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.runs import saving
from fawkes_jax.runs.copying import Copier
from fawkes_jax.runs.ledger import Ledger
from fawkes_jax.runs.triage import Known, Loaded, Triage, is_photo_name, read
from fawkes_jax.runs.waves import Ready


def png(value=0):
  buffer = io.BytesIO()
  Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(buffer, "png")
  return buffer.getvalue()


def file(name, data=None, **fields):
  data = png() if data is None else data
  return SourceFile(relative=name, load=lambda most: data, **fields)


@pytest.fixture
def begin(cloaker, tmp_path):
  """Makes the triage of a run into a folder, and what it knows by name."""
  store = stores.open_store(tmp_path / "out")
  kept = results.open_results(store, "tree")

  def make(known=None, foreign=(), with_faces=(), **changes):
    options = dataclasses.replace(
      cloaker.options, output=tmp_path / "out", **changes
    )
    ledger = Ledger(options.fingerprint())
    copier = Copier(options, saving.Saver(options, cloaker, kept), ledger)
    rows = known or {}
    return Triage(
      options,
      store,
      rows.get,
      lambda name: name in foreign,
      copier,
      ledger,
      lambda sha256: sha256 in with_faces,
    )

  return make


def load(triage, source):
  """What comes of a file, decoded if it is to be."""
  item = triage.read(source)
  return item.decode() if isinstance(item, Ready) else item


def test_a_photo_is_decoded(begin):
  loaded = load(begin(), file("a.png", png(7)))
  assert isinstance(loaded, Loaded)
  assert (loaded.photo.pixels == 7).all()


def test_a_photo_whose_faces_are_known_is_not_decoded(begin):
  data = b"not even a photo"
  sha256 = hashlib.sha256(data).hexdigest()
  known = load(begin(with_faces=[sha256]), file("a.png", data))
  assert known == Known(sha256=sha256)


@pytest.mark.parametrize(
  ("source", "status", "reason"),
  [
    (
      SourceFile(relative="a.jpg", status="failed", reason="no permission"),
      "failed", "no permission",
    ),
    (file("manifest.jsonl"), "skipped", "its name is that of the manifest"),
    (file("a.jpg", b"text"), "failed", "not an image, or damaged"),
    (file("a.jpg", b""), "failed", "zero bytes"),
  ],
)  # fmt: skip
def test_what_is_not_looked_at_has_a_reason(begin, source, status, reason):
  outcome = load(begin(), source)
  assert outcome.row.status == status
  assert reason in outcome.row.reason


def test_files_of_other_kinds_are_copied_or_left_out(begin, tmp_path):
  notes = file("notes.txt", b"text")
  outcome = load(begin(others="copy"), notes)
  assert outcome.row.status == "copied"
  assert (tmp_path / "out" / "notes.txt").read_bytes() == b"text"
  assert load(begin(others="skip"), notes).row.status == "skipped"


def test_a_failure_is_kept_unless_it_is_to_be_tried_again(begin):
  damaged = file("a.jpg", b"text")
  row = load(begin(), damaged).row
  known = {"a.jpg": row}
  kept = load(begin(known), damaged)
  assert (kept.row, kept.fresh) == (row, False)
  again = load(begin(known, retry_failed=True), damaged)
  assert (again.fresh, again.redone) == (True, "failed before")
  # A file that has changed is another one.
  assert isinstance(load(begin(known), file("a.jpg", png())), Loaded)


def test_a_file_that_is_no_result_stays(begin):
  outcome = load(begin(foreign={"a.png"}), file("a.png"))
  assert outcome.row.status == "failed"
  assert "another file of its name is in the output" in outcome.row.reason


def test_a_finished_photo_is_read_again_unless_it_is_damaged(cloaker):
  sound = read(file("a.png"), cloaker.options)
  assert isinstance(sound.decode(), Loaded)
  damaged = read(file("a.png", b"text"), cloaker.options)
  assert isinstance(damaged.decode(), types.PhotoError)


def test_a_photo_that_is_damaged_before_it_is_cloaked_fails(begin):
  outcome = begin().read_to_cloak(file("a.png", b"text")).decode()
  assert outcome.row.status == "failed"
  assert outcome.row.source_sha256 == hashlib.sha256(b"text").hexdigest()


def test_an_error_that_nobody_expected_costs_its_photo(begin):
  def broken(most):
    raise ZeroDivisionError("by the disk")

  outcome = load(begin(), SourceFile(relative="a.png", load=broken))
  assert outcome.row.reason == (
    "unexpected ZeroDivisionError while reading it: by the disk"
  )

  def stops(most):
    raise types.FawkesError("--input must be readable")

  with pytest.raises(types.FawkesError, match="--input"):
    load(begin(), SourceFile(relative="a.png", load=stops))


def test_names_of_photos_are_known():
  assert all(map(is_photo_name, ("a.JPG", "b/c.heic", "raw.dng")))
  assert not any(map(is_photo_name, ("a.txt", "jpg", "a.jpg/b", "")))
