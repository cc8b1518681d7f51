"""A module imports only from lower floors, or from its own folder."""

import ast
from pathlib import Path

import pytest

import fawkes_jax

ROOT = Path(fawkes_jax.__file__).parent

# See the architecture section of CONTRIBUTING.md.
FLOORS = {
  "types": 0,
  "options": 0,
  "version": 0,
  "xla": 0,
  "imaging": 1,
  "photos": 1,
  "protection": 1,
  "models": 2,
  "archive": 2,
  "cloaking": 3,
  "reports": 3,
  "weights": 3,
  "engine": 4,
  "faces": 5,
  "runs": 6,
  "training": 6,
  "benchmarking": 7,
  "reporting": 7,
  "evaluation": 7,
  "commands": 8,
  "cli": 9,
  "__main__": 10,
}

MODULES = sorted(
  path.relative_to(ROOT)
  for path in ROOT.rglob("*.py")
  # The curated API may import from everywhere.
  if path != ROOT / "__init__.py"
)

# What opens files or knows where they are. Pillow's images are arithmetic.
FILES = {"io", "os", "pathlib", "shutil", "tempfile", "absl", "argparse"}


def room(module):
  """The folder or file of the package's top level that a module is in."""
  return module.parts[0].removesuffix(".py")


def imported(path):
  """The dotted names of all that a file imports, also inside functions."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path} has a relative import"
      for alias in node.names:
        yield f"{node.module}.{alias.name}"


def parts_of_the_package(path):
  """The rooms that a file imports from."""
  for name in imported(path):
    first, _, rest = name.partition(".")
    if first == "fawkes_jax":
      yield rest.split(".")[0]


def test_every_room_has_a_floor():
  assert {room(module) for module in MODULES} <= set(FLOORS)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_go_down(module):
  here = room(module)
  for there in parts_of_the_package(ROOT / module):
    assert there in FLOORS, f"{module} imports {there}"
    allowed = there == here or FLOORS[there] < FLOORS[here]
    # Single files of floor 0 build on one another.
    allowed |= FLOORS[here] == FLOORS[there] == 0
    assert allowed, (
      f"{module} (floor {FLOORS[here]}) imports {there} (floor {FLOORS[there]})"
    )


@pytest.mark.parametrize(
  "module",
  [
    m for m in MODULES
    if room(m) in ("types", "imaging", "models", "cloaking", "protection")
  ],
  ids=str,
)  # fmt: skip
def test_low_floors_know_no_files(module):
  path = ROOT / module
  packages = {name.split(".")[0] for name in imported(path)}
  assert not packages & FILES
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Call):
      called = ast.unparse(node.func)
      assert called not in ("open", "Image.open"), f"{module} opens a file"
      assert not called.endswith((".save", ".tofile", ".fromfile"))


def test_only_the_top_knows_flags():
  """Flags are parsed in one place."""
  for module in MODULES:
    if room(module) != "cli":
      packages = {name.split(".")[0] for name in imported(ROOT / module)}
      assert not packages & {"absl", "argparse"}, module


def test_the_reader_of_imports_sees_them(tmp_path):
  file = tmp_path / "module.py"
  file.write_text(
    "import fawkes_jax.cli\n"
    "def f():\n"
    "  from fawkes_jax.engine import mesh as m\n"
    "  from fawkes_jax import types\n  from fawkes_jax.runs import pipeline\n"
    "  import numpy, os.path\n"
  )
  assert sorted(parts_of_the_package(file)) == [
    "cli", "engine", "runs", "types"
  ]  # fmt: skip
  assert "os.path" in set(imported(file))
