"""What the commands that report on an archive say alike."""

import collections

import rich.console


def console() -> rich.console.Console:
  """Standard output, for names of files that may hold anything."""
  return rich.console.Console(
    emoji=False, highlight=False, markup=False, soft_wrap=True
  )


def duration(seconds: float) -> str:
  """Seconds as a person says them."""
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours} h {minutes} min"
  if minutes:
    return f"{minutes} min {rest} s"
  return f"{seconds:.1f} s"


def counted(counts: collections.Counter[str]) -> str:
  """Numbers and what they count, the largest first."""
  return ", ".join(f"{n} {what}" for what, n in counts.most_common()) or "none"


def show_metadata(
  console: rich.console.Console, counts: collections.Counter[str]
) -> None:
  """What results have lost, and whether they say who is on them.

  Args:
    console: where to.
    counts: see `outcomes.Outcome.count`.
  """
  start = "lost: "
  lost = {
    what.removeprefix(start): number
    for what, number in counts.items()
    if what.startswith(start)
  }
  if lost:
    console.print(
      f"  taken out or lost: {counted(collections.Counter(lost))}"
      " (`lost` in the manifest)"
    )
  if counts["named"]:
    console.print(
      f"  {counts['named']} of the results say who is on them; --strip_names"
      " takes names out"
    )


def show_counts(
  console: rich.console.Console, counts: collections.Counter[str]
) -> None:
  """A line for each of the 20 largest numbers."""
  for what, number in counts.most_common(20):
    console.print(f"  {number} {what}")
