"""`fawkes-jax index`: looks an archive through for people."""

import dataclasses

from fawkes_jax.archive import files, scan
from fawkes_jax.archive import index as index_lib
from fawkes_jax.commands import cloak, terminal
from fawkes_jax.options import CloakOptions, IndexOptions
from fawkes_jax.runs import pipeline


def run(options: IndexOptions) -> int:
  """Finds the faces of an archive, and who is who.

  Args:
    options: of the run.

  Returns:
    0.

  Raises:
    FawkesError: the run cannot begin or go on.
  """
  console = terminal.console()
  names = [field.name for field in dataclasses.fields(options)]
  given = {name: getattr(options, name) for name in names}
  with cloak.Progress(console) as progress:
    counts = pipeline.index_archive(
      CloakOptions(**given, keep_index=True), progress
    )
  photos, known = counts.pop("photos", 0), counts.pop("known", 0)
  faces, people = counts.pop("faces", 0), counts.pop("people", 0)
  if not photos and not counts:
    console.print(
      f"--input={scan.shown(options.input)} holds no files: nothing to do"
    )
    return 0
  console.print(
    f"{terminal.number(photos, 'photo')} looked through"
    f" ({known} of them before): {terminal.number(faces, 'face')} of"
    f" {people} {'person' if people == 1 else 'people'} in the archive"
  )
  terminal.show_counts(console, counts)
  console.print(
    "  their embeddings are biometric data and stay in"
    f" {files.printable(options.output)}/{index_lib.FOLDER};"
    " `fawkes-jax forget` removes them"
  )
  return 0
