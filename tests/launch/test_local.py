"""launch/local.sh; what it installs is tested by running it."""

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def commands(bin_folder):
  """A folder with the few commands that the launcher needs, but no Python."""
  for name in ("dirname", "cksum", "cat"):
    (bin_folder / name).symlink_to(shutil.which(name))
  return bin_folder


def test_no_python(launch, commands, tmp_path):
  venv = tmp_path / "venv"
  result = launch("local.sh", path=commands, FAWKES_JAX_VENV=str(venv))
  assert result.returncode != 0
  assert "Python 3.11 or newer must be installed" in result.stderr
  assert not venv.exists()


def test_an_old_python(launch, commands, write_command, tmp_path):
  """It is there under every name, but too old."""
  for name in ("python3.13", "python3", "python"):
    write_command(commands / name, "exit 1")
  venv = tmp_path / "venv"
  result = launch("local.sh", path=commands, FAWKES_JAX_VENV=str(venv))
  assert result.returncode != 0
  assert "Python 3.11 or newer must be installed" in result.stderr
  assert not venv.exists()


@pytest.fixture
def local(launch, commands, make_environment, tmp_path):
  """Runs the launcher with an environment that it takes for installed.

  Its commands are those of the environment that the tests run in.
  """

  def run(*arguments, installed="", **variables):
    venv = make_environment(
      tmp_path / "venv",
      extras=installed,
      program=f'cd "{ROOT}" && exec "{sys.executable}" -m fawkes_jax "$@"',
    )
    variables["FAWKES_JAX_VENV"] = str(venv)
    return launch("local.sh", *arguments, path=commands, **variables)

  return run


def test_without_arguments_it_shows_the_help(local):
  result = local()
  assert result.returncode == 0, result.stderr
  assert result.stdout.startswith("usage: fawkes-jax")
  assert result.stderr == ""


def test_arguments_and_exit_codes_are_passed_on(local):
  result = local("cloak", "--nonsense")
  assert result.returncode == 2
  assert "fawkes-jax cloak: there is no flag --nonsense" in result.stderr


def test_test_runs_pytest(local):
  result = local("test", "--version", installed="test")
  assert result.returncode == 0, result.stderr
  assert "pytest" in result.stdout + result.stderr


def test_other_extras_are_installed(
  launch, commands, make_environment, write_command, tmp_path
):
  """An environment without them is not taken as it is."""
  venv = make_environment(tmp_path / "venv", extras="", program="exit 1")
  write_command(
    venv / "bin" / "python", 'echo "$@"; exit 7'
  )  # Stands for an installation that fails.
  result = launch(
    "local.sh",
    "--help",
    path=commands,
    FAWKES_JAX_VENV=str(venv),
    FAWKES_JAX_EXTRAS="heic",
  )
  assert result.returncode == 7
  assert f"--editable {ROOT}[heic]" in result.stderr
  # Nothing is taken for installed that is not.
  assert "heic" not in (venv / ".fawkes_jax_installed").read_text()
