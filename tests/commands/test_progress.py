"""What a run says of itself while it goes on."""

import io

import pytest
import rich.console

from fawkes_jax.archive import manifest
from fawkes_jax.commands import cloak, terminal
from fawkes_jax.runs import outcomes


class Watch:
  """A watch that is set by hand."""

  def __init__(self):
    self.time = 1000.0

  def __call__(self):
    return self.time


def run_of(files, *, with_faces, start, look, compile_, face, slots):
  """Times of a run, and what its clock expects to be left, over and over.

  Args:
    files: how many there are.
    with_faces: every so many-th has a face.
    start: seconds until the first file is looked through.
    look: seconds for each file.
    compile_: seconds for the solver's program.
    face: seconds for each slot's faces.
    slots: faces that end at the same time.

  Yields:
    The time since looking began, without preparations, and what is expected.
  """
  watch = Watch()
  clock = cloak._Clock(watch)
  watch.time += start
  clock.prepares(False)
  settled = cloaked = 0
  waiting = []

  def left(looked):
    return watch.time, clock.left(
      total=files, looked=looked, settled=settled, cloaked=cloaked
    )

  for number in range(1, files + 1):
    watch.time += look
    clock.looked()
    if number % with_faces:
      settled += 1
    else:
      waiting.append(number)
    yield left(number)
  clock.prepares(True)
  watch.time += compile_
  clock.prepares(False)
  yield left(files)
  while waiting:
    for part in range(1, 11):
      watch.time += face / 10
      if part < 10:
        yield left(files)
    for _ in waiting[:slots]:
      settled += 1
      cloaked += 1
      yield left(files)
    del waiting[:slots]


@pytest.mark.parametrize("with_faces", [1, 2, 10])
@pytest.mark.parametrize("slots", [1, 8])
def test_the_time_left_is_about_right_from_the_beginning(with_faces, slots):
  """Start and compiling, which come once, are not taken for the rule."""
  said = list(
    run_of(
      200, with_faces=with_faces, start=15, look=0.3, compile_=30,
      face=12, slots=slots,
    )
  )  # fmt: skip
  end = said[-1][0]
  known = [(time, left) for time, left in said if left is not None]
  assert len(known) > 30
  for time, left in known:
    if left > 60:
      assert left < 2.2 * (end - time)


def test_nothing_is_expected_before_there_is_a_reason():
  [first, *_] = run_of(
    9, with_faces=1, start=5, look=1, compile_=20, face=9, slots=2
  )
  assert first[1] is None


def shown(total, outcomes_):
  """The lines of a run without a terminal."""
  text = io.StringIO()
  console = rich.console.Console(file=text, soft_wrap=True)
  with cloak.Progress(console) as progress:
    progress.listed(total)
    for outcome in outcomes_:
      progress.looked()
      progress.settled(outcome)
    progress.prepares(True)
  return text.getvalue().splitlines()


def test_lines_say_what_is_done_and_count_as_people_do():
  row = manifest.Row(path="a.jpg", status="no_face", config="c")
  lines = shown(1, [outcomes.Outcome(row=row, fresh=True)])
  assert lines[:2] == ["preparing, about 30 s more on the first run", "1 file"]
  assert lines[2] == (
    "preparing, about 30 s more on the first run, 1 of 1 file done, 0 faces"
  )
  assert shown(2, [])[1] == "2 files"


def test_durations():
  assert terminal.duration(3.21) == "3.2 s"
  assert terminal.duration(61) == "1 min 1 s"
  assert terminal.duration(3 * 3600 + 120) == "3 h 2 min"
