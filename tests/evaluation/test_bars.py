import io

import pytest
import rich.console

from fawkes_jax.archive import manifest
from fawkes_jax.evaluation.bars import Bars
from fawkes_jax.runs import outcomes


@pytest.fixture
def console():
  def make(*, terminal):
    return rich.console.Console(
      file=io.StringIO(), force_terminal=terminal, width=80
    )

  return make


def test_a_log_gets_a_line_and_a_terminal_a_bar(console):
  for terminal in (False, True):
    shown = console(terminal=terminal)
    assert list(Bars(shown).track([1, 2, 3], "looking")) == [1, 2, 3]
    text = shown.file.getvalue()
    assert "looking" in text
    assert ("3 photos" in text) != terminal
    assert ("100%" in text) == terminal


def test_nothing_to_do_is_not_worth_a_word(console):
  shown = console(terminal=False)
  assert list(Bars(shown).track([], "looking")) == []
  assert shown.file.getvalue() == ""


def test_cloaks_are_counted_and_move_the_bar(console):
  shown = console(terminal=True)
  row = manifest.Row(path="a.png", status="cloaked", config="", faces=({}, {}))
  with Bars(shown).cloaking("cloaking, mid", 2) as watcher:
    for fresh in (True, False):
      watcher.settled(outcomes.Outcome(row=row, fresh=fresh))
  assert watcher.counts["fresh faces"] == 2
  assert watcher.counts["faces"] == 4
  assert "2/2" in shown.file.getvalue()
