"""What is written of a benchmark: JSON, Markdown, a plot."""

import dataclasses
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fawkes_jax import reports, version
from fawkes_jax.benchmarking import rounds
from fawkes_jax.options import BenchmarkOptions

Row = dict[str, Any]

_TITLES = {
  "solver": "Solver",
  "detector": "Finding faces",
  "detection": "Which faces are found",
  "codecs": "Reading and writing photos",
  "pipeline": "Everything together",
  "host stages": "What each photo costs the processor",
  "host": "Everything but what devices do",
  "device": "What one device can do",
}

_MILLION = 1_000_000


def summary(
  options: BenchmarkOptions,
  host: Mapping[str, Any],
  results: Sequence[rounds.Result],
) -> dict[str, Any]:
  """Everything as plain data.

  Args:
    options: of the run.
    host: from `device.host`.
    results: of all parts.

  Returns:
    What JSON can hold, without NaN.
  """
  tables: dict[str, list[Row]] = {}
  for result in results:
    part = result.subject.part
    if part == "solver":
      row = _solver(result, options, results)
    elif part == "pipeline":
      row = _pipeline(result, options)
    elif part == "host":
      row = {
        **result.facts,
        **{unit: result.spread(unit) for unit in _units(result)},
        "problem": result.problem,
      }
    elif part == "detection":
      row = {**result.facts, "s a photo": result.spread("s a photo")}
    else:
      row = {unit: result.spread(unit) for unit in _units(result)}
    tables.setdefault(part, []).append({**result.subject.title, **row})
  return reports.plain(
    {
      "fawkes_jax": version.__version__,
      "packages": reports.versions(["jaxlib"]),
      "command": reports.command(
        "benchmark", options, untold=("output", "profile_dir")
      ),
      "options": {
        **dataclasses.asdict(options),
        "solver": dataclasses.asdict(options.solver),
      },
      "host": host,
      "tables": {part: tables[part] for part in _TITLES if part in tables},
    }
  )


def _units(result: rounds.Result) -> Iterable[str]:
  return dict.fromkeys(unit for figures in result.rounds for unit in figures)


def _solver(
  result: rounds.Result,
  options: BenchmarkOptions,
  results: Sequence[rounds.Result],
) -> Row:
  """The speed of a program, and what of the devices it uses."""
  title, facts = result.subject.title, result.facts
  faces, devices = title["batch size"], title["devices"]
  rate = result.median("face-steps/s")
  work, moved = (_over(facts.get(name), faces) for name in ("GFLOP", "GB"))
  speed, traffic = _times(rate, work), _times(rate, moved)
  row = {
    "face-steps/s": result.spread("face-steps/s"),
    **_costs(_over(rate, options.solver.steps), "faces", options),
    "compile s": facts.get("compile s"),
    "GFLOP a face-step": work,
    "GFLOP/s": speed,
  }
  for kind in ("float32", "bfloat16"):
    ceiling = rounds.best(results, "GFLOP/s", what=f"{kind} product")
    row[f"of {kind} product"] = _over(speed, _times(ceiling, devices))
  ceiling = rounds.best(results, "GB/s", what="copy")
  return row | {
    "MB a face-step": _times(moved, 1e3),
    "GB/s": traffic,
    "of copy": _over(traffic, _times(ceiling, devices)),
    "program GB": _over(facts.get("program bytes"), 1e9),
    "device GB": _over(facts.get("device bytes"), 1e9),
    "problem": result.problem,
  }


def _pipeline(result: rounds.Result, options: BenchmarkOptions) -> Row:
  """The speed of whole runs, and where their time went."""
  rates = {unit: result.spread(unit) for unit in ("photos/s", "faces/s")}
  shares = {
    unit: result.median(unit) for unit in _units(result) if unit not in rates
  }
  costs = _costs(result.median("photos/s"), "photos", options)
  del costs["photos/s"]
  return {**result.facts, **rates, **costs, **shares, "problem": result.problem}


def _costs(rate: float | None, unit: str, options: BenchmarkOptions) -> Row:
  """A rate, and what a million take and cost at it."""
  hours = _over(_MILLION, _times(rate, 3600.0))
  row: Row = {f"{unit}/s": rate, f"h a million {unit}": hours}
  if options.price_per_hour is not None:
    row[f"price a million {unit}"] = _times(hours, options.price_per_hour)
  return row


def _over(value: float | None, divisor: float | None) -> float | None:
  return None if value is None or not divisor else value / divisor


def _times(value: float | None, factor: float | None) -> float | None:
  return None if value is None or factor is None else value * factor


def write(summary: Mapping[str, Any], folder: Path) -> None:
  """Writes benchmark.json, benchmark.md and, with matplotlib, benchmark.png.

  Raises:
    FawkesError: they cannot be written.
  """
  reports.write(summary, markdown(summary), folder, "benchmark")
  if importlib.util.find_spec("matplotlib"):
    _plot(summary["tables"].get("solver", ()), folder / "benchmark.png")


def markdown(summary: Mapping[str, Any]) -> str:
  """The tables of a summary, with the command that made them."""
  host = summary["host"]
  solver = summary["options"]["solver"]
  lines = [
    "# Benchmark",
    "",
    f"fawkes_jax {summary['fawkes_jax']}, JAX {summary['packages']['jax']}:",
    "",
    f"    {summary['command']}",
    "",
    f"{host['devices']} x {host['device']} ({host['backend']}), {host['cores']}"
    f" CPU cores, load {host['load']:.2f} before the run. Mode"
    f" {summary['options']['mode']}: {solver['steps']} steps a face. Medians of"
    f" {summary['options']['rounds']} rounds [lowest, highest].",
    "",
  ]
  for part, rows in summary["tables"].items():
    # A column in which nothing is known says nothing.
    known = {name for row in rows for name in row if row[name] is not None}
    shown = [{k: v for k, v in row.items() if k in known} for row in rows]
    lines += [f"## {_TITLES[part]}", ""]
    lines += [*reports.table(shown, interval=".3g"), ""]
  return "\n".join(lines)


def _plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
  """Draws the solver's speed over the batch size, where there is any."""
  rows = [row for row in rows if row["face-steps/s"] is not None]
  if not rows:
    return
  from matplotlib import figure

  canvas = figure.Figure(figsize=(8, 4), layout="constrained")
  axes = canvas.add_subplot(
    xlabel="faces at once", ylabel="face-steps a second", xscale="log"
  )
  lines: dict[str, list[Mapping[str, Any]]] = {}
  for row in rows:
    label = f"{row['surrogates']}, {row['precision']}, devices {row['devices']}"
    lines.setdefault(label, []).append(row)
  for label, own in lines.items():
    speeds = [row["face-steps/s"] for row in own]
    axes.errorbar(
      [row["batch size"] for row in own],
      [speed["value"] for speed in speeds],
      yerr=[
        [speed["value"] - speed["low"] for speed in speeds],
        [speed["high"] - speed["value"] for speed in speeds],
      ],
      marker="o",
      capsize=2,
      label=label,
    )
  axes.set_ylim(0)
  sizes = sorted({row["batch size"] for row in rows})
  axes.set_xticks(sizes, sizes)
  axes.minorticks_off()
  axes.legend(fontsize="small")
  reports.picture(canvas, path)
