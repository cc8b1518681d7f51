"""How the process of the command line begins and ends."""

import importlib
import shlex
import subprocess
import sys

import pytest
from terminal import run

from fawkes_jax import version
from fawkes_jax.archive import manifest

MODULE = (sys.executable, "-m", "fawkes_jax")


def test_version_and_module():
  done = subprocess.run(
    [*MODULE, "--version"], capture_output=True, text=True, check=True
  )
  assert done.stdout == f"{version.__version__}\n"


@pytest.mark.parametrize(("command", "goes_on"), [("cloak", 1), ("verify", 0)])
def test_interrupted(monkeypatch, places, command, goes_on):
  """A person is told to go on only where work was kept."""

  def interrupt(_):
    raise KeyboardInterrupt

  module = importlib.import_module(f"fawkes_jax.commands.{command}")
  monkeypatch.setattr(module, "run", interrupt)
  ended = run(command, f"--input={places[0]}", f"--output={places[1]}")
  assert ended.code == 130
  assert ended.errors.startswith("fawkes-jax: interrupted")
  assert ("the same command continues" in ended.errors) == goes_on


@pytest.mark.parametrize("where", ["", "Dying()", "gc.collect()"])
def test_sigterm_is_not_lost(where, tmp_path):
  """Also not in a callback, where Python drops exceptions."""
  script = f"""
import gc, os, signal, sys, time
from fawkes_jax import cli
from fawkes_jax.commands import status

def ask(*_):
  os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(0.01)

class Dying:
  def __del__(self):
    ask()

def run(options):
  if "collect" in {where!r}:
    gc.callbacks.append(lambda phase, _: ask() if phase == "start" else None)
  try:
    {where or "ask()"}
    time.sleep(60)
  finally:
    for _ in range(20):  # What must be tidied up is not disturbed again.
      time.sleep(0.01)
    print("tidied up", flush=True)

status.run = run
cli.entry(["status", "--output=x"])
"""
  done = subprocess.run(
    [sys.executable, "-c", script],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
    timeout=50,
  )
  assert done.returncode == 143
  assert done.stdout == "tidied up\n"
  assert "fawkes-jax: terminated" in done.stderr
  assert "Traceback" not in done.stderr


@pytest.fixture
def shown(tmp_path):
  """A command that says something, quickly."""
  with manifest.Manifest(tmp_path / "out") as record:
    record.append(manifest.Row(path="a.jpg", status="no_face", config="c"))
  return shlex.join((*MODULE, "status", str(tmp_path / "out")))


@pytest.mark.parametrize(
  ("streams", "errors"),
  [
    (">&-", ""),
    (">&- 2>&-", ""),
    ("<&- >&- 2>&-", ""),
    ("| true", ""),
    ("| head -c 1", ""),
    (">/dev/full", "fawkes-jax: standard output cannot be written (No space"),
  ],
)
def test_nobody_listens(shown, streams, errors):
  """The command goes on, and ends as it would have."""
  done = subprocess.run(
    ["bash", "-c", f"set -o pipefail; {shown} {streams}"],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert done.stderr.startswith(errors)
  assert done.stderr.count("\n") == bool(errors)


def test_raw_lines_of_others_do_not_reach_the_terminal(tmp_path):
  """Warnings and logs of packages say nothing to a person; ours do."""
  script = (
    "import logging, warnings, sys\n"
    "from fawkes_jax import cli\n"
    "from fawkes_jax.commands import status\n"
    "def run(options):\n"
    "  logging.getLogger('jax._src.xla_bridge').warning('raw')\n"
    "  logging.getLogger('absl').error('raw')\n"
    "  warnings.warn('raw')\n"
    "  logging.getLogger('fawkes_jax').warning('what %s can mend', 'a\\x1bb')\n"
    "  return 0\n"
    "status.run = run\n"
    "sys.argv = ['fawkes-jax', 'status', 'x']\n"
    "cli.entry()\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", script],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stderr == "fawkes-jax: what a\\x1bb can mend\n"
