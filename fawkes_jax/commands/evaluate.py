"""`fawkes-jax evaluate`: measures how well cloaks protect."""

from fawkes_jax.commands import terminal
from fawkes_jax.options import EvaluateOptions
from fawkes_jax.weights import ensembles


def run(options: EvaluateOptions) -> int:
  """Runs experiments and writes their results.

  Args:
    options: the options of the run.

  Returns:
    0.

  Raises:
    FawkesError: the data, a tracker, a runtime or a surrogate cannot be used,
      or the output cannot be written.
  """
  options = ensembles.resolved(options)
  console = terminal.console()
  console.print(f"loading trackers: {', '.join(options.trackers)}")
  # After the first sign of life: these take seconds to import.
  from fawkes_jax.evaluation import experiments, plots, report, study

  evaluation = study.Study(options, console)
  results: dict[str, experiments.Tables] = {}
  for name in options.experiments:
    console.print(f"experiment {name}")
    results[name] = experiments.EXPERIMENTS[name](evaluation)
    # What is known so far: a later experiment may take hours, or fail.
    summary = report.summary(options, evaluation.people, results)
    report.write(summary, options.output)
    plots.write(summary["experiments"], options.output)
  for line in report.markdown(summary).splitlines():
    console.print(line)
  console.print(f"{options.output / 'evaluation.md'}")
  return 0
