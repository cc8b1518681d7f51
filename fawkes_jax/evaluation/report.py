"""What is written of an evaluation: JSON, Markdown, plots."""

import dataclasses
import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fawkes_jax import config, identities, version
from fawkes_jax.archive import files
from fawkes_jax.evaluation import people, runtimes

# At most so many names in the Markdown; the JSON has all.
_NAMES = 10

_TITLES = {
  "protection": "Protection",
  "dssim": "Protection over the budget",
  "identities": "Protection over the number of people in the tracker",
  "leak": "Clean photos of protected people in the tracker",
  "counter": "Countermeasures before recognition",
  "adaptive": "Trackers that learn from other people's cloaks",
  "matching": "1:1 verification, which cloaks are not made for",
  "leaveoneout": "Surrogates as trackers of cloaks made without them",
  "ablation": "What the parts of the solver do",
  "finetune": "A tracker trained from end to end",
}


def summary(
  options: config.EvaluateOptions,
  everybody: people.People,
  experiments: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]],
) -> dict[str, Any]:
  """Everything as plain data.

  Args:
    options: of the run.
    everybody: who took part.
    experiments: the tables by experiment.

  Returns:
    What JSON can hold, without NaN.
  """
  return _plain(
    {
      "fawkes_jax": version.__version__,
      "packages": runtimes.versions(),
      "command": command(options),
      "options": dataclasses.asdict(options),
      "people": {
        "protected": [person.name for person in everybody.protected],
        "others": [person.name for person in everybody.others],
        "further": len(everybody.extras),
        "photos to train on": options.train,
        "photos to recognise": options.test,
        "excluded for too few photos": everybody.excluded,
      },
      "experiments": experiments,
    }
  )


def write(summary: Mapping[str, Any], folder: Path) -> None:
  """Writes evaluation.json and evaluation.md.

  Raises:
    FawkesError: they cannot be written.
  """
  text = json.dumps(summary, indent=2, ensure_ascii=False)
  files.write_atomically(folder / "evaluation.json", text.encode() + b"\n")
  files.write_atomically(folder / "evaluation.md", markdown(summary).encode())


def markdown(summary: Mapping[str, Any]) -> str:
  """The tables of a summary, with the command that made them."""
  who = summary["people"]
  excluded = list(who["excluded for too few photos"])
  lines = [
    "# Evaluation",
    "",
    f"fawkes_jax {summary['fawkes_jax']}:",
    "",
    f"    {summary['command']}",
    "",
    f"{len(who['protected'])} people are protected, {len(who['others'])} are"
    f" not; of each, {who['photos to train on']} photos to train on and"
    f" {who['photos to recognise']} clean ones to recognise."
    f" {len(excluded)} identities have too few photos{_names(excluded)}."
    " Rates in brackets: 95 % confidence intervals over people.",
    "",
  ]
  for name, tables in summary["experiments"].items():
    lines += [f"## {_TITLES[name]}", ""]
    for rows in tables.values():
      lines += [*_table(rows), ""]
      lines += _left_out(rows)
  return "\n".join(lines)


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterable[str]:
  """Rows as a table in Markdown."""
  columns = list(dict.fromkeys(name for row in rows for name in row))
  yield f"| {' | '.join(columns)} |"
  yield f"|{'---|' * len(columns)}"
  for row in rows:
    cells = (_cell(row.get(name)) for name in columns)
    yield f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
  if value is None:
    return "-"
  if isinstance(value, Mapping):
    if value["value"] is None:
      return "-"
    low, high = value["low"], value["high"]
    return f"{value['value']:.2f} [{low:.2f}, {high:.2f}]"
  if isinstance(value, list):
    return str(len(value))
  return f"{value:.3g}" if isinstance(value, float) else str(value)


def _left_out(rows: Sequence[Mapping[str, Any]]) -> list[str]:
  """The names that tables only count."""
  lines = [
    f"- {', '.join(str(row[k]) for k in ('cloak', 'tracker') if k in row)}:"
    f" {len(value)} {name}{_names(value)}"
    for row in rows
    for name, value in row.items()
    if isinstance(value, list) and value
  ]
  return [*lines, ""] if lines else []


def _names(names: Sequence[str]) -> str:
  """Some names in brackets."""
  more = ", ..." if len(names) > _NAMES else ""
  return f" ({', '.join(names[:_NAMES])}{more})" if names else ""


def command(options: config.EvaluateOptions) -> str:
  """The command with the options that are not the default.

  Paths appear by their last part only: results travel, folders do not.
  """
  names = {"modes": "mode", "extractors": "surrogates"}
  words = ["fawkes-jax", "evaluate"]
  for field in dataclasses.fields(options):
    value = getattr(options, field.name)
    if field.name in ("output", "threads") or value == field.default:
      continue
    if field.name == "solver_changes":
      words += [f"--{name}={number:g}" for name, number in value]
    elif field.name == "ablations":
      text = ";".join(
        ",".join(f"{name}={number:g}" for name, number in change)
        for change in value
      )
      words.append(f"--ablations={shlex.quote(text)}")
    else:
      words.append(
        f"--{names.get(field.name, field.name)}={shlex.quote(_shown(value))}"
      )
  return " ".join(words)


def _shown(value: Any) -> str:
  if isinstance(value, tuple):
    return ",".join(map(_shown, value))
  text = str(value)
  if isinstance(value, float) or text.startswith(identities.TFDS_PREFIX):
    return text
  return Path(text).name


def _plain(value: Any) -> Any:
  """Without paths, and None for what is not a number."""
  if isinstance(value, Mapping):
    return {str(key): _plain(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(item) for item in value]
  if isinstance(value, float):
    return float(f"{value:.6g}") if math.isfinite(value) else None
  return str(value) if isinstance(value, Path) else value
