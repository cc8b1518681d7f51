"""launch/multi_gpu.sh, with a program that says how it was run."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Like fawkes-jax, it takes the signals' Python defaults, saves what it has in
# hand, and ends with the signal's exit code.
PROGRAM = """
import json, os, signal, sys, time

def note(what, **more):
  line = json.dumps({"what": what, "process": process, **more})
  with open(os.environ["RECORD"], "a") as file:
    file.write(line + "\\n")

def terminate(number, frame):
  raise SystemExit(143)

process = sys.argv[-1].removeprefix("--process_id=")
signal.signal(signal.SIGTERM, terminate)
note(
  "start", arguments=sys.argv[1:], gpu=os.environ.get("CUDA_VISIBLE_DEVICES")
)
if sys.argv[1:] == ["--version"]:
  raise SystemExit
try:
  if "CODES" in os.environ:
    time.sleep(0.0 if process else 0.5)
    raise SystemExit(int(os.environ["CODES"].split()[int(process)]))
  time.sleep(60)
except (KeyboardInterrupt, SystemExit) as error:
  time.sleep(0.5 if process == "0" else 0.0)
  note("end")
  raise SystemExit(getattr(error, "code", 130))
"""


@pytest.fixture
def program(write_command, tmp_path):
  return write_command(tmp_path / "program", PROGRAM, sys.executable)


@pytest.fixture
def variables(program, tmp_path):
  return {"FAWKES_JAX": str(program), "RECORD": str(tmp_path / "record")}


@pytest.fixture
def record(tmp_path):
  """What the program has noted so far."""

  def read(what=None):
    path = tmp_path / "record"
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if what in (None, row["what"])]

  return read


def test_a_process_for_each_gpu(launch, variables, record):
  result = launch(
    "multi_gpu.sh",
    "cloak",
    "--input=my photos",
    FAWKES_JAX_GPUS="3",
    CODES="0 0 0",
    **variables,
  )
  assert result.returncode == 0, result.stderr
  assert result.stderr == ""
  first, *others = record("start")
  assert first["arguments"] == ["--version"]  # Installs, once, before.
  assert sorted(row["gpu"] for row in others) == ["0", "1", "2"]
  for row in others:
    assert row["arguments"] == [
      "cloak",
      "--input=my photos",
      "--num_processes=3",
      f"--process_id={row['gpu']}",
    ]


def test_gpus_are_counted(launch, write_command, bin_folder, variables, record):
  write_command(
    bin_folder / "nvidia-smi",
    "[[ $* == --list-gpus ]] && echo 'GPU 0: A (UUID: x)' && echo 'GPU 1: A'",
  )
  result = launch("multi_gpu.sh", "cloak", CODES="0 0", **variables)
  assert result.returncode == 0, result.stderr
  gpus = sorted(row["gpu"] for row in record("start")[1:])
  assert gpus == ["0", "1"]


def test_gpus_that_are_visible(launch, variables, record):
  """A scheduler has given some of the machine's GPUs to this job."""
  result = launch(
    "multi_gpu.sh",
    "cloak",
    CUDA_VISIBLE_DEVICES="5,GPU-7a",
    CODES="0 0",
    **variables,
  )
  assert result.returncode == 0, result.stderr
  gpus = {row["process"]: row["gpu"] for row in record("start")[1:]}
  assert gpus == {"0": "5", "1": "GPU-7a"}


def test_the_highest_exit_code(launch, variables, record):
  """One that fails does not end the others."""
  result = launch(
    "multi_gpu.sh", "cloak", FAWKES_JAX_GPUS="3", CODES="0 3 1", **variables
  )
  assert result.returncode == 3
  assert "process 1 ended with exit code 3" in result.stderr
  assert "process 2 ended with exit code 1" in result.stderr
  assert "process 0" not in result.stderr
  assert len(record("end")) == 3


@pytest.mark.parametrize(
  "number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_signals(variables, record, wait_for, number, code):
  """All children get it, and the launcher waits until they have saved."""
  # Also where the tests run in the background, where SIGINT is ignored.
  listening = (
    "import os, signal, sys\n"
    "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    "os.execv(sys.argv[1], sys.argv[1:])\n"
  )
  launcher = subprocess.Popen(
    [
      *(sys.executable, "-c", listening, shutil.which("bash")),
      *(ROOT / "launch" / "multi_gpu.sh", "cloak"),
    ],
    env={"PATH": os.environ["PATH"], "FAWKES_JAX_GPUS": "3", **variables},
    stdin=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  try:
    wait_for(lambda: len(record("start")) == 4, "three processes run")
    launcher.send_signal(number)
    launcher.wait(timeout=30)
  finally:
    launcher.kill()
  assert launcher.returncode == code
  assert sorted(row["process"] for row in record("end")) == ["0", "1", "2"]


def test_over_local_sh(launch, make_environment, program, variables, record):
  """It installs with the extra cuda, beside those that are given."""
  folder = program.parent / "venv"
  make_environment(
    folder,
    extras="cuda,gcs",
    program=f'[[ $1 == --version ]] || exec "{program}" "$@"',
  )
  del variables["FAWKES_JAX"]
  result = launch(
    "multi_gpu.sh",
    "cloak",
    FAWKES_JAX_GPUS="1",
    FAWKES_JAX_EXTRAS="gcs",
    FAWKES_JAX_VENV=str(folder),
    CODES="0",
    **variables,
  )
  assert result.returncode == 0, result.stderr
  assert result.stderr == ""
  assert len(record("end")) == 1


@pytest.mark.parametrize(
  "arguments, given, message",
  [
    ([], {}, "the first argument must be cloak, got ''"),
    (["verify"], {}, "the first argument must be cloak, got 'verify'"),
    (
      ["cloak"],
      {"FAWKES_JAX_GPUS": "0"},
      "FAWKES_JAX_GPUS must be a number of GPUs, 1 or more, got '0'",
    ),
    (
      ["cloak"],
      {"FAWKES_JAX_GPUS": "two"},
      "FAWKES_JAX_GPUS must be a number of GPUs, 1 or more, got 'two'",
    ),
    (
      ["cloak"],
      {"FAWKES_JAX_GPUS": "3", "CUDA_VISIBLE_DEVICES": "0,1"},
      "FAWKES_JAX_GPUS must be at most 2, the number of GPUs of"
      " CUDA_VISIBLE_DEVICES=0,1, got 3",
    ),
  ],
)
def test_what_is_wrong(launch, variables, record, arguments, given, message):
  result = launch("multi_gpu.sh", *arguments, **variables, **given)
  assert result.returncode == 2
  assert result.stderr == f"launch/multi_gpu.sh: {message}\n"
  assert record() == []


def test_no_gpus(launch, write_command, bin_folder, variables, record):
  missing = launch("multi_gpu.sh", "cloak", path=bin_folder, **variables)
  assert missing.returncode == 2
  assert "there is no nvidia-smi; FAWKES_JAX_GPUS must say" in missing.stderr
  write_command(bin_folder / "nvidia-smi", "echo 'No devices were found'")
  none = launch("multi_gpu.sh", "cloak", **variables)
  assert none.returncode == 2
  assert "nvidia-smi lists no GPU" in none.stderr
  assert record() == []
