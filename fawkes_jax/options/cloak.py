"""Options of a run: frozen, validated where they are built.

Each error names the flag, the rule and the value.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from fawkes_jax import types

FLAGS = {
  "modes": "mode",
  "batch_sizes": "batch_size",
  "precisions": "precision",
  "extractors": "surrogates",
  "ensembles": "surrogates",
}
"""The flags of options that are called otherwise."""


def _require(flag: str, rule: str, value: Any, valid: bool) -> None:
  """Raises a FawkesError unless the value keeps the rule."""
  if not valid:
    raise types.FawkesError(f"--{flag} must be {rule}, got {value}")


def _require_number(
  flag: str, value: float, low: float, high: float, *, open_low: bool = False
) -> None:
  """Requires a number in [low, high], or in (low, high]."""
  rule = f"in {'(' if open_low else '['}{low:g}, {high:g}]"
  valid = math.isfinite(value) and low <= value <= high
  _require(flag, rule, value, valid and not (open_low and value == low))


def _require_choice(
  flag: str, values: Collection[str], known: Collection[str]
) -> None:
  """Requires one or more of the known values, each once."""
  _require(
    flag,
    f"of {', '.join(known)}, each once",
    ",".join(values) or "none",
    0 < len(values) == len(set(values)) and set(values) <= set(known),
  )


def _require_list(
  flag: str,
  values: Collection[float],
  low: float,
  high: float,
  *,
  open_low: bool = False,
) -> None:
  """Requires one or more numbers in a range, each once."""
  _require(
    flag,
    "one or more numbers, each once",
    ",".join(map(str, values)) or "none",
    0 < len(values) == len(set(values)),
  )
  for value in values:
    _require_number(flag, value, low, high, open_low=open_low)


PRECISIONS = ("float32", "bfloat16")
"""In which the solver's extractors can compute."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SolverOptions:
  """How a cloak is computed; the defaults are those of the mode "mid".

  Attributes:
    rho: the budget of structural dissimilarity (DSSIM) of a face, in (0, 0.5].
    steps: optimisation steps of a face at most.
    learning_rate: Adam's first step size, in units of 0..255; it decays to
      zero along a cosine.
    linf: the largest change of a pixel's channel, in units of 0..255.
    chroma: how far the change of a channel may be from the pixel's mean change
      of all three, in the same units; 0 for changes of brightness alone.
    own_weight: weight of the distance from the own identity, beside that of
      the nearness to the target.
    jitter: by how much the alignment is moved, scaled and turned at random in
      each step: times the spread between two recognisers' alignments.
    jpeg: the strength of the JPEG quantisation that each step puts the change
      through: up to this multiple of the photo's own tables, at random.
    jpeg_step: the coarsest quantisation step of a cloaked JPEG. Coarser ones of
      the source, which would swallow the cloak, are divided by whole numbers;
      0 keeps them.
    blur: how much each step blurs the view at most, as the half width of a
      triangle beyond one pixel of the extractor's input.
    extractors_per_step: how many extractors a step asks at most; they take
      turns. 0 asks all of them in each step.
    patience: a face ends early when this many steps within the budget have not
      lowered its loss by one percent; 0 never ends early.
    precision: of the extractors' computation, "float32" or "bfloat16"; "auto"
      for bfloat16 where there is an accelerator. Images, embeddings, loss and
      DSSIM are float32 in any case.
    seed: of the random views.
  """

  rho: float = 0.0135
  steps: int = 80
  learning_rate: float = 2.0
  linf: float = 48.0
  chroma: float = 12.0
  own_weight: float = 12.0
  jitter: float = 1.0
  jpeg: float = 1.0
  jpeg_step: int = 4
  blur: float = 1.2
  extractors_per_step: int = 3
  patience: int = 15
  precision: str = "auto"
  seed: int = 0

  def __post_init__(self):
    _require_choice("precision", (self.precision,), ("auto", *PRECISIONS))
    _require_number("rho", self.rho, 0, 0.5, open_low=True)
    _require_number("steps", self.steps, 1, 100_000)
    _require_number("learning_rate", self.learning_rate, 0, 255, open_low=True)
    _require_number("linf", self.linf, 1, 255)
    _require_number("chroma", self.chroma, 0, 255)
    _require_number("own_weight", self.own_weight, 0, 100)
    _require_number("jitter", self.jitter, 0, 4)
    _require_number("jpeg", self.jpeg, 0, 4)
    _require_number("jpeg_step", self.jpeg_step, 0, 255)
    _require_number("blur", self.blur, 0, 8)
    _require_number("extractors_per_step", self.extractors_per_step, 0, 1000)
    _require_number("patience", self.patience, 0, 100_000)
    _require_number("seed", self.seed, 0, 2**31 - 1)


# Budgets with which the mean DSSIM of the saved faces, in the box of dlib's
# detector, comes to those of Fawkes 1.0's modes: 0.004, 0.012 and 0.017.
MODES = {
  "low": SolverOptions(rho=0.0045, steps=100),
  "mid": SolverOptions(rho=0.0135),
  "high": SolverOptions(rho=0.0192),
}


def _changed(mode: str, *changes: tuple[str, Any]) -> SolverOptions:
  """The solver of a mode with some options set otherwise."""
  base = MODES[mode]
  return dataclasses.replace(
    base, **{k: type(getattr(base, k))(v) for k, v in dict(changes).items()}
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaceOptions:
  """How the faces of photos are found and embedded, in every command.

  Attributes:
    extractors: names or files, see `weights.extractors.load_extractor`.
    crop_size: the largest side of the aligned crop, in pixels; a multiple
      of 16.
    min_face_pixels: the side of the smallest face that is looked for, in
      pixels of the photo; None for the detector's rule.
    max_pixels: photos with more pixels are refused.
    batch_size: faces that go through the extractors at once; None to choose.
    threads: that decode and encode photos.
  """

  extractors: tuple[str, ...] = (
    "dlib_resnet",
    "student_mobilefacenet",
    "student_mobileface_v2",
    "student_se_mobilenet",
    "student_esp_mobilefacenet",
  )
  crop_size: int = 192
  min_face_pixels: float | None = None
  max_pixels: int = 250_000_000
  batch_size: int | None = None
  threads: int = min(8, os.cpu_count() or 1)

  def __post_init__(self):
    _require(
      "surrogates",
      "one or more names or files, each once",
      ",".join(self.extractors),
      0 < len(self.extractors) == len(set(self.extractors)),
    )
    _require_number("crop_size", self.crop_size, 64, 1024)
    _require(
      "crop_size", "a multiple of 16", self.crop_size, self.crop_size % 16 == 0
    )
    if self.min_face_pixels is not None:
      _require_number("min_face_pixels", self.min_face_pixels, 10, 10_000)
    _require_number("max_pixels", self.max_pixels, 1, 2**31)
    if self.batch_size is not None:
      _require_number("batch_size", self.batch_size, 1, 65_536)
    _require_number("threads", self.threads, 1, 256)


# Larger with each version that makes something else of a photo with the same
# options: 2 looks for smaller faces.
_RULES = 2

ENGINES = ("local", "ray")
FORMATS = ("tree", "tar")
OTHERS = ("copy", "skip")

Addresses = str | os.PathLike | tuple[str | os.PathLike, ...]
"""Of an archive, or of several."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CloakOptions(FaceOptions):
  """A run of `fawkes-jax cloak`.

  Attributes:
    input: the address of an archive, or of several, see `archive.scan`.
    output: the address of the folder that gets the cloaked photos and the
      manifest, see `archive.storage`.
    solver: how a cloak is computed.
    target_dir: a folder with photos of the target identity; None to take the
      farthest identity of the bank for each person.
    bank: a file made by `fawkes-jax bank`; None for the package's bank.
    album: how many files, in the order of their names, are looked through for
      photos of the same people before the first of them is cloaked.
    output_format: "tree" for a file each, "tar" for tar files of many.
    on_no_face: "copy" or "skip" a photo without a face.
    others: "copy" or "skip" files that are no photos; None to copy them, unless
      `strip_location` or `strip_names` is set, as they may hold such too.
    strip_location: whether GPS is taken out of the metadata.
    strip_names: whether names of people, regions of faces and keywords are.
    convert: whether of pictures that cannot be cloaked as what they are a PNG
      or JPEG is written beside their name.
    retry_failed: whether photos that failed in an earlier run are tried again,
      also where neither they nor the options have changed.
    dry_run: only count faces and estimate the time.
    num_processes: that share the archive: album k is that of process k modulo
      their number.
    process_id: which of them this is, from 0.
    wait_minutes: for another process that gives no sign of life.
    distributed: whether JAX finds the other processes and their number, as on
      a TPU slice of several hosts.
    coordinator_address: host:port of process 0, where JAX cannot find it.
    engine: "local" for this machine's devices, "ray" for a Ray cluster's.
    ray_address: of the cluster; None starts one on this machine.
    metrics_port: where Prometheus may read numbers; None for nowhere.
    json_logs: whether events go to standard error, one JSON object a line.
  """

  input: Addresses
  output: str | os.PathLike
  solver: SolverOptions = MODES["mid"]
  target_dir: Path | None = None
  bank: Path | None = None
  album: int = 128
  output_format: str = "tree"
  on_no_face: str = "copy"
  others: str | None = None
  strip_location: bool = False
  strip_names: bool = False
  convert: bool = False
  retry_failed: bool = False
  dry_run: bool = False
  num_processes: int = 1
  process_id: int = 0
  wait_minutes: float = 30.0
  distributed: bool = False
  coordinator_address: str | None = None
  engine: str = "local"
  ray_address: str | None = None
  metrics_port: int | None = None
  json_logs: bool = False

  def __post_init__(self):
    super().__post_init__()
    _require_number("album", self.album, 1, 1_000_000)
    _require_number("num_processes", self.num_processes, 1, 9999)
    _require_number("process_id", self.process_id, 0, self.num_processes - 1)
    _require_number("wait_minutes", self.wait_minutes, 0, 100_000)
    _require(
      "coordinator_address",
      "given together with --distributed",
      self.coordinator_address,
      self.coordinator_address is None or self.distributed,
    )
    _require("engine", "local or ray", self.engine, self.engine in ENGINES)
    several = self.num_processes > 1 or self.distributed
    _require(
      "engine",
      "local where --num_processes or --distributed are given",
      self.engine,
      self.engine == "local" or not several,
    )
    _require(
      "ray_address",
      "given together with --engine=ray",
      self.ray_address,
      self.ray_address is None or self.engine == "ray",
    )
    if self.metrics_port is not None:
      _require_number("metrics_port", self.metrics_port, 1, 65_535)
    # Ray's client cannot stream results.
    _require(
      "ray_address",
      "auto or host:port, on a machine of the cluster",
      self.ray_address,
      not (self.ray_address or "").startswith("ray://"),
    )
    _require(
      "on_no_face",
      "copy or skip",
      self.on_no_face,
      self.on_no_face in ("copy", "skip"),
    )
    _require(
      "others",
      "copy or skip",
      self.others,
      self.others in (None, *OTHERS),
    )
    _require(
      "output_format",
      "tree or tar",
      self.output_format,
      self.output_format in FORMATS,
    )

  @property
  def copies_others(self) -> bool:
    """Whether files that are no photos are copied."""
    if self.others is not None:
      return self.others == "copy"
    return not (self.strip_location or self.strip_names)

  def fingerprint(self) -> str:
    """A digest of all options that change what a photo becomes.

    Returns:
      Twelve hexadecimal digits.
    """
    names = (
      "solver",
      "extractors",
      "target_dir",
      "bank",
      "album",
      "crop_size",
      "min_face_pixels",
      "on_no_face",
      "strip_location",
      "strip_names",
      "convert",
    )
    everything = dataclasses.asdict(self) | {"rules": _RULES}
    text = json.dumps(
      {n: everything[n] for n in (*names, "rules")}, default=str
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatusOptions:
  """A run of `fawkes-jax status`.

  Attributes:
    output: a folder that `fawkes-jax cloak` writes or has written.
    input: what it is made from; None to look at the results alone.
    failed: whether to name every file that needs attention, and nothing else.
  """

  output: str | os.PathLike
  input: Addresses | None = None
  failed: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyOptions:
  """A run of `fawkes-jax verify`.

  Attributes:
    output: a folder that `fawkes-jax cloak` has written.
    input: what it was made from; None to look at the results alone.
  """

  output: str | os.PathLike
  input: Addresses | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class BankOptions(FaceOptions):
  """A run of `fawkes-jax bank`.

  Attributes:
    input: a folder with a folder of photos for each identity.
    output: the safetensors file.
    min_photos: identities with fewer photos are left out.
    max_photos: identities with more are left out.
    identities: at most so many, evenly over the alphabet.
  """

  input: Path
  output: Path
  min_photos: int = 4
  max_photos: int = 9
  identities: int = 512

  def __post_init__(self):
    super().__post_init__()
    _require("input", "a folder", self.input, self.input.is_dir())
    _require_number("min_photos", self.min_photos, 1, 1_000_000)
    _require_number("max_photos", self.max_photos, self.min_photos, 1_000_000)
    _require_number("identities", self.identities, 2, 1_000_000)


TWIN = "twin"
"""The student that has its teacher's architecture."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions:
  """A run of `fawkes-jax train`.

  Attributes:
    data: a folder with a folder of photos for each identity, or `tfds:NAME`.
    data_note: what the model card says of the data: source and licence.
    output: the folder that gets the weights, the model card and the state.
    student: the architecture, a key of `models.students.STUDENTS`; or "twin"
      for the only teacher's, to be taught block by block.
    teachers: each an extractor, by its name or file, or an .npz or
      .safetensors file of embeddings. May be empty where identities are
      learned.
    name: of the files written; None for the student's.
    initial: weights of the same architecture to begin with, as a training
      writes them; None to begin with random ones. A twin's blocks then learn
      together from the start.
    minutes: of training at most, over all runs that continue one another.
    steps: of training at most; None for as many as the minutes allow. The
      learning rate falls towards the last step, without one towards the end
      of the minutes.
    batch_size: crops a step.
    learning_rate: its peak, after the warm-up.
    weight_decay: of AdamW.
    ema: how much of the averaged weights remains in each step.
    relations: weight of the loss on cosines between the crops of a batch.
    identities: weight of the ArcFace loss on the training's identities.
    adversarial: L-infinity bound of the adversarial change of the student's
      input, in units of 0..255, reached after a third of the run; 0 trains
      on clean input.
    adversarial_steps: projected gradient steps that find the change.
    cloaking: L-infinity bound of the cloaks that the student's input gets, in
      units of 0..255. They are computed against the student; the teachers
      look at the cloaked face, so that the student learns which changes move
      them and which do not. 0 makes none, and the teachers look at each crop
      once.
    cloaking_steps: gradient steps that make a cloak.
    repeats: steps on each batch of cloaked faces, each on other views.
    dtype: of the student's computation.
    holdout: a file of identities, one a line, that are never trained on.
    holdout_min_photos: identities with so many photos or more are never
      trained on; 0 for no such rule.
    validation: share of the other identities that serve validation.
    pairs: a file of pairs to verify, of which those of identities that are
      not trained on are used.
    report_minutes: between validations and checkpoints.
    crop_size: side of the cached crops in pixels.
    min_face_pixels: the side of the smallest face that is looked for, in
      pixels of the photo; None for the detector's rule.
    threads: that draw the student's views.
    seed: of everything that is random.
  """

  data: str
  output: Path
  data_note: str = "source and licence not stated"
  student: str = "student_resnet"
  teachers: tuple[str, ...] = ("dlib_resnet",)
  name: str | None = None
  initial: Path | None = None
  minutes: float = 60.0
  steps: int | None = None
  batch_size: int = 64
  learning_rate: float = 2e-3
  weight_decay: float = 0.05
  ema: float = 0.998
  relations: float = 0.0
  identities: float = 0.0
  adversarial: float = 0.0
  adversarial_steps: int = 1
  cloaking: float = 0.0
  cloaking_steps: int = 4
  repeats: int = 4
  dtype: str = "float32"
  holdout: Path | None = None
  holdout_min_photos: int = 0
  validation: float = 0.05
  pairs: Path | None = None
  report_minutes: float = 3.0
  crop_size: int = 160
  min_face_pixels: float | None = None
  threads: int = min(8, os.cpu_count() or 1)
  seed: int = 0

  def __post_init__(self):
    _require(
      "teachers",
      "one or more, each once, or --identities above 0",
      ",".join(self.teachers) or "none",
      len(self.teachers) == len(set(self.teachers))
      and bool(self.teachers or self.identities > 0),
    )
    _require(
      "dtype",
      "float32 or bfloat16",
      self.dtype,
      self.dtype in ("float32", "bfloat16"),
    )
    _require_number("minutes", self.minutes, 0, 100_000, open_low=True)
    if self.steps is not None:
      _require_number("steps", self.steps, 1, 10**9)
    _require_number("batch_size", self.batch_size, 2, 65_536)
    _require_number("learning_rate", self.learning_rate, 0, 1, open_low=True)
    _require_number("weight_decay", self.weight_decay, 0, 1)
    _require_number("ema", self.ema, 0, 0.99999)
    for name in ("relations", "identities"):
      _require_number(name, getattr(self, name), 0, 1000)
    _require_number("adversarial", self.adversarial, 0, 64)
    _require_number("adversarial_steps", self.adversarial_steps, 1, 100)
    _require_number("cloaking", self.cloaking, 0, 64)
    _require_number("cloaking_steps", self.cloaking_steps, 1, 100)
    _require_number("repeats", self.repeats, 1, 100)
    _require(
      "cloaking",
      "0 with --adversarial or --identities above 0, or without teachers",
      self.cloaking,
      not self.cloaking
      or bool(self.teachers and not (self.adversarial or self.identities)),
    )
    _require(
      "student",
      f"{TWIN} with one teacher, and without --relations, --identities and"
      " --adversarial",
      self.student,
      self.student != TWIN
      or (
        len(self.teachers) == 1
        and not (self.relations or self.identities or self.adversarial)
      ),
    )
    _require_number("holdout_min_photos", self.holdout_min_photos, 0, 10**9)
    _require_number("validation", self.validation, 0, 0.9)
    _require_number(
      "report_minutes", self.report_minutes, 0, 100_000, open_low=True
    )
    _require_number("seed", self.seed, 0, 2**31 - 1)
    assert self.faces  # Checks the rest.

  @property
  def faces(self) -> FaceOptions:
    """How the faces of the data are found."""
    return FaceOptions(
      crop_size=self.crop_size,
      min_face_pixels=self.min_face_pixels,
      threads=self.threads,
    )

  @property
  def model_name(self) -> str:
    """The name of the files written, without suffix."""
    return self.name or self.student


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsListOptions:
  """A run of `fawkes-jax weights list`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsFetchOptions:
  """A run of `fawkes-jax weights fetch`.

  Attributes:
    names: of public recognisers, see `weights.known`.
    mirror: a URL under which their files lie, instead of their addresses.
    accept_research_licence: that weights for research only are wanted.
  """

  names: tuple[str, ...]
  mirror: str | None = None
  accept_research_licence: bool = False

  def __post_init__(self):
    _require(
      "mirror",
      "an http or https URL",
      self.mirror,
      self.mirror is None or self.mirror.startswith(("https://", "http://")),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsImportOptions:
  """A run of `fawkes-jax weights import`.

  Attributes:
    file: a recogniser in ONNX, OpenVINO or safetensors.
    name: that --surrogates shall take; None for the file's.
    architecture: that it must be of; None for any.
    template: of an ONNX network: a name, or left, top and side of a square of
      the face frame; like the rest, None for the contract beside the file.
    mean: of an ONNX network: what is subtracted from RGB in 0..255.
    scale: of an ONNX network: what is then divided by.
    bgr: whether an ONNX network takes blue, green, red.
  """

  file: Path
  name: str | None = None
  architecture: str | None = None
  template: str | tuple[float, ...] | None = None
  mean: tuple[float, ...] | None = None
  scale: tuple[float, ...] | None = None
  bgr: bool | None = None

  @property
  def contract(self) -> dict[str, Any]:
    """What was said of an ONNX network."""
    names = ("template", "mean", "scale", "bgr")
    values = {name: getattr(self, name) for name in names}
    return {name: v for name, v in values.items() if v is not None}


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions(FaceOptions):
  """A run of `fawkes-jax evaluate`.

  Attributes:
    data: a folder with a folder of photos for each identity, or `tfds:NAME`.
    output: the folder that gets the results and all that is kept for a next
      run.
    experiments: what to measure, of `EXPERIMENTS`.
    modes: the strengths of the cloaks; sweeps vary the first.
    solver_changes: what the solver does otherwise than in the modes.
    bank: a file made by `fawkes-jax bank`; None for the package's bank.
    trackers: "dlib", or recognisers in .onnx or .xml files.
    detector: YuNet in an .onnx file, which finds the faces for the
      recognisers in files; None for dlib's detector.
    heads: of the trackers, of `HEADS`.
    identities: people in a tracker; every second one is protected.
    train: photos of each to train on; those of the protected are cloaked.
    test: clean photos of each to recognise.
    rhos: budgets of the experiment "dssim".
    sizes: numbers of people in a tracker, for "identities".
    leaks: shares of clean photos in the tracker, for "leak".
    rates: false match rates, for "matching".
    adaptive_people: how many other people's cloaks the tracker learns from,
      for "adaptive".
    ablations: for "ablation", each some options of the solver and what they
      are set to.
    finetune: the network of "finetune": a student's architecture, or the
      .safetensors file of a trained student.
    finetune_steps: of its training.
    draws: of people in the bootstrap.
  """

  data: str
  output: Path
  experiments: tuple[str, ...] = ("protection",)
  modes: tuple[str, ...] = ("mid",)
  solver_changes: tuple[tuple[str, Any], ...] = ()
  bank: Path | None = None
  trackers: tuple[str, ...] = ("dlib",)
  detector: Path | None = None
  heads: tuple[str, ...] = ("centroid", "logistic")
  identities: int = 20
  train: int = 10
  test: int = 5
  rhos: tuple[float, ...] = (0.004, 0.007, 0.012, 0.017)
  sizes: tuple[int, ...] = (2, 5, 10, 20, 50, 100, 200, 500, 1000)
  leaks: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5)
  rates: tuple[float, ...] = (1e-2, 1e-3)
  adaptive_people: int = 20
  ablations: tuple[tuple[tuple[str, float], ...], ...] = (
    (("own_weight", 0.0),),
    (("linf", 24.0),),
    (("chroma", 255.0),),
    (("jpeg", 0.0),),
    (("blur", 0.0),),
    (("jitter", 0.0),),
  )
  finetune: str = "student_resnet"
  finetune_steps: int = 300
  draws: int = 1000

  def __post_init__(self):
    super().__post_init__()
    _require_choice("experiments", self.experiments, EXPERIMENTS)
    _require_choice("mode", self.modes, MODES)
    _require_choice("heads", self.heads, HEADS)
    stems = [Path(name).stem for name in self.trackers]
    _require(
      "trackers",
      "one or more, each with a name of its own",
      ",".join(self.trackers) or "none",
      0 < len(stems) == len(set(stems)),
    )
    _require_number("identities", self.identities, 2, 1_000_000)
    _require_number("train", self.train, 1, 1_000_000)
    _require_number("test", self.test, 1, 1_000_000)
    _require_list("rhos", self.rhos, 0, 0.5, open_low=True)
    _require_list("sizes", self.sizes, 2, 1_000_000)
    _require_list("leaks", self.leaks, 0, 1)
    _require_list("rates", self.rates, 0, 1, open_low=True)
    _require_number("adaptive_people", self.adaptive_people, 1, 1_000_000)
    _require_number("finetune_steps", self.finetune_steps, 1, 10**9)
    _require_number("draws", self.draws, 1, 1_000_000)
    _require(
      "surrogates",
      "two or more for --experiments=leaveoneout",
      ",".join(self.extractors),
      "leaveoneout" not in self.experiments or len(self.extractors) > 1,
    )
    known_options = {field.name for field in dataclasses.fields(SolverOptions)}
    for change in self.ablations:
      _require(
        "ablations",
        "options of the solver and numbers, as in jpeg=0;own_weight=0",
        ",".join(f"{name}={value}" for name, value in change) or "nothing",
        bool(change) and {name for name, _ in change} <= known_options,
      )
    for mode in self.modes:
      for change in ((), *self.ablations):
        self.solver(mode, *change)

  def solver(self, mode: str, *changes: tuple[str, float]) -> SolverOptions:
    """The solver of a mode with this run's changes, and some more."""
    return _changed(mode, *self.solver_changes, *changes)

  def cloak(
    self, solver: SolverOptions, source: Path, output: Path, **changes: Any
  ) -> CloakOptions:
    """The run of `fawkes-jax cloak` that makes an experiment's cloaks."""
    fields = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(FaceOptions)
    }
    return CloakOptions(
      **(fields | {"bank": self.bank, "retry_failed": True} | changes),
      input=source,
      output=output,
      solver=solver,
    )


PARTS = ("solver", "detector", "codecs", "pipeline")
"""What `fawkes-jax benchmark` can measure; see docs/performance.md."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
  """A run of `fawkes-jax benchmark`.

  Attributes:
    output: the folder that gets the results.
    data: a folder of photos, or one photo; None for a photo that scikit-image
      brings.
    parts: what to measure, of `PARTS`; None for all that there are photos for.
    mode: how strong the cloaks are, which decides the steps of a face.
    solver_changes: what the solver does otherwise than in the mode.
    ensembles: of extractors, each as in `FaceOptions`.
    batch_sizes: faces that are solved at once; None to choose.
    precisions: of `PRECISIONS`; None for float32, and on accelerators both.
    devices: numbers of devices; None for one and for all.
    rounds: in each of which everything is measured once.
    round_seconds: that each measurement of a round takes at least.
    photos: at most so many go through the pipeline; None to choose.
    bank: a file made by `fawkes-jax bank`; None for the package's bank.
    price_per_hour: of this host.
    profile_dir: a folder that gets a trace of a few steps; None for none.
    crop_size: as in `FaceOptions`, like the rest.
    min_face_pixels: see there.
    max_pixels: see there.
    threads: see there.
  """

  output: Path
  data: Path | None = None
  parts: tuple[str, ...] | None = None
  mode: str = "mid"
  solver_changes: tuple[tuple[str, Any], ...] = ()
  ensembles: tuple[tuple[str, ...], ...] = (FaceOptions.extractors,)
  batch_sizes: tuple[int, ...] | None = None
  precisions: tuple[str, ...] | None = None
  devices: tuple[int, ...] | None = None
  rounds: int = 5
  round_seconds: float = 1.0
  photos: int | None = None
  bank: Path | None = None
  price_per_hour: float | None = None
  profile_dir: Path | None = None
  crop_size: int = FaceOptions.crop_size
  min_face_pixels: float | None = None
  max_pixels: int = FaceOptions.max_pixels
  threads: int = FaceOptions.threads

  def __post_init__(self):
    if self.parts is not None:
      _require_choice("parts", self.parts, PARTS)
    _require_choice("mode", (self.mode,), MODES)
    _require(
      "surrogates",
      "one or more ensembles, each once",
      ";".join(map(",".join, self.ensembles)) or "none",
      0 < len(self.ensembles) == len(set(self.ensembles)),
    )
    if self.batch_sizes is not None:
      _require_list("batch_size", self.batch_sizes, 1, 65_536)
    if self.precisions is not None:
      _require_choice("precision", self.precisions, PRECISIONS)
    if self.devices is not None:
      _require_list("devices", self.devices, 1, 65_536)
    _require_number("rounds", self.rounds, 1, 1000)
    _require_number("round_seconds", self.round_seconds, 0, 3600)
    if self.photos is not None:
      _require_number("photos", self.photos, 1, 1_000_000)
    if self.price_per_hour is not None:
      _require_number("price_per_hour", self.price_per_hour, 0, 1e6)
    _require(
      "profile_dir",
      "left out where --parts has no solver",
      self.profile_dir,
      self.profile_dir is None or self.parts is None or "solver" in self.parts,
    )
    for ensemble in self.ensembles:
      self.cloak(Path(), Path(), ensemble)  # Checks the rest.

  @property
  def solver(self) -> SolverOptions:
    """How a cloak is computed."""
    return _changed(self.mode, *self.solver_changes)

  def cloak(
    self, source: Path, output: Path, ensemble: tuple[str, ...]
  ) -> CloakOptions:
    """The run of `fawkes-jax cloak` that is measured.

    It solves as many faces at once, and in the precision, as it would choose,
    unless there is exactly one.
    """
    sizes, precisions = self.batch_sizes or (), self.precisions or ()
    precision = precisions[0] if len(precisions) == 1 else "auto"
    return CloakOptions(
      input=source,
      output=output,
      solver=dataclasses.replace(self.solver, precision=precision),
      extractors=ensemble,
      bank=self.bank,
      crop_size=self.crop_size,
      min_face_pixels=self.min_face_pixels,
      max_pixels=self.max_pixels,
      batch_size=sizes[0] if len(sizes) == 1 else None,
      threads=self.threads,
    )
