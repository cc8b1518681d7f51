"""Charts as SVG, which take their colours from the page that they are in."""

import itertools
from collections.abc import Sequence

from fawkes_jax.reporting.page import text

WHOLE, HALF = 700, 460
"""Widths of charts, in pixels of the page."""
_HEIGHT = 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 28, 42
_numbers = itertools.count()


def bars(
  values: Sequence[float],
  *,
  title: str,
  description: str,
  ticks: Sequence[tuple[float, str]],
  across: str,
  up: str,
  names: Sequence[str],
  width: int = WHOLE,
) -> str:
  """A chart of bars that stand side by side, from left to right.

  Args:
    values: the height of each, 0 or more.
    title: what the chart shows, for those who cannot see it, too.
    description: what there is to see, in words, for them.
    ticks: places of the axis, in 0..1 from left to right, and their labels.
    across: what goes from left to right, with its unit.
    up: what goes up, with its unit.
    names: what each bar stands for, which is shown where one points to it.
    width: of the chart.

  Returns:
    An `svg` element.
  """
  wide, high = width - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
  whole = all(isinstance(value, int) for value in values)
  top, step = _scale(max(values, default=0.0), whole=whole)
  floor = _TOP + high
  number = next(_numbers)
  lines = [
    f'<svg class="chart" viewBox="0 0 {width} {_HEIGHT}" role="img"'
    f' aria-labelledby="chart{number}t chart{number}d">',
    f'<title id="chart{number}t">{text(title)}</title>',
    f'<desc id="chart{number}d">{text(description)}</desc>',
  ]
  for i in range(round(top / step) + 1):
    y = floor - high * i * step / top
    lines.append(
      f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + wide}" y1="{y:.1f}"'
      f' y2="{y:.1f}"/><text class="end" x="{_LEFT - 6}" y="{y + 4:.1f}">'
      f"{_mark(i * step)}</text>"
    )
  each = wide / max(len(values), 1)
  gap = min(1.0, each / 5)
  for i, (value, name) in enumerate(zip(values, names, strict=True)):
    if value:
      # What is there can be seen, however little it is.
      tall = max(high * value / top, 1.5)
      lines.append(
        f'<rect class="bar" x="{_LEFT + i * each + gap / 2:.1f}"'
        f' y="{floor - tall:.1f}" width="{each - gap:.1f}"'
        f' height="{tall:.1f}"><title>{text(name)}</title></rect>'
      )
  for place, label in ticks:
    x = _LEFT + wide * place
    where = "start" if place < 0.03 else "end" if place > 0.97 else "middle"
    lines.append(
      f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{floor}"'
      f' y2="{floor + 4}"/><text class="{where}" x="{x:.1f}"'
      f' y="{floor + 17}">{text(label)}</text>'
    )
  lines.append(
    f'<line class="axis" x1="{_LEFT}" x2="{_LEFT + wide}" y1="{floor}"'
    f' y2="{floor}"/><text class="label end" x="{_LEFT + wide}"'
    f' y="{floor + 36}">{text(across)}</text><text class="label start" x="2"'
    f' y="13">{text(up)}</text></svg>'
  )
  return "".join(lines)


def _scale(most: float, *, whole: bool) -> tuple[float, float]:
  """The end of an axis from 0, and the step of its few marks.

  Args:
    most: what must be on the axis.
    whole: whether there are only whole numbers.
  """
  if most <= 0:
    return 1.0, 1.0
  steps = (
    factor * 10.0**power
    for power in range(0 if whole else -12, 16)
    for factor in ((1, 2, 5) if whole else (1, 2, 2.5, 5))
  )
  step = next(step for step in steps if 4 * step >= most)
  return -(-most // step) * step, step


def _mark(value: float) -> str:
  return f"{value:,.0f}" if value >= 1000 else f"{value:g}"
