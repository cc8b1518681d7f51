"""`fawkes-jax verify`: checks that an output folder is complete."""

import collections

import rich.progress

from fawkes_jax.archive import audit, files, manifest
from fawkes_jax.commands import terminal
from fawkes_jax.options import VerifyOptions


def run(options: VerifyOptions) -> int:
  """Reads all results again and compares them with the manifest.

  Args:
    options: the options of the run.

  Returns:
    0, or 1 if something is missing or was altered.

  Raises:
    FawkesError: there is no manifest, a process is writing to the folder, or
      the input cannot be listed.
  """
  console = terminal.console()
  problems: collections.Counter[str] = collections.Counter()
  with manifest.reading(options.output) as (rows, notes):
    for note in notes:
      console.print(note)
    for finding in rich.progress.track(
      audit.audit(rows, options.output, options.input),
      "reading",
      total=len(rows),
      console=console,
      disable=not console.is_terminal,
    ):
      if finding.problem:
        problems[finding.problem] += 1
        console.print(f"{finding.problem}: {finding.path}")
  statuses = collections.Counter(row.status for row in rows)
  console.print(
    f"{terminal.number(len(rows), 'outcome')} ({terminal.counted(statuses)}) in"
    f" {files.printable(options.output)}"
  )
  terminal.show_counts(console, problems)
  unprotected = problems.pop(audit.UNPROTECTED, 0)
  if unprotected:
    console.print("  the manifest says which faces and why")
  if not problems:
    what = "" if options.input is None else ", and every input file has one"
    console.print(f"  every result is as it was written{what}")
  elif options.input is not None:
    console.print("  the `cloak` command of this output does them again")
  return 1 if problems or unprotected else 0
