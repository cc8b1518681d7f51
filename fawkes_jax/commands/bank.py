"""`fawkes-jax bank`: computes a bank of target identities."""

from pathlib import Path

import numpy as np
import rich.progress

from fawkes_jax import types
from fawkes_jax.commands import terminal
from fawkes_jax.faces import recognition
from fawkes_jax.options import BankOptions
from fawkes_jax.weights import bank, ensembles


def run(options: BankOptions) -> int:
  """Writes the mean embeddings of a folder's identities.

  Args:
    options: the options of the run.

  Returns:
    0.

  Raises:
    FawkesError: the folder holds too few identities with enough photos, or
      the weights cannot be used.
  """
  options = ensembles.resolved(options)
  console = terminal.console()
  folders = _folders(options)
  faces = recognition.Recognition(options)
  means = [
    mean
    for folder in rich.progress.track(folders, "identities", console=console)
    if (mean := faces.mean_embedding(folder)) is not None
  ]
  if len(means) < 2:
    raise types.FawkesError(
      "--input must hold faces of two identities or more, got"
      f" {len(means)} in {options.input}"
    )
  result = bank.Bank(
    embeddings={
      name: np.stack([mean[name] for mean in means]) for name in means[0]
    }
  )
  options.output.parent.mkdir(parents=True, exist_ok=True)
  bank.save(result, options.output)
  console.print(f"{len(means)} identities: {options.output}")
  return 0


def _folders(options: BankOptions) -> list[Path]:
  """The folders with the wanted number of photos, evenly over their names."""
  low, high = options.min_photos, options.max_photos
  folders = [
    folder
    for folder in sorted(options.input.iterdir())
    if folder.is_dir() and low <= len(list(folder.iterdir())) <= high
  ]
  count = min(options.identities, len(folders))
  return [folders[i * len(folders) // count] for i in range(count)]
