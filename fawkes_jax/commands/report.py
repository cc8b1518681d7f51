"""`fawkes-jax report`: a page that shows what a run has done."""

import os
import posixpath
import shlex

import rich.console
import rich.progress

from fawkes_jax import types
from fawkes_jax.archive import files, manifest, scan, storage, stores
from fawkes_jax.commands import terminal
from fawkes_jax.options import ReportOptions
from fawkes_jax.reporting import gathering, pictures, run_page

NAME = "report.html"


def run(options: ReportOptions) -> int:
  """Writes the page.

  Args:
    options: the options of the run.

  Returns:
    0.

  Raises:
    FawkesError: there is no manifest that can be read, the input cannot be
      listed, or the page cannot be written.
  """
  console = terminal.console()
  store, name = _place(options)
  rows, notes, running = manifest.peek(options.output)
  if options.file is None and (row := rows.get(NAME)) and not row.place:
    raise types.FawkesError(
      f"{store.address}/{NAME} is a result of the run; choose another place"
      " with --file"
    )
  if not len(rows) and notes:
    raise types.FawkesError(
      f"{manifest.NAME} in {files.printable(options.output)} has no row that"
      f" this version can read: {notes[0]}"
    )
  for note in notes:
    console.print(note)
  found = gathering.Gathered(rows)
  shown = pictures.Pictures(stores.open_store(options.output), options.input)
  if not options.no_faces:
    _load(shown, found, console)
  output = files.printable(options.output)
  text = run_page.make(
    found,
    shown,
    run_page.About(
      output=output,
      input=None if options.input is None else scan.shown(options.input),
      faces=not options.no_faces,
      notes=notes,
      running=running,
      command=f"fawkes-jax report --no_faces --output={shlex.quote(output)}",
    ),
  )
  address = f"{store.address}/{name}"
  try:
    store.write(name, text.encode(errors="replace"))
  except OSError as error:
    raise types.FawkesError(
      f"{address} cannot be written: {files.reason(error)}"
    ) from error
  console.print(f"  report: {address}")
  if not options.no_faces:
    console.print(
      "  it shows faces"
      + (", also as they were" if options.input else "")
      + ": do not publish it with the photos (--no_faces leaves pictures out)"
    )
    if options.input is None:
      console.print(
        "  faces are shown only as they are now; --input shows them as they"
        " were, too"
      )
  return 0


def _place(options: ReportOptions) -> tuple[storage.Store, str]:
  """The folder that the page goes to, and its name there."""
  if options.file is None:
    return stores.open_store(options.output), NAME
  folder, name = posixpath.split(os.fspath(options.file))
  return stores.open_store(folder or "."), name


def _load(
  shown: pictures.Pictures,
  found: gathering.Gathered,
  console: rich.console.Console,
) -> None:
  """Reads the pictures, and says how far it is."""
  with rich.progress.Progress(
    console=console, disable=not console.is_terminal
  ) as progress:
    task = progress.add_task("reading photos", total=None)
    shown.load(
      (
        *found.weakest,
        *found.visible,
        *found.sample,
        *found.single.items,
        *found.unprotected.items,
      ),
      (*found.likely.items, *found.faceless.items),
      lambda done, total: progress.update(task, completed=done, total=total),
    )
