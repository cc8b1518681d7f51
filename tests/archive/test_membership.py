"""Several real processes that share an archive."""

import concurrent.futures
import threading
import time

import chaos
import pytest
import servers

from fawkes_jax import types
from fawkes_jax.archive import local_store, membership


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  """Forty photos in five folders, and what one process makes of them."""
  folder = tmp_path_factory.mktemp("undisturbed")
  chaos.make_photos(folder / "in", 40)
  with (folder / "log").open("w+") as log:
    codes = chaos.run_all(folder / "in", folder / "out", 1, {}, log)
    log.seek(0)
    assert codes == [0], log.read()
  return folder / "in", folder / "out"


def same(folder, output):
  assert chaos.contents(output) == chaos.contents(folder)
  assert chaos.rows_of(output) == chaos.rows_of(folder)


@pytest.mark.processes
def test_the_same_bytes_as_one_process(undisturbed, tmp_path):
  """Of a distributed run; the tests of buckets have others."""
  source, expected = undisturbed
  output, count = tmp_path / "out", 3
  address = f"127.0.0.1:{servers.free_port()}"
  flags = ["--distributed", f"--coordinator_address={address}"]
  with (tmp_path / "log").open("w+") as log:
    codes = chaos.run_all(source, output, count, {}, log, *flags)
    log.seek(0)
    said = log.read()
  assert codes == [0] * count, said
  for number in range(count):
    assert f"process {number} of {count}" in said
  same(expected, output)


@pytest.mark.processes
@pytest.mark.parametrize(
  ("kind", "server"), [("s3", servers.s3), ("gs", servers.gcs)]
)
def test_from_bucket_to_bucket(undisturbed, tmp_path, kind, server):
  source, expected = undisturbed
  with server(), (tmp_path / "log").open("w+") as log:
    output = f"{kind}://photos/the results"
    there = chaos.upload(source, kind)
    codes = chaos.run_all(there, output, 2, {}, log)
    log.seek(0)
    said = log.read()
    assert codes == [0, 0], said
    assert "all 2 processes: 30 no_face, 10 cloaked, 10 faces" in said
    same(expected, output)


@pytest.mark.processes
def test_what_a_bucket_refuses(undisturbed, tmp_path):
  """Costs the photos that it refuses, and no other."""
  source, expected = undisturbed
  refused = {
    "GET /the%20archive/trip%201/00001.jpg": 403,
    "GET /the%20archive/trip%202/00002.jpg": 404,
    "PUT /out/trip%203/00003.jpg": 403,
    "PUT /out/trip%200/00000.jpg": 403,
  }
  with servers.s3() as environment, (tmp_path / "log").open("w+") as log:
    there, output = chaos.upload(source), "s3://photos/out"
    url = environment["AWS_ENDPOINT_URL"]
    with servers.unreliable(url, refused=refused) as refusing:
      flags = {"AWS_ENDPOINT_URL": refusing}
      codes = chaos.run_all(there, output, 1, flags, log)
    log.seek(0)
    assert codes == [1], log.read()
    rows = chaos.rows_of(output)
    failed = {
      p: r["reason"] for p, r in rows.items() if r["status"] == "failed"
    }
    assert set(failed) == {
      "trip 0/00000.jpg",
      "trip 1/00001.jpg",
      "trip 2/00002.jpg",
      "trip 3/00003.jpg",
    }
    for path, reason in failed.items():
      verb = "read" if path[5] in "12" else "written"
      assert f"cannot be {verb}: " in reason
    wanted = {
      n: d for n, d in chaos.contents(expected).items() if n not in failed
    }
    assert chaos.contents(output) == wanted
    flags = ["--retry_failed"]
    assert chaos.run_all(there, output, 1, {}, log, *flags) == [0]
    same(expected, output)


@pytest.mark.processes
def test_killed_again_and_again(tmp_path):
  """A short version of what `chaos.py` does."""
  chaos.chaos(tmp_path, photos=40, kills=3, longest=6)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
  """Sixteen photos, and what one process makes of them."""
  folder = tmp_path_factory.mktemp("few")
  chaos.make_photos(folder / "in", 16)
  with (folder / "log").open("w+") as log:
    codes = chaos.run_all(folder / "in", folder / "out", 1, {}, log)
    log.seek(0)
    assert codes == [0], log.read()
  return folder / "in", folder / "out"


@pytest.mark.processes
def test_killed_in_each_phase(few, tmp_path):
  """While it looks, finds out who is who, cloaks, and tidies up."""
  source, expected = few
  with (tmp_path / "log").open("w") as log:
    chaos.phases(source, tmp_path / "out", expected, log)


@pytest.mark.processes
@pytest.mark.parametrize("comes_back", [True, False])
def test_killed_while_it_finds_out_who_is_who_for_others(
  few, tmp_path, comes_back
):
  """If process 0 never comes back, another one does what it did for all."""
  source, expected = few
  output = tmp_path / "out"
  moment = ("before", 2, f"{chaos.INDEX}people")
  patience = "--wait_minutes=2" if comes_back else "--wait_minutes=0.3"
  with (tmp_path / "log").open("w+") as log:
    ill = chaos.start(source, output, 0, 2, {}, log, patience, moment=moment)
    other = chaos.start(source, output, 1, 2, {}, log, patience)
    assert ill.wait() < 0
    if comes_back:
      well = chaos.start(source, output, 0, 2, {}, log, patience)
      assert well.wait() == 0
    code = other.wait()
    log.seek(0)
    assert code == 0, log.read()
    # Process 0 puts the manifest together.
    assert chaos.run_all(source, output, 1, {}, log) == [0]
  same(expected, output)


def beginning(folder, **changes):
  fields = {
    "process": 0,
    "processes": 2,
    "config": "c",
    "wait_seconds": 0.3,
    "counts": dict,
  }
  return membership.Team(local_store.LocalStore(folder), **(fields | changes))


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
  monkeypatch.setattr(membership, "BEAT_SECONDS", 0.05)


def test_the_first_process_never_arrives(tmp_path):
  with beginning(tmp_path, process=1) as second:  # noqa: SIM117
    with pytest.raises(
      types.FawkesError, match=r"process 0 of 2 never arrived: no sign of it"
    ):
      second.meet()


@pytest.mark.parametrize(
  ("change", "rule"),
  [
    ({"config": "d"}, r"0 has configuration c.*1 has configuration d"),
    ({"processes": 3}, r"0 has .* 2 processes.*1 has .* 3 processes"),
  ],
)
def test_another_configuration_is_refused(tmp_path, change, rule):
  """At once: process 0 gives signs of life."""
  with (
    beginning(tmp_path),
    beginning(tmp_path, process=1, wait_seconds=60, **change) as second,
    pytest.raises(types.FawkesError, match=rule),
  ):
    second.meet()


def test_what_an_earlier_run_left_is_waited_out(tmp_path):
  """A sign of a process that is no more refuses nobody."""
  with beginning(tmp_path, config="earlier"):
    pass
  with beginning(tmp_path, process=1, wait_seconds=60) as second:
    with beginning(tmp_path):
      second.meet()
    assert [
      s.config for s in membership.read(local_store.LocalStore(tmp_path))
    ] == [
      "c",
      "c",
    ]


def test_the_share_of_who_does_not_finish_is_done_by_process_0(tmp_path):
  warned, taken = [], []
  with beginning(tmp_path, processes=4, warn=warned.append) as first:
    first.meet()
    with beginning(tmp_path, process=1, processes=4) as second:
      second.meet()
      second.done()
    with beginning(tmp_path, process=2, processes=4) as third:
      third.meet()
    first.done()
    first.wait(dict, taken.append)
  # The second had left no sign of life that the first could see.
  assert sorted(taken)[-2:] == [2, 3]
  assert any("process 2 of 4 gave no sign of life" in text for text in warned)
  assert any("process 3 of 4 gave no sign of life" in text for text in warned)


def test_photos_that_came_meanwhile_are_said(tmp_path):
  with (
    beginning(tmp_path) as first,
    beginning(tmp_path, process=1) as second,
  ):
    first.done()
    second.done()
    with pytest.raises(types.FawkesError, match=r"3 photos .* has changed"):
      first.wait(lambda: {1: 3})


def both(folder, act, **changes):
  """Does something in two processes of a run at the same time."""
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    return list(
      pool.map(
        lambda n: act(n, beginning(folder, process=n, **changes)), (0, 1)
      )
    )


def test_a_phase_ends_when_all_have_ended_it(tmp_path):
  ended = []
  everybody = threading.Barrier(2)

  def act(number):
    with beginning(tmp_path, process=number, wait_seconds=60) as team:
      team.meet()
      time.sleep(0.3 * number)
      ended.append(number)
      team.left(number + 1)
      assert team.reach(1, lambda share: pytest.fail("nobody is lost")) == 3
      assert len(ended) == 2
      assert team.leads() == (number == 0)
      everybody.wait(timeout=60)

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    assert list(pool.map(act, (0, 1))) == [None, None]


def test_who_has_done_its_share_is_not_waited_for(tmp_path):
  """By one that was lost and comes late."""
  taken = []
  with beginning(tmp_path, wait_seconds=60) as first:
    first.reach(1, taken.append, leader=True)
    with beginning(tmp_path, process=1, wait_seconds=60) as second:
      second.meet()
      second.done()
    first.reach(2, taken.append)
  assert taken == [1]


@pytest.mark.parametrize("lost", [0, 1])
def test_the_share_of_a_process_that_is_lost_is_done_by_another(tmp_path, lost):
  taken, warned = [], []
  with beginning(tmp_path, process=lost, wait_seconds=0.5):
    team = beginning(
      tmp_path, process=1 - lost, wait_seconds=0.5, warn=warned.append
    )
    with team:
      team.meet()
  # It has left, and says nothing any more.
  with team_of(tmp_path, 1 - lost, warned) as team:
    team.reach(1, taken.append)
    assert taken == [lost]
    assert team.leads()
    assert set(team.shares) == {0, 1}
  assert f"process {lost} of 2 gave no sign of life" in warned[-1]


def team_of(folder, process, warned):
  return beginning(
    folder, process=process, wait_seconds=0.3, warn=warned.append
  )


def test_what_an_earlier_run_says_ends_no_phase(tmp_path):
  """Its process has surveyed an archive that may have changed since."""
  taken = []
  with beginning(tmp_path) as first:
    first.reach(1, taken.append)  # Takes over from process 1, which is not.
  taken.clear()
  with beginning(tmp_path, process=1, wait_seconds=0.3) as second:
    second.reach(1, taken.append)
  assert taken == [0]
