"""`fawkes-jax train`: trains a small face feature extractor."""

from fawkes_jax.archive import files
from fawkes_jax.commands import terminal
from fawkes_jax.options import TrainOptions
from fawkes_jax.training import card, loop
from fawkes_jax.weights import variables
from fawkes_jax.xla import compiler


def run(options: TrainOptions) -> int:
  """Trains a student and writes its weights and its model card.

  Args:
    options: the options of the run.

  Returns:
    0.

  Raises:
    FawkesError: the data or a teacher cannot be used, or the output cannot
      be written.
  """
  console = terminal.console()
  compiler.require_devices()
  result = loop.train(options, console=console)
  weights = options.output / f"{options.model_name}.safetensors"
  variables.save(
    result.student,
    weights,
    name=result.architecture,
    teachers=[teacher.identity for teacher in result.teachers],
  )
  files.write_atomically(
    weights.with_name(f"{options.model_name}.md"),
    card.text(options, result).encode(),
  )
  console.print(f"{weights}")
  return 0
