"""`fawkes-jax forget`: removes what is known of people's faces."""

from fawkes_jax import types
from fawkes_jax.archive import files, index, manifest, stores
from fawkes_jax.commands import terminal
from fawkes_jax.options import ForgetOptions


def run(options: ForgetOptions) -> int:
  """Removes the index of faces, and who is who.

  Args:
    options: of the run.

  Returns:
    0.

  Raises:
    FawkesError: it cannot be removed, or a process is writing to the folder.
  """
  output = files.printable(options.output)
  store = stores.open_store(options.output)
  try:
    kept = store.names(index.FOLDER)
  except OSError as error:
    raise types.FawkesError(
      f"--output must be readable, got {output}: {files.reason(error)}"
    ) from error
  if kept:
    with manifest.Manifest(options.output):
      index.forget(store)
  terminal.console().print(
    f"{terminal.number(len(kept), 'file')} of faces and people removed from"
    f" {output}/{index.FOLDER}"
  )
  return 0
