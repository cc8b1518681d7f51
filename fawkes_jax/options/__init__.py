"""Options of the commands: declared once, validated where they are built."""

from fawkes_jax.options.bank import BankOptions
from fawkes_jax.options.benchmark import PARTS, USUAL_PARTS, BenchmarkOptions
from fawkes_jax.options.cloak import (
  Addresses,
  CloakerOptions,
  CloakOptions,
  IndexOptions,
)
from fawkes_jax.options.demo import DemoOptions
from fawkes_jax.options.evaluate import EXPERIMENTS, HEADS, EvaluateOptions
from fawkes_jax.options.faces import FaceOptions, PhotoOptions
from fawkes_jax.options.report import ReportOptions
from fawkes_jax.options.results import (
  ForgetOptions,
  PeopleOptions,
  StatusOptions,
  VerifyOptions,
)
from fawkes_jax.options.rules import OptionError
from fawkes_jax.options.solver import (
  MODES,
  PRECISIONS,
  ModeOptions,
  SolverOptions,
)
from fawkes_jax.options.train import TWIN, TrainOptions
from fawkes_jax.options.train_detector import TrainDetectorOptions
from fawkes_jax.options.weights import (
  WeightsFetchOptions,
  WeightsImportOptions,
  WeightsListOptions,
)

__all__ = [
  "EXPERIMENTS",
  "HEADS",
  "MODES",
  "PARTS",
  "PRECISIONS",
  "TWIN",
  "USUAL_PARTS",
  "Addresses",
  "BankOptions",
  "BenchmarkOptions",
  "CloakOptions",
  "CloakerOptions",
  "DemoOptions",
  "EvaluateOptions",
  "FaceOptions",
  "ForgetOptions",
  "IndexOptions",
  "ModeOptions",
  "OptionError",
  "PeopleOptions",
  "PhotoOptions",
  "ReportOptions",
  "SolverOptions",
  "StatusOptions",
  "TrainDetectorOptions",
  "TrainOptions",
  "VerifyOptions",
  "WeightsFetchOptions",
  "WeightsImportOptions",
  "WeightsListOptions",
]
