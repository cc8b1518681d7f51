"""What holds for all shell scripts."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [
  *sorted((ROOT / "launch").glob("*.sh")),
  *sorted((ROOT / "launch").glob("*.sbatch")),
  ROOT / ".ci" / "run",
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_syntax(script):
  subprocess.run([shutil.which("bash"), "-n", script], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck(script):
  if not shutil.which("shellcheck"):
    pytest.skip("there is no shellcheck")
  result = subprocess.run(
    ["shellcheck", script], capture_output=True, text=True, check=False
  )
  assert result.returncode == 0, result.stdout + result.stderr
