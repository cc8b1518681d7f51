"""The scripts of launch/; what they install is tested by running them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCAL = ROOT / "launch" / "local.sh"
SCRIPTS = [*sorted((ROOT / "launch").glob("*.sh")), ROOT / ".ci" / "run"]

pytestmark = [
  pytest.mark.skipif(not LOCAL.exists(), reason="not a checkout"),
  pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash"),
]


def run(*arguments, path, **variables):
  """The launcher, where only some commands are to be found."""
  return subprocess.run(
    [shutil.which("bash"), LOCAL, *arguments],
    env={"PATH": str(path), "HOME": os.environ.get("HOME", "/"), **variables},
    capture_output=True,
    text=True,
    check=False,
    timeout=60,
  )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_syntax(script):
  subprocess.run([shutil.which("bash"), "-n", script], check=True)


@pytest.fixture
def commands(tmp_path):
  """A folder with the few commands that the launcher needs, but no Python."""
  folder = tmp_path / "bin"
  folder.mkdir()
  for name in ("dirname", "cksum", "cat"):
    (folder / name).symlink_to(shutil.which(name))
  return folder


def script(path, text):
  path.write_text(f"#!{shutil.which('bash')}\n{text}\n")
  path.chmod(0o755)


def test_no_python(commands, tmp_path):
  venv = tmp_path / "venv"
  result = run(path=commands, FAWKES_JAX_VENV=str(venv))
  assert result.returncode != 0
  assert "Python 3.11 or newer must be installed" in result.stderr
  assert not venv.exists()


def test_an_old_python(commands, tmp_path):
  """It is there under every name, but too old."""
  for name in ("python3.13", "python3", "python"):
    script(commands / name, "exit 1")
  venv = tmp_path / "venv"
  result = run(path=commands, FAWKES_JAX_VENV=str(venv))
  assert result.returncode != 0
  assert "Python 3.11 or newer must be installed" in result.stderr
  assert not venv.exists()


@pytest.fixture
def prepared(commands, tmp_path):
  """An environment that the launcher takes for installed.

  Its commands are those of the environment that the tests run in.
  """
  venv = tmp_path / "venv"
  (venv / "bin").mkdir(parents=True)
  script(venv / "bin" / "python", f'exec "{sys.executable}" "$@"')
  script(
    venv / "bin" / "fawkes-jax",
    f'cd "{ROOT}" && exec "{sys.executable}" -m fawkes_jax "$@"',
  )
  pyproject = (ROOT / "pyproject.toml").read_bytes()
  checksum = subprocess.run(
    ["cksum"], input=pyproject, capture_output=True, check=True
  ).stdout.decode()

  def install(extras):
    (venv / ".fawkes_jax_installed").write_text(f"{extras} {checksum}")
    return {"path": commands, "FAWKES_JAX_VENV": str(venv)}

  return install


def test_without_arguments_it_shows_the_help(prepared):
  result = run(**prepared(""))
  assert result.returncode == 0, result.stderr
  assert result.stdout.startswith("usage: fawkes-jax")
  assert result.stderr == ""


def test_arguments_and_exit_codes_are_passed_on(prepared):
  result = run("cloak", "--nonsense", **prepared(""))
  assert result.returncode == 2
  assert "usage: fawkes-jax cloak" in result.stderr


def test_test_runs_pytest(prepared):
  result = run("test", "--version", **prepared("test"))
  assert result.returncode == 0, result.stderr
  assert "pytest" in result.stdout + result.stderr


def test_other_extras_are_installed(prepared, tmp_path):
  """An environment without them is not taken as it is."""
  options = prepared("")
  script(
    tmp_path / "venv" / "bin" / "python", 'echo "$@"; exit 7'
  )  # Stands for an installation that fails.
  result = run("--help", **options, FAWKES_JAX_EXTRAS="heic")
  assert result.returncode == 7
  assert f"--editable {ROOT}[heic]" in result.stderr
  # Nothing is taken for installed that is not.
  stamp = (tmp_path / "venv" / ".fawkes_jax_installed").read_text()
  assert "heic" not in stamp
