"""What an installed package brings, beside its modules."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytest.importorskip("hatchling")


def build(kind, folder):
  """Builds a wheel or an sdist of the checkout into a folder."""
  script = (
    "import sys\n"
    "from hatchling import build\n"
    f"print(build.build_{kind}(sys.argv[1]))\n"
  )
  subprocess.run(
    [sys.executable, "-c", script, folder],
    cwd=ROOT,
    check=True,
    capture_output=True,
  )


@pytest.mark.skipif(
  not (ROOT / "pyproject.toml").exists(), reason="not a checkout"
)
def test_the_wheel_brings_the_checkpoints(tmp_path):
  build("wheel", tmp_path)
  [wheel] = tmp_path.glob("*.whl")
  with zipfile.ZipFile(wheel) as archive:
    names = set(archive.namelist())
    wanted = {path.name for path in (ROOT / "checkpoints").iterdir()}
    assert {"weights.toml", "target_bank.safetensors"} <= wanted
    assert {f"fawkes_jax/checkpoints/{name}" for name in wanted} <= names
    brought = archive.read("fawkes_jax/checkpoints/weights.toml")
  assert brought == (ROOT / "checkpoints" / "weights.toml").read_bytes()


def test_the_sdist_brings_all_that_its_tests_read(tmp_path):
  """Every file of the repository, so that an unpacked one can be tested."""
  listed = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
  )
  if listed.returncode:
    pytest.skip("not a checkout")
  build("sdist", tmp_path)
  [sdist] = tmp_path.glob("*.tar.gz")
  with tarfile.open(sdist) as archive:
    names = {name.partition("/")[2] for name in archive.getnames()}
  there = {
    name for name in listed.stdout.splitlines() if (ROOT / name).exists()
  }
  assert there <= names
