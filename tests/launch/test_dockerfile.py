"""launch/Dockerfile; nothing here builds images."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def instructions():
  """Pairs of an instruction and its text, lines joined."""
  text = (ROOT / "launch" / "Dockerfile").read_text()
  text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
  text = text.replace("\\\n", " ")
  return [
    tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()
  ]


def test_the_image(instructions):
  """It runs fawkes-jax, and not as root."""
  last = dict(instructions)
  assert last["ENTRYPOINT"] == '["fawkes-jax"]'
  assert last["USER"].isdigit() and last["USER"] != "0"
  assert re.search(rf"useradd .*--uid {last['USER']} ", last["RUN"])
  order = [name for name, _ in instructions]
  assert order.index("USER") > max(
    i for i, name in enumerate(order) if name in ("COPY", "RUN")
  )


def test_what_is_copied_is_there_and_is_enough(instructions, tmp_path):
  """The wheel is built from it, with the checkpoints."""
  pytest.importorskip("hatchling")
  for name, text in instructions:
    if name != "COPY" or "--from=" in text:
      continue
    *sources, target = text.split()
    for source in sources:
      if (ROOT / source).is_dir():
        shutil.copytree(ROOT / source, tmp_path / target)
      else:
        shutil.copy(ROOT / source, tmp_path / target)
  subprocess.run(
    [
      sys.executable,
      "-c",
      "from hatchling import build; build.build_wheel('.')",
    ],
    cwd=tmp_path,
    check=True,
    capture_output=True,
  )
  assert len([*tmp_path.glob("fawkes_jax-*.whl")]) == 1


def test_python(instructions):
  """The default is one that the package runs on."""
  [(_, default)] = [
    each for each in instructions if each[1].startswith("PYTHON=")
  ]
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  least = project["requires-python"].removeprefix(">=")
  version = default.removeprefix("PYTHON=")
  assert [*map(int, version.split("."))] >= [*map(int, least.split("."))]


@pytest.mark.parametrize(
  "extras, wanted", [("", "."), ("cuda,gcs", ".[cuda,gcs]")]
)
def test_extras(instructions, extras, wanted):
  """The shell makes pip's argument of the build argument."""
  [command] = [
    text for name, text in instructions if name == "RUN" and "pip" in text
  ]
  argument = shlex.split(command)[-1]
  assert argument.startswith(".")
  said = subprocess.run(
    ["sh", "-c", f'printf %s "{argument}"'],
    env={"EXTRAS": extras},
    capture_output=True,
    text=True,
    check=True,
  )
  assert said.stdout == wanted
