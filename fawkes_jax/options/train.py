"""Options of `fawkes-jax train`."""

from pathlib import Path

from fawkes_jax.options import faces, rules, training
from fawkes_jax.options.declared import Options, option
from fawkes_jax.options.faces import FaceOptions

TWIN = "twin"
"""The student that has its teacher's architecture."""


class TrainOptions(Options):
  """A run of `fawkes-jax train`."""

  data: str = option(
    "folder with a folder of photos for each identity, or tfds:NAME, a"
    " TensorFlow Datasets name"
  )
  output: Path = training.output()
  data_note: str = training.data_note()
  student: str = option(
    "architecture of the student",
    default="student_resnet",
    more="It is a key of `models.students.STUDENTS`, or twin for the only"
    " teacher's, to be taught block by block",
  )
  teachers: tuple[str, ...] = option(
    "extractors by name or file, or .npz or .safetensors files of embeddings,"
    " separated by commas",
    default=("dlib_resnet",),
    more="There may be none where identities are learned",
  )
  name: str | None = option(
    "name of the files written", default=None, shown="the architecture's"
  )
  initial: Path | None = option(
    "file of weights to start from",
    default=None,
    shown="random ones",
    more="They are of the same architecture, as a training writes them",
  )
  apart: float | None = training.apart()
  minutes: float = training.minutes()
  steps: int | None = training.steps()
  batch_size: int = option(
    "crops per step", rules.within(2, 65_536), default=64, rare=True
  )
  learning_rate: float = option(
    "largest learning rate",
    rules.within(0, 1, open_low=True),
    default=2e-3,
    more="It is reached after the warm-up",
    rare=True,
  )
  weight_decay: float = option(
    "weight decay of AdamW", rules.within(0, 1), default=0.05, rare=True
  )
  ema: float = option(
    "share of the averaged weights that remains in each step",
    rules.within(0, 0.99999),
    default=0.998,
    rare=True,
  )
  relations: float = option(
    "weight of the loss on cosines within a batch",
    rules.within(0, 1000),
    default=0.0,
    rare=True,
  )
  identities: float = option(
    "weight of the ArcFace loss on identities",
    rules.within(0, 1000),
    default=0.0,
  )
  adversarial: float = option(
    "largest adversarial change, in units of 0..255; 0: none",
    rules.within(0, 64),
    default=0.0,
    more="It is an L-infinity bound of changes of the student's input, reached"
    " after a third of the run",
    rare=True,
  )
  adversarial_steps: int = option(
    "gradient steps to find an adversarial change",
    rules.within(1, 100),
    default=1,
    rare=True,
  )
  cloaking: float = option(
    "largest change of cloaks that teachers see, in 0..255; 0: none",
    rules.within(0, 64),
    default=0.0,
    more="It is an L-infinity bound, in units of 0..255, of the cloaks that the"
    " student's input gets. They are computed against the student; the teachers"
    " look at the cloaked face, so that the student learns which changes move"
    " them and which do not. Without cloaks the teachers look at each crop"
    " once",
    rare=True,
  )
  cloaking_steps: int = option(
    "gradient steps to make a cloak",
    rules.within(1, 100),
    default=4,
    rare=True,
  )
  repeats: int = option(
    "steps on each batch of cloaked faces",
    rules.within(1, 100),
    default=4,
    more="Each step is on other views",
    rare=True,
  )
  dtype: str = option(
    "type of the computation: float32 or bfloat16",
    rules.one_of("float32", "bfloat16"),
    default="float32",
    more="It is the student's",
    rare=True,
  )
  holdout: Path | None = option(
    "file of identities never to train on, one a line", default=None, rare=True
  )
  holdout_min_photos: int = option(
    "do not train on identities with this many photos or more; 0: no limit",
    rules.within(0, 10**9),
    default=0,
    more="Identities with so many photos or more are never trained on",
    rare=True,
  )
  validation: float = option(
    "share of the other identities for validation",
    rules.within(0, 0.9),
    default=0.05,
    rare=True,
  )
  pairs: Path | None = option(
    "file of pairs to verify: 0 or 1, tab, photo, tab, photo",
    default=None,
    more="Those of identities that are not trained on are used",
  )
  report_minutes: float = option(
    "minutes between validations and checkpoints",
    rules.within(0, 100_000, open_low=True),
    default=3.0,
    rare=True,
  )
  crop_size: int = option(
    "side of the cached crops, in pixels",
    *faces.CROP_SIZE,
    default=160,
    rare=True,
  )
  min_face_pixels: float | None = option(
    "side of the smallest face to look for",
    faces.MIN_FACE_PIXELS,
    default=None,
    more="It is in pixels of the photo; None stands for the detector's rule",
    rare=True,
  )
  threads: int = option(
    "number of threads that draw the student's views",
    faces.THREADS,
    default=faces.DEFAULT_THREADS,
    rare=True,
  )
  seed: int = option(
    "seed of everything that is random", rules.within(0, 2**31 - 1), default=0
  )

  def __post_init__(self) -> None:
    """Checks the options; see `Options`."""
    super().__post_init__()
    rules.require(
      self,
      "teachers",
      "one or more, each once, or {identities} above 0",
      len(self.teachers) == len(set(self.teachers))
      and bool(self.teachers or self.identities > 0),
    )
    rules.require(
      self,
      "cloaking",
      "0 with {adversarial} or {identities} above 0, or without teachers",
      not self.cloaking
      or bool(self.teachers and not (self.adversarial or self.identities)),
    )
    rules.require(
      self,
      "student",
      f"{TWIN} with one teacher, and without {{relations}}, {{identities}} and"
      " {adversarial}",
      self.student != TWIN
      or (
        len(self.teachers) == 1
        and not (self.relations or self.identities or self.adversarial)
      ),
    )

  @property
  def faces(self) -> FaceOptions:
    """How the faces of the data are found."""
    return FaceOptions(
      crop_size=self.crop_size,
      min_face_pixels=self.min_face_pixels,
      threads=self.threads,
    )

  @property
  def share_apart(self) -> float:
    """The share of the run in which a twin's blocks learn apart.

    Random blocks need that; what an earlier run has taught can do without.
    """
    return training.share_apart(self.apart, self.initial)

  @property
  def model_name(self) -> str:
    """The name of the files written, without suffix."""
    return self.name or self.student
