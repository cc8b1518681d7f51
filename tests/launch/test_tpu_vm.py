"""launch/tpu_vm.sh, with folders of this machine for the hosts of a TPU.

A stand-in for gcloud records its arguments, copies files into the home folders
of two hosts, and runs there what is sent to them.
"""

import json
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHERE = {"PROJECT": "p", "ZONE": "z", "NAME": "slice"}
SLICE = {"ACCELERATOR_TYPE": "v6e-16", "RUNTIME_VERSION": "v2-alpha-tpuv6e"}

GCLOUD = """
import json, os, shutil, subprocess, sys
from pathlib import Path

arguments = sys.argv[1:]
hosts = sorted(Path(os.environ["HOSTS"]).iterdir())
with open(os.environ["HOSTS"] + ".calls", "a") as file:
  file.write(json.dumps(arguments) + "\\n")
codes = []
if "describe" in arguments:
  print(os.environ["STATE"])
elif "scp" in arguments:
  for host in hosts:
    shutil.copy(arguments[arguments.index("scp") + 1], host)
elif "ssh" in arguments:
  [command] = [a for a in arguments if a.startswith("--command=")]
  for host in hosts:
    shell = ["bash", "-c", command.removeprefix("--command=")]
    codes.append(
      subprocess.run(shell, cwd=host, env={**os.environ, "HOME": str(host)})
      .returncode
    )
sys.exit(max(codes, default=0))
"""

# Stands for fawkes-jax on a host.
PROGRAM = """
if [[ $1 == --version ]]; then echo 7.8; exit; fi
printf '%q ' "$@" >"$HOME/arguments"
trap 'echo "in order" >"$HOME/ended"; exit 143' TERM
echo "cloaking"
while true; do sleep 0.05; done
"""


@pytest.fixture
def hosts(tmp_path, make_environment):
  """The home folders of two hosts, where installing takes no time."""
  folders = [tmp_path / "hosts" / name for name in ("0", "1")]
  for folder in folders:
    make_environment(
      folder / "fawkes_jax_venv", extras="tpu,gcs", program=PROGRAM
    )
  return folders


@pytest.fixture
def tpu_vm(launch, bin_folder, write_command, hosts):
  write_command(bin_folder / "gcloud", GCLOUD, sys.executable)

  def run(*arguments, state="ACTIVE", **variables):
    variables = {**WHERE, "HOSTS": str(hosts[0].parent), **variables}
    return launch("tpu_vm.sh", *arguments, STATE=state, **variables)

  return run


@pytest.fixture
def calls(hosts):
  """What gcloud was called with."""

  def read():
    path = Path(f"{hosts[0].parent}.calls")
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]

  return read


def test_create(tpu_vm, calls):
  result = tpu_vm("create", "--network=mine", SPOT="1", **SLICE)
  assert result.returncode == 0, result.stderr
  [arguments] = calls()
  command = "compute tpus queued-resources create slice "
  assert " ".join(arguments).startswith(command)
  assert set(arguments[5:]) == {
    "--node-id=slice",
    "--accelerator-type=v6e-16",
    "--runtime-version=v2-alpha-tpuv6e",
    "--spot",
    "--network=mine",
    "--project=p",
    "--zone=z",
  }


def test_create_without_spot(tpu_vm, calls):
  assert tpu_vm("create", **SLICE).returncode == 0
  assert "--spot" not in calls()[0]


def test_delete(tpu_vm, calls):
  """The request with its slice; gcloud is left to ask."""
  assert tpu_vm("delete").returncode == 0
  [arguments] = calls()
  command = "compute tpus queued-resources delete slice --force"
  assert " ".join(arguments) == f"{command} --project=p --zone=z"
  assert tpu_vm("delete", "--quiet").returncode == 0
  assert "--quiet" in calls()[1]


def test_install(tpu_vm, calls, hosts, bin_folder, write_command):
  write_command(bin_folder / "python3", "exit 0")  # Is new enough.
  write_command(bin_folder / "sudo", 'echo "$@" >>"$HOME/sudo"')
  (hosts[0] / "fawkes_jax").mkdir()
  (hosts[0] / "fawkes_jax" / "old").touch()
  result = tpu_vm("install")
  assert result.returncode == 0, result.stderr
  assert result.stdout.count("fawkes-jax 7.8") == 2
  for host in hosts:
    for name in ("pyproject.toml", "fawkes_jax/cli/main.py", "launch/local.sh"):
      copied = host / "fawkes_jax" / name
      assert copied.read_bytes() == (ROOT / name).read_bytes()
    brought = {path.name for path in (host / "fawkes_jax").iterdir()}
    # All that pyproject.toml builds from, and nothing of an earlier one.
    assert {"LICENSE", "README.md", "checkpoints"} <= brought
    assert not brought & {"old", ".git", ".venv"}
    assert not (host / "sudo").exists()
  for call in calls():
    assert {"--worker=all", "--project=p", "--zone=z"} <= set(call)


def test_install_brings_a_python(tpu_vm, hosts, bin_folder, write_command):
  for name in ("python3", "python3.11"):
    write_command(bin_folder / name, "exit 1")
  write_command(bin_folder / "sudo", 'echo "$@" >>"$HOME/sudo"')
  result = tpu_vm("install")
  assert result.returncode == 0, result.stderr
  update, install = (hosts[1] / "sudo").read_text().splitlines()
  assert update.startswith("apt-get update")
  assert install.startswith("apt-get install -y")
  assert install.endswith(" python3.11-venv")


@pytest.mark.slow
def test_run_status_and_stop(tpu_vm, hosts, wait_for):
  """One run at a time; it ends in order, and the hosts are free again."""
  assert tpu_vm("install").returncode == 0
  flags = ["--input=gs://in/my photos", "--output=gs://out/$(x)"]
  try:
    started = tpu_vm("run", *flags)
    assert started.returncode == 0, started.stderr
    assert started.stdout.count("started") == 2
    for host in hosts:
      wait_for((host / "arguments").exists, "the program runs")
      said = shlex.split((host / "arguments").read_text())
      assert said == ["cloak", "--distributed", *flags]

    status = tpu_vm("status")
    assert status.stdout.startswith("slice: ACTIVE\n")
    assert status.stdout.count("a run is going on") == 2
    assert status.stdout.count("cloaking") == 2

    for second in ("run", "install"):
      refused = tpu_vm(second, *(flags if second == "run" else []))
      assert refused.returncode == 2
      assert refused.stderr.count("a run is going on") == 2
  finally:
    stopped = tpu_vm("stop")
  assert stopped.returncode == 0, stopped.stderr
  assert stopped.stdout.count("stopped") == 2
  for host in hosts:
    assert (host / "ended").read_text() == "in order\n"
  assert tpu_vm("status").stdout.count("no run is going on") == 2
  assert tpu_vm("stop").returncode == 0


def test_status_of_a_request(tpu_vm, calls):
  """No host is asked before there is one."""
  result = tpu_vm("status", state="WAITING_FOR_RESOURCES")
  assert result.stdout == "slice: WAITING_FOR_RESOURCES\n"
  assert len(calls()) == 1


@pytest.mark.parametrize(
  "arguments, given, message",
  [
    (
      [],
      {},
      "the first argument must be create, install, run, status, stop or"
      " delete, got ''",
    ),
    (
      ["start"],
      {},
      "the first argument must be create, install, run, status, stop or"
      " delete, got 'start'",
    ),
    (
      ["status"],
      {"PROJECT": ""},
      "PROJECT must be set to the name of a Google Cloud project, got ''",
    ),
    (
      ["status"],
      {"ZONE": ""},
      "ZONE must be set to a zone with TPUs, such as us-east5-b, got ''",
    ),
    (
      ["status"],
      {"NAME": ""},
      "NAME must be set to the name of the slice, your choice, got ''",
    ),
    (
      ["create"],
      {**SLICE, "ACCELERATOR_TYPE": ""},
      "ACCELERATOR_TYPE must be set to a type of TPU, such as v6e-16, got ''",
    ),
    (
      ["create"],
      {**SLICE, "RUNTIME_VERSION": ""},
      "RUNTIME_VERSION must be set to its software, such as v2-alpha-tpuv6e,"
      " got ''",
    ),
    (
      ["create"],
      {**SLICE, "SPOT": "yes"},
      "SPOT must be 0 or 1, got 'yes'",
    ),
    (["run"], {}, "run needs flags of fawkes-jax cloak, got none"),
  ],
)
def test_what_is_wrong(tpu_vm, calls, arguments, given, message):
  result = tpu_vm(*arguments, **given)
  assert result.returncode == 2
  assert result.stderr == f"launch/tpu_vm.sh: {message}\n"
  assert calls() == []


def test_no_gcloud(launch, tmp_path):
  result = launch("tpu_vm.sh", "status", path=tmp_path, **WHERE)
  assert result.returncode == 2
  assert "gcloud must be installed" in result.stderr


def test_a_failure_of_gcloud(launch, bin_folder, write_command):
  write_command(bin_folder / "gcloud", "echo 'no such project' >&2; exit 9")
  for arguments in (["create"], ["status"], ["run", "--input=x"], ["install"]):
    result = launch("tpu_vm.sh", *arguments, **WHERE, **SLICE)
    assert result.returncode == 9
    assert "no such project" in result.stderr
