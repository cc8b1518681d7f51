"""`fawkes-jax weights`: lists, fetches and imports recognisers."""

from collections.abc import Sequence

import rich.box
import rich.console
import rich.progress
import rich.table

from fawkes_jax import types
from fawkes_jax.archive import files
from fawkes_jax.commands import terminal
from fawkes_jax.models import architectures
from fawkes_jax.options import (
  WeightsFetchOptions,
  WeightsImportOptions,
  WeightsListOptions,
)
from fawkes_jax.weights import (
  catalogue,
  detectors,
  ensembles,
  extractors,
  install,
)

Options = WeightsListOptions | WeightsFetchOptions | WeightsImportOptions


def run(options: Options) -> int:
  """Does what the options are for.

  Args:
    options: of one of the three actions.

  Returns:
    0.

  Raises:
    FawkesError: a recogniser cannot be fetched or imported.
  """
  console = terminal.console()
  if isinstance(options, WeightsFetchOptions):
    _fetch(options, console)
  elif isinstance(options, WeightsImportOptions):
    _import(options, console)
  else:
    _list(console)
  return 0


def _list(console: rich.console.Console) -> None:
  """Shows what is known and what is here."""
  known, kept = catalogue.recognisers(), catalogue.kept()
  here = {path.name for path in catalogue.folder().glob("*")}
  table = rich.table.Table(box=rich.box.SIMPLE, pad_edge=False)
  for column in ("name", "licence", "use", "LFW", "state"):
    table.add_column(column, overflow="fold", no_wrap=column != "licence")
  for name, record in known.items():
    if record.built_in:
      state = "built in"
    elif name in kept or (record.finds_faces and record.files[0].name in here):
      state = "in the cache"
    else:
      state = "to fetch" if record.fetchable else "to import"
    table.add_row(
      name,
      record.licence,
      "research only"
      if record.research_only
      else "finds faces"
      if record.finds_faces
      else "free",
      "" if record.lfw is None else f"{record.lfw} %",
      state,
    )
  for name in sorted(kept.keys() - known.keys()):
    table.add_row(name, "one's own", "", "", "in the cache")
  console.print(table)
  console.print(f"the cache is {files.printable(catalogue.folder())}")


def _fetch(options: WeightsFetchOptions, console: rich.console.Console) -> None:
  """Downloads the recognisers and sees whether they can be loaded."""
  columns = (
    rich.progress.TextColumn("{task.description}"),
    rich.progress.BarColumn(),
    rich.progress.DownloadColumn(),
    rich.progress.TransferSpeedColumn(),
  )
  failures: list[str] = []
  for name in _named(options.names):
    with rich.progress.Progress(*columns, console=console) as progress:
      tasks: dict[str, rich.progress.TaskID] = {}

      def report(
        file: str,
        done: int,
        total: int | None,
        progress: rich.progress.Progress = progress,
        tasks: dict[str, rich.progress.TaskID] = tasks,
      ) -> None:
        if file not in tasks:
          tasks[file] = progress.add_task(file)
        progress.update(tasks[file], completed=done, total=total)

      try:
        fresh = install.fetch(
          name,
          mirror=options.mirror,
          accept_research_licence=options.accept_research_licence,
          report=report,
        )
        use = _tried(name)
      except types.FawkesError as error:
        failures.append(str(error))
        continue
    _show(console, name, use, fresh=fresh)
  if failures:  # What could be fetched is there: it can be called again.
    raise types.FawkesError("\n".join(failures))
  if ensembles.FREE in options.names:
    console.print(
      f"--surrogates={ensembles.FREE} now stands for"
      f" {', '.join(ensembles.free())}"
    )


def _named(names: Sequence[str]) -> list[str]:
  """The recognisers that are to be fetched, each once."""
  parts = [
    ensembles.fetchable() if name == ensembles.FREE else [name]
    for name in names
  ]
  return list(dict.fromkeys(name for part in parts for name in part))


def _import(
  options: WeightsImportOptions, console: rich.console.Console
) -> None:
  """Copies a file into the cache."""
  known = [*architectures.ARCHITECTURES, catalogue.ONNX]
  if options.architecture not in (None, *known):
    raise types.FawkesError(
      f"--architecture must be one of {', '.join(known)}, got"
      f" {options.architecture}"
    )
  extractor = install.add(
    options.file,
    name=options.name,
    architecture=options.architecture,
    preprocessing=options.preprocessing,
  )
  _show(console, extractor.name, _use(extractor), fresh=True)


def _tried(name: str) -> str:
  """What can be done with what was fetched, which is loaded to see that."""
  if catalogue.public()[name].finds_faces:
    return f"for --detector={detectors.load_detector(name).name}"
  return _use(extractors.load_extractor(name))


def _use(extractor: architectures.Extractor) -> str:
  """What can be done with a recogniser."""
  size = extractor.input_size
  return (
    f"faces of {size} x {size} pixels, for"
    f" --surrogates=dlib_resnet,{extractor.name}"
  )


def _show(
  console: rich.console.Console, name: str, use: str, *, fresh: bool
) -> None:
  """Says what there is now, and how to use it."""
  console.print(
    f"{name} {'is' if fresh else 'was'} in"
    f" {files.printable(catalogue.folder())}: {use}"
  )
