"""`fawkes-jax train_detector`: trains a small detector of faces."""

from fawkes_jax.archive import files
from fawkes_jax.commands import terminal
from fawkes_jax.options import TrainDetectorOptions
from fawkes_jax.training.detection import card, loop
from fawkes_jax.weights import detectors
from fawkes_jax.xla import compiler


def run(options: TrainDetectorOptions) -> int:
  """Trains a detector and writes its weights and its model card.

  Args:
    options: of the run.

  Returns:
    0.

  Raises:
    FawkesError: the data or the teacher cannot be used, or the output cannot
      be written.
  """
  console = terminal.console()
  compiler.require_devices()
  result = loop.Loop(options, console).run()
  weights = options.output / f"{options.name}.safetensors"
  detectors.save(result.variables, weights, threshold=options.threshold)
  files.write_atomically(
    weights.with_name(f"{options.name}.md"), card.text(options, result).encode()
  )
  console.print(f"{weights}")
  return 0
