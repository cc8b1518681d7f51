"""Options of `fawkes-jax evaluate`."""

import dataclasses
from pathlib import Path
from typing import Any

from fawkes_jax.options import rules, values
from fawkes_jax.options.cloak import CloakOptions
from fawkes_jax.options.declared import option
from fawkes_jax.options.faces import FaceOptions
from fawkes_jax.options.solver import MODES, SolverOptions, changed

EXPERIMENTS = (
  "protection",
  "dssim",
  "identities",
  "leak",
  "counter",
  "adaptive",
  "matching",
  "leaveoneout",
  "ablation",
  "finetune",
)
"""What `fawkes-jax evaluate` can measure; docs/evaluate.md describes each."""

HEADS = ("neighbour", "centroid", "logistic", "softmax")
"""What a tracker may put on top of its frozen recogniser."""


class EvaluateOptions(FaceOptions):
  """A run of `fawkes-jax evaluate`."""

  data: str = option(
    "folder with a folder of photos for each identity, or tfds:NAME, a"
    " TensorFlow Datasets name"
  )
  output: Path = option(
    "folder for the results", more="It also keeps what a next run can use"
  )
  experiments: tuple[str, ...] = option(
    f"what to measure: {', '.join(EXPERIMENTS)}",
    rules.some_of(*EXPERIMENTS),
    default=("protection",),
    more="They say what is measured; docs/evaluate.md describes each",
  )
  modes: tuple[str, ...] = option(
    f"strengths of the cloaks: {', '.join(MODES)}",
    rules.some_of(*MODES),
    default=("mid",),
    more="Sweeps vary the first",
    flag="mode",
  )
  solver_changes: tuple[tuple[str, Any], ...] = option(
    "how the solver differs from the modes", default=(), hidden=True
  )
  bank: Path | None = option(
    "target identities, made by `fawkes-jax bank`",
    default=None,
    more="None stands for the package's",
  )
  targets: str = option(
    "whom each person is made to look like to a machine: archive, another one"
    " who is cloaked, too; bank, a stranger, as if each were cloaked alone",
    rules.one_of("archive", "bank"),
    default="archive",
  )
  trackers: tuple[str, ...] = option(
    "dlib, or recognisers in .onnx or .xml files",
    rules.Rule(
      says="one or more, each with a name of its own",
      keeps=lambda names: (
        0 < len(names) == len({Path(name).stem for name in names})
      ),
    ),
    default=("dlib",),
  )
  tracker_detector: Path | None = option(
    "YuNet in an .onnx file, for the recognisers in files",
    default=None,
    more="It finds the faces for them; None stands for dlib's detector",
  )
  heads: tuple[str, ...] = option(
    f"classifiers of the trackers: {', '.join(HEADS)}",
    rules.some_of(*HEADS),
    default=("centroid", "logistic"),
  )
  identities: int = option(
    "number of people that a tracker learns; half of them are protected",
    rules.within(2, 1_000_000),
    default=20,
  )
  train: int = option(
    "photos of each person to train on",
    rules.within(1, 1_000_000),
    default=10,
    more="Those of the protected people are cloaked",
  )
  test: int = option(
    "clean photos of each person to recognise",
    rules.within(1, 1_000_000),
    default=5,
  )
  rhos: tuple[float, ...] = option(
    "budgets to compare, for dssim",
    rules.several("numbers"),
    rules.each(rules.within(0, 0.5, open_low=True)),
    default=(0.004, 0.007, 0.012, 0.017),
    rare=True,
  )
  sizes: tuple[int, ...] = option(
    "numbers of people to compare, for identities",
    rules.several("numbers"),
    rules.each(rules.within(2, 1_000_000)),
    default=(2, 5, 10, 20, 50, 100, 200, 500, 1000),
    rare=True,
  )
  leaks: tuple[float, ...] = option(
    "shares of clean photos to compare, for leak",
    rules.several("numbers"),
    rules.each(rules.within(0, 1)),
    default=(0.0, 0.1, 0.25, 0.5),
    rare=True,
  )
  rates: tuple[float, ...] = option(
    "false match rates to compare, for matching",
    rules.several("numbers"),
    rules.each(rules.within(0, 1, open_low=True)),
    default=(1e-2, 1e-3),
    rare=True,
  )
  adaptive_people: int = option(
    "number of other people whose cloaks a tracker learns, for adaptive",
    rules.within(1, 1_000_000),
    default=20,
    more="It is the number of these other people",
    rare=True,
  )
  ablations: tuple[tuple[tuple[str, float], ...], ...] = option(
    "what to switch off, as in jpeg=0,blur=0;own_weight=0, for ablation",
    rules.each(
      rules.Rule(
        says="options of the solver and numbers, as in jpeg=0;own_weight=0",
        keeps=lambda change: (
          bool(change) and {name for name, _ in change} <= _solver_options()
        ),
      )
    ),
    default=(
      (("own_weight", 0.0), ("exchange_weight", 0.0)),
      (("linf", 24.0),),
      (("chroma", 255.0),),
      (("jpeg", 0.0),),
      (("blur", 0.0),),
      (("jitter", 0.0),),
    ),
    read=values.changes,
    more="Each sets some options of the solver otherwise",
    rare=True,
  )
  finetune: str = option(
    "student to train, by architecture or .safetensors file, for finetune",
    default="student_resnet",
    more="The architecture is a student's, the file that of a trained one",
    rare=True,
  )
  finetune_steps: int = option(
    "training steps, for finetune",
    rules.within(1, 10**9),
    default=300,
    rare=True,
  )
  draws: int = option(
    "number of random draws of people, for confidence intervals",
    rules.within(1, 1_000_000),
    default=1000,
    more="The bootstrap draws them",
    rare=True,
  )

  def __post_init__(self) -> None:
    """Checks the options; see `Options`."""
    super().__post_init__()
    rules.require(
      self,
      "extractors",
      "two or more for {experiments}=leaveoneout",
      "leaveoneout" not in self.experiments
      or len(self.extractors) > 1
      or self.extractors == ("free",),
    )
    for mode in self.modes:
      for change in ((), *self.ablations):
        self.solver(mode, *change)

  def solver(self, mode: str, *changes: tuple[str, float]) -> SolverOptions:
    """The solver of a mode with this run's changes, and some more."""
    return changed(mode, *self.solver_changes, *changes)

  def cloak(
    self, solver: SolverOptions, source: Path, output: Path, **changes: Any
  ) -> CloakOptions:
    """The run of `fawkes-jax cloak` that makes an experiment's cloaks."""
    fields = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(FaceOptions)
    }
    return CloakOptions(
      **(
        fields
        | {"bank": self.bank, "targets": self.targets, "retry_failed": True}
        | changes
      ),
      input=source,
      output=output,
      solver=solver,
    )


def _solver_options() -> set[str]:
  return {field.name for field in dataclasses.fields(SolverOptions)}
