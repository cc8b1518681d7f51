"""Pictures of an evaluation, as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fawkes_jax import reports
from fawkes_jax.evaluation import runtimes

Rows = Sequence[Mapping[str, Any]]

# By experiment: its table, the column along the axis, and what that is called.
_CURVES = {
  "identities": ("people", "people in the tracker"),
  "leak": ("share", "share of clean photos in the tracker"),
}


def write(
  experiments: Mapping[str, Mapping[str, Rows]], folder: Path
) -> list[Path]:
  """Draws what can be drawn of an evaluation's tables.

  Args:
    experiments: the tables by experiment.
    folder: gets the pictures.

  Returns:
    Their files.

  Raises:
    FawkesError: matplotlib is not installed, or a file cannot be written.
  """
  figure_of = runtimes.load("matplotlib.figure").Figure
  drawn = []
  for name, tables in experiments.items():
    figure = figure_of(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_ylabel("protection success rate")
    axes.set_ylim(0, 1.02)
    if name == "protection":
      _bars(axes, tables["protection"])
    elif name == "dssim":
      _curves(axes, _with_dssim(tables), "DSSIM", "mean DSSIM of the faces")
    elif name in _CURVES:
      _curves(axes, tables[name], *_CURVES[name])
    else:
      continue
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    path = folder / f"{name}.png"
    reports.picture(figure, path)
    drawn.append(path)
  return drawn


def _bars(axes: Any, rows: Rows) -> None:
  """PSR by tracker; a bar for each cloak and head."""
  trackers = list(dict.fromkeys(row["tracker"] for row in rows))
  kinds = list(dict.fromkeys((row["cloak"], row["head"]) for row in rows))
  width = 0.8 / len(kinds)
  for i, kind in enumerate(kinds):
    own = [row for row in rows if (row["cloak"], row["head"]) == kind]
    _draw(
      axes.bar,
      [trackers.index(r["tracker"]) + (i + 0.5) * width - 0.4 for r in own],
      own,
      width=width,
      capsize=2,
      label=", ".join(kind),
    )
  axes.set_xticks(range(len(trackers)), trackers)


def _curves(axes: Any, rows: Rows, column: str, title: str) -> None:
  """PSR over a column; a curve for each tracker, mode and head."""

  def kind_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    names = [row["tracker"], row["head"]]
    return tuple(names if column == "DSSIM" else [row["cloak"], *names])

  for kind in dict.fromkeys(kind_of(row) for row in rows):
    own = [row for row in rows if kind_of(row) == kind]
    _draw(
      axes.errorbar,
      [row[column] for row in own],
      own,
      marker="o",
      capsize=2,
      label=", ".join(kind),
    )
  if column == "people":
    axes.set_xscale("log")
  axes.set_xlabel(title)


def _draw(draw: Any, x: list[float], rows: Rows, **style: Any) -> None:
  """Draws rates with their confidence intervals."""
  rates = [row["PSR"] for row in rows]
  y = [rate["value"] for rate in rates]
  error = [
    [max(rate["value"] - rate["low"], 0) for rate in rates],
    [max(rate["high"] - rate["value"], 0) for rate in rates],
  ]
  draw(x, y, yerr=error, **style)


def _with_dssim(tables: Mapping[str, Rows]) -> Rows:
  """The rows of a sweep with the mean DSSIM of their cloaks."""
  reached = {row["cloak"]: row["DSSIM"] for row in tables["photos"]}
  return [
    {**row, "DSSIM": reached[row["cloak"]]} for row in tables["protection"]
  ]
