"""Commands in launch/ and docs/scale.md are such as fawkes-jax understands."""

import re
from pathlib import Path

import pytest

from fawkes_jax.cli import command_line

ROOT = Path(__file__).parents[2]
TEXTS = [
  *sorted(path for path in (ROOT / "launch").glob("*") if path.is_file()),
  ROOT / "docs" / "scale.md",
]
# What starts fawkes-jax, or hands flags on to it, and the subcommand; the flags
# follow, as far as the command goes.
COMMAND = re.compile(
  r"(?:fawkes-jax|local\.sh|multi_gpu\.sh|tpu_vm\.sh|\$\{program\[@\]\}\")\s+"
  r"(?P<name>cloak|status|verify|benchmark|run)\b(?P<flags>[^`\n]*)"
)


def _commands(text):
  """Pairs of a subcommand and the names of its flags."""
  text = re.sub(r"\\\n[# ]*", " ", text)  # Lines that go on.
  for match in COMMAND.finditer(text):
    name = {"run": "cloak"}.get(match["name"], match["name"])
    yield name, re.findall(r"(?<![\w-])--(\w+)", match["flags"])
  # Arguments of containers, one a line.
  for block in re.findall(r"args:\n((?:\s+- .*\n)+)", text):
    name, *flags = re.findall(r"- (\S+)", block)
    yield name, [flag.split("=")[0].removeprefix("--") for flag in flags]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_flags(path):
  parsers = command_line.parser().commands()
  for name, flags in _commands(path.read_text()):
    known = parsers[name].flags()
    unknown = {flag for flag in flags if f"--{flag}" not in known}
    assert not unknown, f"fawkes-jax {name}"


def test_commands_are_found():
  """In all but the files that only pass arguments on, or explain nothing."""
  silent = {"local.sh"}
  for path in TEXTS:
    found = [*_commands(path.read_text())]
    assert any(flags for _, flags in found) or path.name in silent, path
