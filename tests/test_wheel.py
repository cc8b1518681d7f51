"""What an installed package brings, beside its modules."""

import email
import re
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
  """A wheel of the checkout, open for reading."""
  if not (ROOT / "fawkes_jax").exists():
    pytest.skip("not a checkout")
  folder = tmp_path_factory.mktemp("wheel")
  build("wheel", folder)
  [path] = folder.glob("*.whl")
  with zipfile.ZipFile(path) as archive:
    yield archive


def test_the_wheel_brings_the_checkpoints(wheel):
  names = set(wheel.namelist())
  wanted = {path.name for path in (ROOT / "checkpoints").iterdir()}
  assert {"weights.toml", "target_bank.safetensors"} <= wanted
  assert {f"fawkes_jax/checkpoints/{name}" for name in wanted} <= names
  brought = wheel.read("fawkes_jax/checkpoints/weights.toml")
  assert brought == (ROOT / "checkpoints" / "weights.toml").read_bytes()


def test_the_wheel_brings_what_pages_are_made_of(wheel):
  assert {
    f"fawkes_jax/reporting/{name}" for name in ("page.css", "report.js")
  } <= set(wheel.namelist())


def test_a_package_index_shows_a_readme_without_broken_links(wheel):
  """It has no folder beside the README that links could lead to."""
  [name] = [n for n in wheel.namelist() if n.endswith("/METADATA")]
  said = email.message_from_bytes(wheel.read(name)).get_payload(decode=True)
  text = said.decode()
  links = re.findall(r"\]\(([^)]*)\)", text)
  assert len(links) >= 2
  assert all(link.startswith("https://") for link in links)
  assert "cannot do for you (`docs/limits.md`)" in text
  assert "```python\nimport numpy" in text


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
