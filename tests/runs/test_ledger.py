import datetime
import logging

from fawkes_jax import types
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.runs.ledger import Ledger, renamed

PHOTO = SourceFile(relative="trip/a.jpg")


def test_an_entry_is_of_this_run_and_of_now():
  outcome = Ledger("print").entry(
    PHOTO, "no_face", "left out", source_sha256="f" * 64
  )
  row = outcome.row
  assert (row.path, row.status, row.reason) == (
    "trip/a.jpg", "no_face", "left out"
  )  # fmt: skip
  assert (row.config, row.source_sha256) == ("print", "f" * 64)
  finished = datetime.datetime.fromisoformat(row.finished)
  age = datetime.datetime.now(datetime.UTC) - finished
  assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=1)
  assert outcome.fresh
  assert outcome.redone is None


def test_why_a_photo_is_done_again_is_told_with_its_outcome():
  ledger = Ledger("print")
  ledger.redo(PHOTO, "other options")
  other = SourceFile(relative="trip/b.jpg")
  assert ledger.entry(PHOTO, "cloaked", None).redone == "other options"
  assert ledger.entry(other, "cloaked", None).redone is None


def test_only_what_nobody_expected_is_logged_with_its_traceback(caplog):
  ledger = Ledger("print")
  with caplog.at_level(logging.ERROR):
    outcome = ledger.failure(PHOTO, types.PhotoError("too small"))
    assert not caplog.records
    error = types.UnexpectedError("unexpected KeyError while decoding it")
    error.__cause__ = KeyError("x")
    ledger.failure(PHOTO, error)
  assert (outcome.row.status, outcome.row.reason) == ("failed", "too small")
  [record] = caplog.records
  assert record.exc_info[1] is error.__cause__
  assert record.message.startswith("trip/a.jpg: unexpected KeyError")


def test_a_converted_photo_has_a_name_of_its_own():
  assert renamed(PHOTO, ".png") == "trip/a.jpg.png"
  assert renamed(PHOTO, "") is None
