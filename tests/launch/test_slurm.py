"""launch/slurm.sbatch on a Slurm cluster that is this machine alone."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import chaos
import pytest
import servers

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "slurm.sbatch"

# Enough is made up to take the script as it is: CPUs, and devices for GPUs.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
SlurmctldPort={controller_port}
SlurmdPort={daemon_port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1
GresTypes=gpu
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=60 State=UP
"""
GPUS = """
NodeName={host} Name=gpu File=/dev/null
NodeName={host} Name=gpu File=/dev/zero
"""

# Stands for fawkes-jax, and records how it was run; it waits for a signal,
# unless the job was started again.
PROGRAM = """
import json, os, signal, sys, time

again = os.environ.get("SLURM_RESTART_COUNT")

def note(what):
  row = [what, again, sys.argv[1:], os.environ.get("CUDA_VISIBLE_DEVICES")]
  with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps(row) + "\\n")

def terminate(number, frame):
  note("terminated")
  sys.exit(143)

signal.signal(signal.SIGTERM, terminate)
if sys.argv[1:] == ["--version"]:
  note("installed")
  sys.exit()
note("started")
if not again:
  time.sleep(60)
note("ended")
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
  """Runs commands of Slurm; skips where it cannot be started."""
  for name in ("slurmctld", "slurmd", "sbatch", "srun", "scontrol"):
    if not shutil.which(name):
      pytest.skip(f"there is no {name}")
  if os.geteuid() != 0:
    pytest.skip("Slurm's daemons start jobs as root only")
  if not [*Path("/usr").glob("lib*/**/slurm*/auth_none.so")]:
    pytest.skip("this Slurm needs a service that authenticates")
  folder = tmp_path_factory.mktemp("slurm")
  host = socket.gethostname().partition(".")[0]
  configuration = folder / "slurm.conf"
  configuration.write_text(
    CONFIGURATION.format(
      host=host,
      folder=folder,
      controller_port=servers.free_port(),
      daemon_port=servers.free_port(),
    )
  )
  (folder / "gres.conf").write_text(GPUS.format(host=host))
  for name in ("state", "spool"):
    (folder / name).mkdir()
  environment = {
    "PATH": os.environ["PATH"],
    "SLURM_CONF": str(configuration),
  }

  def run(*command, cwd=folder, **variables):
    return subprocess.run(
      command,
      cwd=cwd,
      env={**environment, **variables},
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      check=True,
      timeout=20,
    ).stdout.strip()

  daemons = []
  try:
    for name in ("slurmctld", "slurmd"):
      with (folder / f"{name}.out").open("w") as out:
        daemons.append(
          subprocess.Popen(
            [name, "-D", "-f", configuration],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
          )
        )
    yield run
    run("scancel", "--user=root")
    end = time.monotonic() + 15
    while run("squeue", "--noheader") and time.monotonic() < end:
      time.sleep(0.2)
  finally:
    for daemon in reversed(daemons):
      daemon.terminate()
      try:
        daemon.wait(timeout=10)
      except subprocess.TimeoutExpired:
        daemon.kill()


@pytest.fixture
def job(cluster, wait_for, tmp_path, write_command):
  """Submits the script with two tasks; `rows` is what the program noted."""
  wait_for(
    lambda: cluster("sinfo", "--noheader", "--format=%T") == "idle",
    "the node is idle",
  )
  program = write_command(tmp_path / "my program", PROGRAM, sys.executable)
  record = tmp_path / "record"

  class Job:
    output = tmp_path / "log"

    def submit(self, *arguments, options=(), **variables):
      self.number = cluster(
        "sbatch",
        "--parsable",
        "--ntasks=2",
        f"--output={self.output}",
        *options,
        str(SCRIPT),
        *arguments,
        cwd=tmp_path,
        **{"RECORD": str(record), "FAWKES_JAX": str(program), **variables},
      )

    def rows(self, what):
      lines = record.read_text().splitlines() if record.exists() else []
      return [row for row in map(json.loads, lines) if row[0] == what]

    def state(self):
      told = cluster("scontrol", "show", "job", self.number)
      return dict(field.split("=", 1) for field in told.split() if "=" in field)

    def wait(self, so, what):
      wait_for(so, f"{what} in job {self.number}")

  return Job()


FILES = {"INPUT": "/my photos", "OUTPUT": "/cloaked"}


@pytest.mark.cluster
def test_two_tasks_are_asked_to_end_and_go_on(job, cluster):
  """As before the time limit: only the tasks get the signal."""
  job.submit("--mode=high", **FILES)
  job.wait(lambda: len(job.rows("started")) == 2, "two tasks run")
  assert len(job.rows("installed")) == 1  # Once, not by each task.
  for number, row in enumerate(sorted(row[2:] for row in job.rows("started"))):
    arguments = [
      "cloak",
      "--input=/my photos",
      "--output=/cloaked",
      "--mode=high",
      "--num_processes=2",
      f"--process_id={number}",
    ]
    assert row == [arguments, str(number)]  # And a GPU of its own.

  cluster("scancel", "--signal=TERM", job.number)
  job.wait(lambda: job.state()["Reason"] == "BeginTime", "it is queued again")
  assert len(job.rows("terminated")) == 2
  assert job.state()["Restarts"] == "1"
  # Slurm waits for two minutes; we do not.
  cluster("scontrol", "update", f"JobId={job.number}", "StartTime=now")
  job.wait(lambda: job.state()["JobState"] == "COMPLETED", "it has ended")
  assert [row[1] for row in job.rows("ended")] == ["1", "1"]
  assert job.state()["ExitCode"] == "0:0"


@pytest.mark.cluster
def test_preemption(job, cluster):
  """What Slurm does with a job that must make room."""
  job.submit(options=["--gpus-per-task=0"], **FILES)
  job.wait(lambda: len(job.rows("started")) == 2, "two tasks run")
  assert {row[3] for row in job.rows("started")} == {None}
  cluster("scontrol", "requeue", job.number)
  job.wait(lambda: len(job.rows("terminated")) == 2, "both have ended")
  job.wait(lambda: job.state()["Reason"] == "BeginTime", "it is queued again")
  cluster("scancel", job.number)


@pytest.mark.cluster
def test_cancelled_jobs_stay_cancelled(job, cluster):
  job.submit(**FILES)
  job.wait(lambda: len(job.rows("started")) == 2, "two tasks run")
  cluster("scancel", job.number)
  job.wait(lambda: len(job.rows("terminated")) == 2, "both have ended")
  job.wait(lambda: job.state()["JobState"] == "CANCELLED", "it is cancelled")
  assert job.state()["Restarts"] == "0"


@pytest.mark.cluster
def test_the_real_program_in_two_tasks(job, cluster, wait_for, tmp_path):
  """Both do their share, and together what one process does."""
  chaos.make_photos(tmp_path / "in", 24)
  with (tmp_path / "alone.log").open("w") as log:
    codes = chaos.run_all(tmp_path / "in", tmp_path / "alone", 1, {}, log)
    assert codes == [0]
  job.submit(
    *chaos.FLAGS,
    options=["--gpus-per-task=0"],
    FAWKES_JAX=str(Path(sys.executable).with_name("fawkes-jax")),
    INPUT=str(tmp_path / "in"),
    OUTPUT=str(tmp_path / "out"),
    HOME=os.environ.get("HOME", str(tmp_path)),
    FAWKES_JAX_CACHE=os.environ.get("FAWKES_JAX_CACHE", ""),
  )
  wait_for(
    lambda: job.state()["JobState"] in ("COMPLETED", "FAILED"),
    "the job has ended",
    seconds=240,
  )
  said = job.output.read_text()
  assert job.state()["JobState"] == "COMPLETED", said
  assert "\n8 files" in f"\n{said}"  # Process 1: what follows 16 of process 0.
  assert "process 0 of 2" in said
  assert "process 1 of 2" in said
  assert chaos.contents(tmp_path / "out") == chaos.contents(tmp_path / "alone")
  assert chaos.rows_of(tmp_path / "out") == chaos.rows_of(tmp_path / "alone")


@pytest.mark.parametrize("missing", ["INPUT", "OUTPUT"])
def test_missing_variables(job, missing):
  job.submit(**{**FILES, missing: ""})
  job.wait(lambda: job.state()["JobState"] == "FAILED", "it has failed")
  assert job.state()["ExitCode"] == "2:0"
  said = job.output.read_text()
  assert said.startswith(f"launch/slurm.sbatch: {missing} must be set to")
  assert job.rows("installed") == []


def test_it_wants_the_checkout(job):
  """Unless it is told what to run."""
  job.submit(FAWKES_JAX="", **FILES)
  job.wait(lambda: job.state()["JobState"] == "FAILED", "it has failed")
  assert "sbatch must be called in the checkout" in job.output.read_text()


def test_it_wants_slurm(launch):
  result = launch("slurm.sbatch", **FILES)
  assert result.returncode == 2
  assert "it must be started with sbatch" in result.stderr
