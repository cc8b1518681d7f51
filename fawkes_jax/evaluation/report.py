"""Writes the results of an evaluation: JSON, Markdown, plots."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fawkes_jax import reports, version
from fawkes_jax.evaluation import people, runtimes
from fawkes_jax.options import EvaluateOptions

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
  options: EvaluateOptions,
  everybody: people.People,
  experiments: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]],
) -> dict[str, Any]:
  """Everything as plain data.

  Args:
    options: the options of the run.
    everybody: who took part.
    experiments: the tables by experiment.

  Returns:
    What JSON can hold, without NaN.
  """
  return reports.plain(
    {
      "fawkes_jax": version.__version__,
      "packages": reports.versions(runtimes.PACKAGES.values()),
      "command": reports.command(
        "evaluate", options, untold=("output", "threads")
      ),
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
  reports.write(summary, markdown(summary), folder, "evaluation")


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
      lines += [*reports.table(rows), ""]
      lines += _left_out(rows)
  return "\n".join(lines)


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
