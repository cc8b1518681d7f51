"""What the tests of the folder launch/ share."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def checkout() -> Path:
  """The checkout's root; skips where there is none, or no bash."""
  if not (ROOT / "launch" / "local.sh").exists():
    pytest.skip("not a checkout")
  if not shutil.which("bash"):
    pytest.skip("there is no bash")
  return ROOT


@pytest.fixture
def bin_folder(tmp_path) -> Path:
  """An empty folder for commands, to be put on the PATH."""
  folder = tmp_path / "bin"
  folder.mkdir()
  return folder


@pytest.fixture
def write_command():
  """Writes a file that bash, or this Python, runs."""

  def write(path, text, interpreter=None):
    path.write_text(f"#!{interpreter or shutil.which('bash')}\n{text}\n")
    path.chmod(0o755)
    return path

  return write


@pytest.fixture
def launch(bin_folder):
  """Runs a script of launch/ to its end, with `bin_folder` first on the PATH.

  It sees few of the environment's variables, and those that are given.
  """

  def run(script, *arguments, path=None, **variables):
    if path is None:
      path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
      [shutil.which("bash"), ROOT / "launch" / script, *arguments],
      env={"PATH": str(path), "HOME": os.environ.get("HOME", "/"), **variables},
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      check=False,
      timeout=60,
    )

  return run


@pytest.fixture
def make_environment(write_command):
  """Makes an environment that launch/local.sh takes for installed.

  Its Python is that of the tests; its fawkes-jax runs what is given.
  """
  pyproject = (ROOT / "pyproject.toml").read_bytes()
  checksum = subprocess.run(
    ["cksum"], input=pyproject, capture_output=True, check=True
  ).stdout.decode()

  def make(folder, *, extras, program):
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    write_command(folder / "bin" / "python", f'exec "{sys.executable}" "$@"')
    write_command(folder / "bin" / "fawkes-jax", program)
    (folder / ".fawkes_jax_installed").write_text(f"{extras} {checksum}")
    return folder

  return make
