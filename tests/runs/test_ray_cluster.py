"""A Ray cluster of several nodes on this machine, of which one is killed."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import chaos
import numpy as np
import pytest
import servers
from PIL import Image

from fawkes_jax.archive import index, manifest
from fawkes_jax.faces import grouping
from fawkes_jax.runs import ray_cluster

servers.need("ray")


@pytest.fixture(scope="module", autouse=True)
def _not_nice():
  """Ray's workers give way to other tests by default, and wait for minutes."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("RAY_worker_niceness", "0")
    yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  """Photos, and what becomes of them without a cluster."""
  folder = tmp_path_factory.mktemp("undisturbed")
  chaos.make_photos(folder / "in", 80)
  with (folder / "log").open("w") as log:
    assert chaos.run_all(folder / "in", folder / "out", 1, {}, log) == [0]
  return folder / "in", folder / "out"


class Nodes:
  """The cluster of `ray_nodes.py`."""

  def __init__(self, process):
    self._process = process
    self.address = self._answer("address")

  def _answer(self, word):
    for line in self._process.stdout:
      if line.startswith(word):
        return line.split()[-1]
    pytest.fail("the cluster has ended")

  def tell(self, what):
    self._process.stdin.write(f"{what}\n")
    self._process.stdin.flush()
    self._answer("done")


@contextlib.contextmanager
def cluster(workers):
  """A head without work, and so many nodes of one core."""
  with subprocess.Popen(
    [sys.executable, Path(__file__).parents[1] / "ray_nodes.py"],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
    env=chaos.as_for_users(),
  ) as process:
    nodes = Nodes(process)
    for _ in range(workers):
      nodes.tell("add")
    yield nodes
    process.stdin.close()
    process.wait(timeout=60)


def start(source, output, *flags):
  command = [
    *(sys.executable, "-m", "fawkes_jax", "cloak", *chaos.FLAGS),
    *(f"--input={source}", f"--output={output}", "--engine=ray", *flags),
  ]
  return subprocess.Popen(
    command,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env=chaos.as_for_users(),
  )


def outcomes(output):
  parts = (output / manifest.FOLDER).glob("*.jsonl")
  return sum(part.read_bytes().count(b"\n") for part in parts)


def same(expected, output):
  assert chaos.contents(output) == chaos.contents(expected)
  assert chaos.rows_of(output) == chaos.rows_of(expected)


@pytest.mark.cluster
def test_a_node_is_killed_in_the_middle(undisturbed, tmp_path, wait_for):
  source, expected = undisturbed
  output = tmp_path / "out"
  with cluster(2) as nodes:
    process = start(source, output, f"--ray_address={nodes.address}")
    wait_for(
      lambda: outcomes(output) >= 10 or process.poll() is not None,
      "ten outcomes",
      300,
    )
    before = outcomes(output)
    nodes.tell("kill")
    said, _ = process.communicate(timeout=300)
  assert process.returncode == 0, said
  assert 10 <= before < 80
  same(expected, output)


@pytest.mark.cluster
def test_a_machine_that_joins_gets_work(undisturbed, tmp_path, wait_for):
  """Until then the run waits; the head has no cores for it."""
  source, expected = undisturbed
  output = tmp_path / "out"
  with cluster(0) as nodes:
    process = start(source, output, f"--ray_address={nodes.address}")
    wait_for(
      lambda: list((output / manifest.FOLDER).glob("process-*.json")),
      "a sign of life",
      300,
    )
    nodes.tell("add")
    said, _ = process.communicate(timeout=300)
  assert process.returncode == 0, said
  same(expected, output)


@contextlib.contextmanager
def connected(nodes):
  """Ray, connected to a cluster."""
  import ray

  ray.init(address=nodes.address, logging_level="ERROR", log_to_driver=False)
  try:
    yield ray
  finally:
    ray.shutdown()


@pytest.mark.cluster
def test_who_is_who_is_the_same_when_a_machine_is_lost(monkeypatch):
  """All machines search for neighbours, until one of them is killed."""
  random = np.random.default_rng(0)
  who = random.integers(400, size=4000)
  faces = random.normal(size=(400, 64))[who] + random.normal(size=(4000, 64))
  faces = (faces / np.linalg.norm(faces, axis=1)[:, None]).astype(np.float32)
  photos = np.arange(4000)
  monkeypatch.setattr(grouping, "_EXACT", 100)
  monkeypatch.setattr(grouping, "_SEARCHED", 50)
  alone = grouping.groups(faces.copy(), photos, threshold=0.3)
  assert 400 <= len(set(alone.tolist())) < 1000
  machines = set()

  def mapping(function, blocks):
    def search(block):
      import time

      import ray

      time.sleep(0.1)  # As long as there is work, both machines come to it.
      start, found = function(block)
      return start, (found, ray.get_runtime_context().get_node_id())

    for start, (found, machine) in ray_cluster.everywhere(search, blocks):
      if len(machines) < 2:
        machines.add(machine)
        if len(machines) == 2:
          nodes.tell("kill")
      yield start, found

  with cluster(2) as nodes, connected(nodes):
    together = grouping.groups(
      faces.copy(), photos, threshold=0.3, mapping=mapping
    )
  assert len(machines) == 2
  np.testing.assert_array_equal(together, alone)


def say(command, *flags):
  """Runs a subcommand that ends well."""
  ended = subprocess.run(
    [sys.executable, "-m", "fawkes_jax", command, *flags],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=300,
    check=False,
    env=chaos.as_for_users(),
  )
  assert ended.returncode == 0, ended.stdout


@pytest.mark.cluster
def test_names_and_likely_faces_are_known_on_a_cluster(
  small_astronaut, tmp_path
):
  """Somebody who has a name, on two photos, and a face without a chin.

  What was seen of them is damaged, which a worker notices.
  """
  source, alone, output = (tmp_path / name for name in ("in", "one", "out"))
  source.mkdir()
  Image.fromarray(small_astronaut).save(source / "a.png")
  Image.fromarray(small_astronaut[:, ::-1]).save(source / "b.png")
  hidden = small_astronaut.copy()
  hidden[110:] = 90
  Image.fromarray(hidden).save(source / "hidden.png")
  looks = ("--surrogates=dlib_resnet", "--crop_size=160", "--batch_size=2")
  flags = ("--min_face_pixels=60", *looks)
  say("index", f"--input={source}", f"--output={alone}", *flags)
  say("people", f"--output={alone}", "--name=0=anna")
  shutil.copytree(alone, output)
  [shard] = (output / index.FOLDER).glob("faces-*")
  shard.write_bytes(shard.read_bytes()[:-9])
  rule = ("--min_face_pixels=60", "--spare=anna")
  say("cloak", *chaos.FLAGS, f"--input={source}", f"--output={alone}", *rule)
  with cluster(1) as nodes:
    process = start(source, output, f"--ray_address={nodes.address}", *rule)
    said, _ = process.communicate(timeout=300)
  assert process.returncode == 0, said
  assert "2 spared" in said
  damaged = f"{index.FOLDER}/{shard.name} is damaged: its photos are looked at"
  assert said.count(damaged) == 1
  assert "hidden.png: no face was found, but one is likely" in said
  [decision] = chaos.rows_of(output)["a.png"]["decisions"]
  assert (decision["nearest"], decision["cloak"]) == ("anna", False)
  same(alone, output)


@pytest.mark.cluster
@pytest.mark.parametrize(
  ("flags", "rule"),
  [
    (["--ray_address=127.0.0.1:1"], "--ray_address=127.0.0.1:1 must be a Ray"),
    (["--ray_address=ray://x:1"], "--ray_address must be auto or host:port"),
    (["--num_processes=2"], "--engine must be local where --num_processes"),
    (["--bank=nowhere"], "the target bank nowhere must be"),
  ],
)
def test_what_cannot_be(undisturbed, tmp_path, flags, rule):
  """Is said, where a worker says it too; the last case starts a Ray here."""
  process = start(undisturbed[0], tmp_path / "out", *flags)
  said, _ = process.communicate(timeout=200)
  assert process.returncode == 2
  assert f"fawkes-jax: {rule}" in said


@pytest.mark.cluster
def test_no_machine_comes(undisturbed, tmp_path):
  with cluster(0) as nodes:
    process = start(
      undisturbed[0],
      tmp_path / "out",
      *(f"--ray_address={nodes.address}", "--wait_minutes=0.05"),
    )
    said, _ = process.communicate(timeout=200)
  assert process.returncode == 2
  assert "must have a machine that can work, none was ready for 0.05" in said
