"""`fawkes-jax forget`: removes what is known of people's faces, and names."""

from fawkes_jax import types
from fawkes_jax.archive import files, index, manifest, names, stores
from fawkes_jax.commands import terminal
from fawkes_jax.options import ForgetOptions


def run(options: ForgetOptions) -> int:
  """Removes the index of faces, who is who, and what they are called.

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
    kept = store.names(index.FOLDER) + store.names(names.FOLDER)
  except OSError as error:
    raise types.FawkesError(
      f"--output must be readable, got {output}: {files.reason(error)}"
    ) from error
  if kept:
    with manifest.Manifest(options.output):
      index.forget(store)
      names.write(store, {})
  terminal.console().print(
    f"{terminal.number(len(kept), 'file')} of faces and people removed from"
    f" {output}/{manifest.FOLDER}"
  )
  return 0
