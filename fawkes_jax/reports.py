"""Writes the reports of measurements: JSON, Markdown, pictures."""

import dataclasses
import importlib.metadata
import io
import json
import math
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fawkes_jax.archive import datasets, files
from fawkes_jax.options import declared, values


def write(
  summary: Mapping[str, Any], markdown: str, folder: Path, name: str
) -> None:
  """Writes a summary as NAME.json and NAME.md.

  Raises:
    FawkesError: they cannot be written.
  """
  text = json.dumps(summary, indent=2, ensure_ascii=False)
  files.write_atomically(folder / f"{name}.json", text.encode() + b"\n")
  files.write_atomically(folder / f"{name}.md", markdown.encode())


def picture(figure: Any, path: Path) -> None:
  """Writes a figure of matplotlib as PNG.

  Raises:
    FawkesError: it cannot be written.
  """
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png", dpi=120)
  files.write_atomically(path, buffer.getvalue())


def table(
  rows: Sequence[Mapping[str, Any]], *, interval: str = ".2f"
) -> Iterable[str]:
  """Rows as a table in Markdown.

  Args:
    rows: their cells by column; a mapping is a value from low to high, a list
      is counted.
    interval: the format of the numbers of such a mapping.

  Returns:
    Its lines.
  """
  columns = list(dict.fromkeys(name for row in rows for name in row))
  yield f"| {' | '.join(columns)} |"
  yield f"|{'---|' * len(columns)}"
  for row in rows:
    cells = (_cell(row.get(name), interval) for name in columns)
    yield f"| {' | '.join(cells)} |"


def _cell(value: Any, interval: str) -> str:
  if value is None:
    return "-"
  if isinstance(value, Mapping):
    if value["value"] is None:
      return "-"
    middle, low, high = (
      format(value[name], interval) for name in ("value", "low", "high")
    )
    return f"{middle} [{low}, {high}]"
  if isinstance(value, list):
    return str(len(value))
  return f"{value:.3g}" if isinstance(value, float) else str(value)


def command(name: str, options: Any, *, untold: Collection[str]) -> str:
  """The command with the options that are not the default.

  Paths appear by their last part only: results travel, folders do not.

  Args:
    name: the name of the command.
    options: the options of a command.
    untold: the options that are left out.

  Returns:
    What a person would type.
  """
  words = ["fawkes-jax", name]
  for field in dataclasses.fields(options):
    value = getattr(options, field.name)
    if field.name in untold or value == field.default:
      continue
    if field.name == "solver_changes":
      words += [f"--{values.typed(change)}" for change in value]
    else:
      flag = declared.flag(type(options), field.name)
      words.append(f"{flag}={shlex.quote(shown(value))}")
  return " ".join(words)


def shown(value: Any) -> str:
  """A value of an option as it is typed; of each path in it the last part."""
  return values.typed(value, _word)


def _word(value: Any) -> str:
  """A number or a text; of a path, or of several with commas, the last part."""
  if isinstance(value, float):
    return str(value)
  return ",".join(
    part if part.startswith(datasets.PREFIX) else Path(part).name
    for part in str(value).split(",")
  )


def versions(packages: Iterable[str]) -> dict[str, str]:
  """The versions of those that are installed, and of JAX and numpy."""
  found = {}
  for package in sorted({*packages, "jax", "numpy"}):
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def plain(value: Any) -> Any:
  """What JSON can hold: without paths, and None for what is not a number."""
  if isinstance(value, Mapping):
    return {str(key): plain(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [plain(item) for item in value]
  if isinstance(value, float):
    return float(f"{value:.6g}") if math.isfinite(value) else None
  return str(value) if isinstance(value, Path) else value
