"""Options of `fawkes-jax train-detector`."""

from pathlib import Path

from fawkes_jax.options import rules, training
from fawkes_jax.options.declared import Options, option


class TrainDetectorOptions(Options):
  """A run of `fawkes-jax train-detector`."""

  data: Path = option(
    "folder with annotations.tsv, the boxes of the faces of its photos",
    rules.Rule(says="a folder", keeps=Path.is_dir),
    more="Its columns are file, left, top, right, bottom and, if it has it,"
    " difficulty, which says ignore of what need not be found; where the"
    " teacher and the boxes disagree, the student learns what is between",
  )
  output: Path = training.output()
  single_faces: tuple[str, ...] = option(
    "folders with faces.tsv, the box of the face of each of their photos, with"
    " commas",
    default=(),
    more="These faces are pasted into the photos of the data",
  )
  data_note: str = training.data_note()
  teacher: str = option(
    "detector that teaches: yunet",
    rules.one_of("yunet"),
    default="yunet",
    more="The student has its architecture, and learns its features layer by"
    " layer",
  )
  threshold: float = option(
    "likelihood from which on what the detector says is a face",
    rules.within(0, 1),
    default=0.5,
    more="It is written into the file",
    rare=True,
  )
  name: str = option("of the files written", default="detector")
  initial: str | None = option(
    "detector to start from: own, or a file of an earlier training",
    default=None,
    shown="random weights",
  )
  minutes: float = training.minutes()
  steps: int | None = training.steps()
  batch_size: int = option(
    "scenes a step", rules.within(1, 65_536), default=8, rare=True
  )
  scene_size: int = option(
    "side of a scene, in pixels",
    rules.within(64, 1024),
    rules.Rule(says="a multiple of 32", keeps=lambda value: value % 32 == 0),
    default=320,
    rare=True,
  )
  learning_rate: float = option(
    "its peak, as a share of 1/15 of a weight's size",
    rules.within(0, 1, open_low=True),
    default=4e-3,
    more="It is reached after the warm-up",
    rare=True,
  )
  apart: float | None = training.apart()
  ema: float = option(
    "how much of the averaged weights remains in each step",
    rules.within(0, 0.99999),
    default=0.998,
    rare=True,
  )
  report_minutes: float = option(
    "between checkpoints",
    rules.within(0, 100_000, open_low=True),
    default=3.0,
    rare=True,
  )
  seed: int = option(
    "of everything that is random", rules.within(0, 2**31 - 1), default=0
  )

  @property
  def share_apart(self) -> float:
    """The share of the run in which blocks learn apart, as random ones must."""
    return training.share_apart(self.apart, self.initial)
