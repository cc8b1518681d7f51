"""The command line: flags become options, nothing else."""

import argparse
import contextlib
import dataclasses
import difflib
import importlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags
from absl import logging as absl_logging
from absl.flags import argparse_flags

from fawkes_jax import types, version
from fawkes_jax.archive import files
from fawkes_jax.options import (
  ENGINES,
  EXPERIMENTS,
  FLAGS,
  FORMATS,
  HEADS,
  MODES,
  OTHERS,
  PARTS,
  BankOptions,
  BenchmarkOptions,
  CloakOptions,
  EvaluateOptions,
  FaceOptions,
  SolverOptions,
  StatusOptions,
  TrainOptions,
  VerifyOptions,
  WeightsFetchOptions,
  WeightsImportOptions,
  WeightsListOptions,
)
from fawkes_jax.xla import memory

_DOCS = {
  "rho": "budget of structural dissimilarity (DSSIM) of a face",
  "steps": "optimisation steps of a face at most",
  "learning_rate": "first step size, in units of 0..255",
  "linf": "largest change of a pixel's channel, in units of 0..255",
  "chroma": "largest change of a channel apart from the pixel's grey",
  "own_weight": "weight of leaving the own identity beside reaching the target",
  "jitter": "random shift, scale and turn of the alignment in each step, times"
  " the spread between recognisers",
  "jpeg": "random JPEG quantisation in each step, times the photo's tables",
  "jpeg_step": "coarsest quantisation step of a cloaked JPEG; coarser ones of"
  " the photo are divided, and the file grows; 0 keeps them",
  "blur": "random blur in each step, in pixels of the extractor's input",
  "extractors_per_step": "extractors that a step asks, in turns; 0 for all",
  "patience": "steps without a gain of 1%% after which a face ends; 0 never",
  "precision": "float32 or bfloat16, in which the extractors compute; auto for"
  " bfloat16 on accelerators",
  "seed": "of the random views; the same seed gives the same bytes",
}

# The flags that `--help` shows where it does not show all of them.
_NEEDED = {
  "cloak": (
    *("places", "input", "output", "mode", "on_no_face"),
    *("others", "strip_location", "strip_names", "convert", "retry_failed"),
    *("dry_run", "extractors", "min_face_pixels", "output_format"),
  ),
  "bank": (
    *("input", "output", "min_photos", "max_photos"),
    *("identities", "extractors"),
  ),
  "train": (
    *("data", "output", "teachers", "student", "name"),
    *("initial", "minutes", "steps", "identities", "pairs", "seed"),
  ),
  "evaluate": (
    *("data", "output", "experiments", "modes"),
    *("trackers", "detector", "heads", "identities", "train", "test"),
    *("extractors", "bank"),
  ),
  "benchmark": (
    *("output", "data", "parts", "batch_sizes"),
    *("ensembles", "devices", "rounds", "photos", "price_per_hour", "mode"),
  ),
}

# Commands whose folders need no flags, as in `fawkes-jax cloak IN OUT`.
_PLACES = ("cloak", "status", "verify")

# Commands that keep what they have done when they are interrupted.
_CONTINUED = ("cloak", "evaluate", "train", "weights")


class _Parser(argparse_flags.ArgumentParser):
  """Says in a line what is wrong, and shows rare flags only when asked to."""

  def __init__(self, **options: Any):
    super().__init__(
      **options,
      add_help=False,
      allow_abbrev=False,
      inherited_absl_flags=None,
    )
    for names, what in (
      (("-h", "--help"), "the flags that people need"),
      (("--help_all",), "all flags"),
    ):
      self.add_argument(
        *names,
        action=_Help,
        nargs=0,
        dest=argparse.SUPPRESS,
        default=argparse.SUPPRESS,
        help=f"show {what} and exit",
      )

  def error(self, message: str) -> NoReturn:
    """Ends the program, without thirty lines of flags."""
    self.exit(2, f"{self.prog}: {message} ({self.prog} --help)\n")

  def flags(self) -> list[str]:
    """All that it knows."""
    return [name for name in self._option_string_actions if name[1] == "-"]

  def commands(self) -> Any:
    """Its subcommands; None where it has none."""
    kinds = (argparse._SubParsersAction,)
    return next((a for a in self._actions if isinstance(a, kinds)), None)

  def show(self, *, everything: bool) -> None:
    """Prints the help: all flags, or those that people need."""
    needed = _NEEDED.get(self.prog.split()[-1])
    rare = [
      action
      for action in self._actions
      if not (everything or needed is None)
      and action.dest not in (*needed, argparse.SUPPRESS)
    ]
    texts = [action.help for action in rare]
    for action in rare:
      action.help = argparse.SUPPRESS
    if rare:
      self.epilog = f"{self.prog} --help_all shows {len(rare)} flags more."
    self.print_help()
    self.epilog = None
    for action, text in zip(rare, texts, strict=True):
      action.help = text


class _Help(argparse.Action):
  """Shows a parser's help."""

  def __call__(
    self, parser: Any, namespace: Any, values: Any, option: str | None = None
  ) -> None:
    parser.show(everything=option == "--help_all")
    parser.exit()


def _parser() -> _Parser:
  """The parser of all subcommands."""
  parser = _Parser(
    prog="fawkes-jax",
    description="Protects people's photographs from unauthorised face"
    " recognition: fawkes-jax cloak PHOTOS CLOAKED",
  )
  parser.add_argument(
    "--version", action="version", version=version.__version__
  )
  commands = parser.add_subparsers(dest="command", required=True)
  _add_cloak(commands)
  _add_status(commands)
  _add_verify(commands)
  _add_bank(commands)
  _add_train(commands)
  _add_evaluate(commands)
  _add_benchmark(commands)
  _add_weights(commands)
  return parser


def _add_cloak(commands: Any) -> None:
  parser = commands.add_parser(
    "cloak",
    usage="fawkes-jax cloak [flags] IN ... OUT",
    help="cloak every face in a folder of photos",
    description="Writes the same tree of photos with every face cloaked, and"
    " OUTPUT/manifest.jsonl with a row for each file. Run again, it continues"
    " where it stopped.",
  )
  add = parser.add_argument
  _add_places(parser)
  add(
    "--input",
    action="append",
    help="folder of photos, here or in a bucket (s3://..., gs://...); or one"
    " photo, a .txt or .parquet list of addresses, .zip, .tar, .tar.gz, or"
    " tfds:NAME; several times for several",
  )
  add(
    "--output",
    help="folder for the results, or s3://...; for one photo also its file",
  )
  _add_mode(parser)
  add("--target_dir", type=Path, help="photos of whom the faces shall resemble")
  add("--bank", type=Path, help="target identities, made by `fawkes-jax bank`")
  add(
    "--album",
    type=int,
    default=CloakOptions.album,
    help="files that are looked through for the same people before the first is"
    f" cloaked; more protect better ({CloakOptions.album})",
  )
  add(
    "--on_no_face",
    choices=("copy", "skip"),
    default="copy",
    help="what to do with a photo without a face",
  )
  add(
    "--others",
    choices=OTHERS,
    help="what to do with files that are no photos, such as sidecars and videos"
    " (copy; with --strip_location or --strip_names skip)",
  )
  add(
    "--output_format",
    choices=FORMATS,
    default=CloakOptions.output_format,
    help="a file for each photo, or tar files of many (tree)",
  )
  add(
    "--strip_location",
    action="store_true",
    help="take GPS out of the metadata",
  )
  add(
    "--strip_names",
    action="store_true",
    help="take names of people, regions of faces and keywords out of the"
    " metadata",
  )
  add(
    "--convert",
    action="store_true",
    help="of what cannot be cloaked as it is (AVIF, JPEG XL, CMYK, 16 bits,"
    " GIF, the first frame of an animation ...) write NAME.png or NAME.jpg",
  )
  add(
    "--retry_failed",
    action="store_true",
    help="try photos again that failed in an earlier run",
  )
  add(
    "--dry_run",
    action="store_true",
    help="only count faces and estimate the time",
  )
  _add_processes(parser)
  group = parser.add_argument_group("how far it is, for other programs")
  group.add_argument(
    "--metrics_port", type=int, help="serve Prometheus's metrics on this port"
  )
  group.add_argument(
    "--json_logs",
    action="store_true",
    help="write events to standard error, one JSON object a line",
  )
  _add_faces(parser)
  _add_solver(parser)


def _add_places(parser: argparse.ArgumentParser) -> None:
  """Inputs and the output without the names of their flags."""
  parser.add_argument(
    "places",
    nargs="*",
    metavar="IN ... OUT",
    help="what --input and --output say, without their names",
  )


def _add_processes(parser: argparse.ArgumentParser) -> None:
  """The flags of several processes that share an archive."""
  default = CloakOptions(input="", output="")
  group = parser.add_argument_group("several processes, on one or more hosts")
  for name, kind, what in (
    ("num_processes", int, "that share the archive, each with its own share"),
    ("process_id", int, "which of them this is, from 0"),
    ("wait_minutes", float, "for another one that gives no sign of life"),
  ):
    value = getattr(default, name)
    group.add_argument(
      f"--{name}", type=kind, default=value, help=f"{what} ({value:g})"
    )
  group.add_argument(
    "--distributed",
    action="store_true",
    help="let JAX find the processes, as on a TPU slice of several hosts",
  )
  group.add_argument(
    "--coordinator_address", help="host:port of process 0, with --distributed"
  )
  group.add_argument(
    "--engine",
    choices=ENGINES,
    default=default.engine,
    help="ray: the devices of a Ray cluster, instead of this machine's",
  )
  group.add_argument(
    "--ray_address",
    help="of the cluster, such as auto (one that is started on this machine)",
  )


def _add_status(commands: Any) -> None:
  parser = commands.add_parser(
    "status",
    usage="fawkes-jax status [flags] [IN ...] OUT",
    help="say how far cloak is",
    description="Counts the outcomes in OUTPUT/manifest.jsonl and says how fast"
    " photos are done; with --input also how many are left. Works while `cloak`"
    " is running, and writes nothing.",
  )
  _add_results(parser)
  parser.add_argument(
    "--failed",
    action="store_true",
    help="name every file that failed or needs attention, and why",
  )


def _add_verify(commands: Any) -> None:
  parser = commands.add_parser(
    "verify",
    usage="fawkes-jax verify [flags] [IN ...] OUT",
    help="look whether the results of cloak are whole",
    description="Reads every result again and compares it with"
    " OUTPUT/manifest.jsonl; with --input also whether every photo has an"
    " outcome and is what it was. Names each file that is missing or altered;"
    " the exit code is 1 if there is one. Writes nothing.",
  )
  _add_results(parser)


def _add_results(parser: argparse.ArgumentParser) -> None:
  """Where the results of `cloak` are."""
  _add_places(parser)
  add = parser.add_argument
  add("--output", help="folder written by cloak, or s3://...")
  add("--input", action="append", help="what it was made from, as for cloak")


def _add_mode(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--mode",
    choices=MODES,
    default="mid",
    help="how strong, and how visible: sets the flags of the solver",
  )


def _add_faces(parser: argparse.ArgumentParser) -> None:
  """The flags of `FaceOptions`."""
  default = FaceOptions()
  add = parser.add_argument_group("faces").add_argument
  add(
    "--surrogates",
    dest="extractors",
    type=lambda text: tuple(text.split(",")),
    default=default.extractors,
    help="extractors to compute with: names (fawkes-jax weights list) or files,"
    f" with commas ({','.join(default.extractors)})",
  )
  add(
    "--min_face_pixels",
    type=float,
    help="side of the smallest face to look for; halving it quadruples the"
    " search (1/48 of the photo's longer side, at least 24)",
  )
  add(
    "--crop_size",
    type=int,
    default=default.crop_size,
    help=f"largest side of the aligned face, in pixels ({default.crop_size})",
  )
  add(
    "--max_pixels",
    type=int,
    default=default.max_pixels,
    help=f"photos with more pixels are refused ({default.max_pixels})",
  )
  add(
    "--batch_size",
    type=int,
    help="faces that are solved at once (on a CPU 8, or fewer for fewer"
    " files; elsewhere 256 on each device, or what its memory holds)",
  )
  add(
    "--threads",
    type=int,
    default=default.threads,
    help="threads that decode and encode (one a core, at most 8)",
  )


def _add_solver(parser: argparse.ArgumentParser) -> None:
  """One flag for each of the solver's options; the mode sets the rest."""
  group = parser.add_argument_group("solver (the mode sets what is left out)")
  for field in dataclasses.fields(SolverOptions):
    modes = {m: getattr(o, field.name) for m, o in MODES.items()}
    values = sorted(set(modes.values()))
    shown = (
      f"{values[0]}"
      if len(values) == 1
      else ", ".join(f"{v} {m}" for m, v in modes.items())
    )
    group.add_argument(
      f"--{field.name}",
      type=type(field.default),
      help=f"{_DOCS[field.name]} ({shown})",
    )


def _add_bank(commands: Any) -> None:
  parser = commands.add_parser(
    "bank",
    help="compute a bank of target identities",
    description="Computes the mean embedding of each identity of a folder with"
    " one sub-folder of photos for each.",
  )
  add = parser.add_argument
  add("--input", type=Path, required=True, help="folder of identities")
  add("--output", type=Path, required=True, help="the safetensors file")
  default = BankOptions(input=Path(), output=Path())
  for name, what in (
    ("min_photos", "identities with fewer are left out"),
    ("max_photos", "identities with more are left out"),
    ("identities", "at most so many, evenly over the alphabet"),
  ):
    value = getattr(default, name)
    add(f"--{name}", type=int, default=value, help=f"{what} ({value})")
  _add_faces(parser)


def _add_train(commands: Any) -> None:
  parser = commands.add_parser(
    "train",
    help="train a small extractor of one's own",
    description="Teaches a small network the embeddings of other extractors,"
    " identities, or both, and writes its weights and a model card to OUTPUT."
    " Run again, it continues where it stopped.",
  )
  add = parser.add_argument
  add(
    "--data",
    required=True,
    help="folder with a folder of photos for each identity, or tfds:NAME, a"
    " TensorFlow Datasets name",
  )
  add("--output", type=Path, required=True, help="folder for the results")
  default = TrainOptions(data="", output=Path())
  add(
    "--teachers",
    type=lambda text: tuple(part for part in text.split(",") if part),
    default=default.teachers,
    help="extractors by name or file, or .npz or .safetensors files of"
    f" embeddings, with commas ({','.join(default.teachers)})",
  )
  for name, kind, what in (
    ("student", str, "architecture"),
    ("name", str, "of the files written (the architecture's)"),
    ("initial", Path, "weights to begin with (random ones)"),
    ("data_note", str, "source and licence of the data, for the model card"),
    ("minutes", float, "of training at most"),
    ("steps", int, "of training at most (as many as the minutes allow)"),
    ("batch_size", int, "crops a step"),
    ("learning_rate", float, "its peak"),
    ("weight_decay", float, "of AdamW"),
    ("ema", float, "how much of the averaged weights remains in each step"),
    ("relations", float, "weight of the loss on cosines within a batch"),
    ("identities", float, "weight of the ArcFace loss on identities"),
    ("adversarial", float, "bound of adversarial changes, in 0..255; 0: none"),
    ("adversarial_steps", int, "gradient steps that find such a change"),
    ("cloaking", float, "bound of cloaks that teachers look at; 0: none"),
    ("cloaking_steps", int, "gradient steps that make such a cloak"),
    ("repeats", int, "steps on each batch of cloaked faces"),
    ("dtype", str, "of the computation: float32 or bfloat16"),
    ("holdout", Path, "file of identities never to train on, one a line"),
    ("holdout_min_photos", int, "nor on those with so many photos; 0: any"),
    ("validation", float, "share of the other identities for validation"),
    ("pairs", Path, "file of pairs to verify: 0 or 1, tab, photo, tab, photo"),
    ("report_minutes", float, "between validations and checkpoints"),
    ("crop_size", int, "side of the cached crops, in pixels"),
    ("min_face_pixels", float, "side of the smallest face to look for"),
    ("threads", int, "threads that draw the student's views"),
    ("seed", int, "of everything that is random"),
  ):
    _add_flag(parser, name, kind, what, getattr(default, name))


def _words(text: str) -> tuple[str, ...]:
  """Words between commas."""
  return tuple(part for part in text.split(",") if part)


def _numbers(kind: type) -> Callable[[str], tuple[Any, ...]]:
  """Reads numbers between commas."""

  def numbers(text: str) -> tuple[Any, ...]:
    return tuple(kind(part) for part in _words(text))

  return numbers


def _changes(text: str) -> tuple[tuple[tuple[str, float], ...], ...]:
  """Reads changes of solver options, as in "jpeg=0,blur=0;own_weight=0"."""
  return tuple(
    tuple(
      (name, float(value))
      for name, _, value in (part.partition("=") for part in _words(change))
    )
    for change in text.split(";")
  )


def _shown(value: Any) -> str:
  """A default as it would be typed."""
  if isinstance(value, tuple):
    return ",".join(map(_shown, value))
  return f"{value:g}" if isinstance(value, float) else str(value)


def _add_flag(
  parser: argparse.ArgumentParser,
  name: str,
  kind: Callable[[str], Any],
  what: str,
  default: Any,
) -> None:
  """Adds the flag of an option; the help ends with the default, if any."""
  if name == "ablations":
    shown = ";".join(
      ",".join(f"{k}={v:g}" for k, v in change) for change in default
    )
  else:
    shown = _shown(default)
  parser.add_argument(
    f"--{FLAGS.get(name, name)}",
    dest=name,
    type=kind,
    default=default,
    help=what if default is None else f"{what} ({shown})",
  )


def _add_evaluate(commands: Any) -> None:
  parser = commands.add_parser(
    "evaluate",
    help="measure what cloaks protect against",
    description="Cloaks photos of some of the people of a folder, lets trackers"
    " in their own runtimes train on them, and writes to OUTPUT how often they"
    " know these people in clean photos, and more. Run again, it continues"
    " where it stopped. Needs `pip install 'fawkes-jax[evaluate]'`.",
  )
  add = parser.add_argument
  add(
    "--data",
    required=True,
    help="folder with a folder of photos for each identity, or tfds:NAME, a"
    " TensorFlow Datasets name",
  )
  add("--output", type=Path, required=True, help="folder for the results")
  default = EvaluateOptions(data="", output=Path())
  for name, kind, what in (
    ("experiments", _words, f"of {', '.join(EXPERIMENTS)}"),
    ("modes", _words, f"strengths of the cloaks: {', '.join(MODES)}"),
    ("trackers", _words, "dlib, or recognisers in .onnx or .xml files"),
    ("detector", Path, "YuNet in an .onnx file, for the recognisers in files"),
    ("heads", _words, f"of the trackers: {', '.join(HEADS)}"),
    ("bank", Path, "target identities, made by `fawkes-jax bank`"),
    ("identities", int, "people in a tracker; half of them are protected"),
    ("train", int, "photos of each to train on"),
    ("test", int, "clean photos of each to recognise"),
    ("rhos", _numbers(float), "budgets, for dssim"),
    ("sizes", _numbers(int), "numbers of people, for identities"),
    ("leaks", _numbers(float), "shares of clean photos, for leak"),
    ("rates", _numbers(float), "false match rates, for matching"),
    ("adaptive_people", int, "whose cloaks a tracker learns, for adaptive"),
    ("ablations", _changes, "as in jpeg=0,blur=0;own_weight=0, for ablation"),
    ("finetune", str, "architecture or .safetensors file, for finetune"),
    ("finetune_steps", int, "of its training"),
    ("draws", int, "of people, for confidence intervals"),
  ):
    _add_flag(parser, name, kind, what, getattr(default, name))
  _add_faces(parser)
  _add_solver(parser)


def _add_benchmark(commands: Any) -> None:
  parser = commands.add_parser(
    "benchmark",
    help="measure the speed of this machine",
    description="Measures the solver, the detector, the codecs and the whole"
    " pipeline on this machine, in rounds in which each has its turn, and"
    " writes the tables to OUTPUT.",
    conflict_handler="resolve",
  )
  _add_faces(parser)
  _add_solver(parser)
  add = parser.add_argument
  add("--output", type=Path, required=True, help="folder for the results")
  default = BenchmarkOptions(output=Path())
  for name, kind, what in (
    ("data", Path, "folder of photos (one that scikit-image brings)"),
    (
      "parts",
      _words,
      f"of {', '.join(PARTS)} (all, with photos)",
    ),
    (
      "batch_sizes",
      _numbers(int),
      "faces at once (1,8,32 on a CPU)",
    ),
    (
      "precisions",
      _words,
      "of float32, bfloat16 (float32 on a CPU, else both)",
    ),
    ("devices", _numbers(int), "how many of this host (one, and all)"),
    ("rounds", int, "in which everything is measured once"),
    ("round_seconds", float, "that each measurement takes at least"),
    ("photos", int, "in the pipeline at most (8 on a CPU, 512 elsewhere)"),
    ("bank", Path, "target identities, made by `fawkes-jax bank`"),
    ("price_per_hour", float, "of this host, to say what a million cost"),
    ("profile_dir", Path, "folder for a trace of a few steps of the solver"),
  ):
    _add_flag(parser, name, kind, what, getattr(default, name))
  add(
    "--surrogates",
    dest="ensembles",
    type=lambda text: tuple(map(_words, text.split(";"))),
    default=default.ensembles,
    help="extractors with commas; several such ensembles with semicolons"
    f" ({';'.join(map(_shown, default.ensembles))})",
  )
  _add_mode(parser)


def _add_weights(commands: Any) -> None:
  parser = commands.add_parser(
    "weights",
    help="list, fetch or import more recognisers to cloak against",
    description="Adds recognisers to those that --surrogates takes.",
  )
  actions = parser.add_subparsers(dest="action", required=True)
  actions.add_parser(
    "list",
    help="show all that is known, and what is here",
    description="Shows the recognisers that the package brings, those that can"
    " be added, and those that were.",
  )
  fetch = actions.add_parser(
    "fetch",
    help="download public recognisers",
    description="Downloads public recognisers into the cache directory. Run"
    " again, it continues where it stopped.",
  )
  add = fetch.add_argument
  add("names", nargs="+", metavar="NAME", help="see fawkes-jax weights list")
  add(
    "--mirror",
    help="URL under which the files lie by the names that they have here",
  )
  add(
    "--accept_research_licence",
    action="store_true",
    help="fetch weights that may be used for research only",
  )
  own = actions.add_parser(
    "import",
    help="add a recogniser from a file of one's own",
    description="Tries a recogniser and copies it into the cache directory:"
    " ONNX, safetensors of InsightFace's iresnet or vit, AdaFace,"
    " facenet-pytorch or a student, or the files of the list.",
  )
  add = own.add_argument
  add("file", metavar="FILE", type=Path, help=".onnx, .xml or .safetensors")
  add("--name", help="for --surrogates (the file's)")
  add("--architecture", help="refuse a file of another one")
  group = own.add_argument_group(
    "what an ONNX network expects (FILE.toml beside it, else this)"
  )
  group.add_argument(
    "--template",
    type=_template,
    help="alignment: arcface, dlib, facenet, open_model_zoo, or left,top,side"
    " in units of the face frame (arcface)",
  )
  for name, what in (
    ("mean", "subtracted from red, green, blue in 0..255"),
    ("scale", "then divided by"),
  ):
    group.add_argument(
      f"--{name}", type=_channels, help=f"{what}; one number or three (127.5)"
    )
  group.add_argument(
    "--bgr", action="store_true", default=None, help="blue, green, red"
  )


def _channels(text: str) -> tuple[float, ...]:
  numbers = _numbers(float)(text)
  return 3 * numbers if len(numbers) == 1 else numbers


def _template(text: str) -> str | tuple[float, ...]:
  return _numbers(float)(text) if "," in text else text


def _options(arguments: argparse.Namespace) -> Any:
  """The options of the chosen subcommand."""
  given = dict(vars(arguments))
  command = given.pop("command")
  if command == "status":
    return StatusOptions(**given)
  if command == "verify":
    return VerifyOptions(**given)
  if command == "bank":
    return BankOptions(**given)
  if command == "train":
    return TrainOptions(**given)
  if command == "weights":
    action = given.pop("action")
    if action == "list":
      return WeightsListOptions()
    if action == "fetch":
      given["names"] = tuple(given["names"])
      return WeightsFetchOptions(**given)
    return WeightsImportOptions(**given)
  names = [field.name for field in dataclasses.fields(SolverOptions)]
  changes = {
    name: value
    for name in names
    if (value := given.pop(name, None)) is not None
  }
  if command in ("evaluate", "benchmark"):
    kind = {
      "evaluate": EvaluateOptions,
      "benchmark": BenchmarkOptions,
    }[command]
    return kind(solver_changes=tuple(changes.items()), **given)
  solver = dataclasses.replace(MODES[given.pop("mode")], **changes)
  return CloakOptions(solver=solver, **given)


def _parse(words: Sequence[str]) -> argparse.Namespace:
  """Reads a command line; says what is wrong with it, and exits."""
  words = list(map(_spelled, words))
  parser = chosen = _parser()
  for word in words:
    commands = chosen.commands()
    if commands and word in commands.choices:
      chosen = commands.choices[word]
    elif word == "--":
      break
    elif word.startswith("--"):
      _require_known(word.partition("=")[0], chosen)
  arguments, rest = parser.parse_known_args(words)
  if arguments.command in _PLACES and not any(w[0] == "-" for w in rest if w):
    # Those that follow a flag are among the rest.
    arguments.places += rest
    _take_places(arguments, chosen)
  elif rest:
    chosen.error(f"unrecognized arguments: {' '.join(rest)}")
  for name, value in vars(arguments).items():
    setattr(arguments, name, _expanded(value))
  return arguments


def _require_known(flag: str, parser: _Parser) -> None:
  """Names the flag that was probably meant, where there is no such flag."""
  known = parser.flags()
  if flag not in known:
    near = difflib.get_close_matches(flag, known, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    parser.error(f"there is no flag {flag}{meant}")


def _spelled(word: str) -> str:
  """A flag with dashes in its name as it is spelled here."""
  if not word.startswith("--"):
    return word
  name, equals, value = word[2:].partition("=")
  return f"--{name.replace('-', '_')}{equals}{value}"


def _take_places(arguments: argparse.Namespace, parser: _Parser) -> None:
  """Makes inputs and the output of what came without the name of a flag."""
  places = arguments.places
  del arguments.places
  inputs = arguments.input or []
  if places and inputs and (arguments.output is not None or len(places) > 1):
    parser.error(f"unrecognized arguments: {' '.join(places)}")
  if places and arguments.output is None:
    arguments.output = places.pop()
  inputs = inputs or places
  needed = arguments.command == "cloak"
  if needed and not inputs:
    parser.error("the following arguments are required: --input, --output")
  if arguments.output is None:
    parser.error("the following arguments are required: --output")
  arguments.input = inputs[0] if len(inputs) == 1 else tuple(inputs) or None


def _expanded(value: Any) -> Any:
  """A flag's value: paths with ~, or as file:// URLs, as paths.

  Shells expand ~ at the start of a word only, not in --input=~/photos.
  """
  if isinstance(value, list | tuple):
    return type(value)(map(_expanded, value))
  if isinstance(value, Path):
    return Path(_expanded(str(value)))
  if not isinstance(value, str):
    return value
  return os.path.expanduser(files.from_url(value))


class _Terminated(KeyboardInterrupt):
  """The process was asked to end, as before a machine is taken away."""


def _terminate(number: int, frame: Any) -> None:
  signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Once is enough.
  raise _Terminated


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
  """Makes SIGTERM an exception, wherever the program is.

  Python drops an exception that is raised in a callback, such as those of the
  garbage collector. Then it is raised again a moment later.
  """

  def dropped(what: Any) -> None:
    if isinstance(what.exc_value, _Terminated):
      signal.setitimer(signal.ITIMER_REAL, 0.01)
    else:
      hook(what)

  hook = sys.unraisablehook
  handlers = {
    number: signal.signal(number, _terminate)
    for number in (signal.SIGTERM, signal.SIGALRM)
  }
  sys.unraisablehook = dropped
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    sys.unraisablehook = hook
    for number, handler in handlers.items():
      signal.signal(number, handler)


class _Format(logging.Formatter):
  """Our own lines, whatever names of files are in them."""

  def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
    """See `logging.Formatter`."""
    from fawkes_jax.commands import terminal

    return f"fawkes-jax: {terminal.plain(record.getMessage())}"


def _own_process() -> None:
  """What is done for a whole process, whose terminal is a person's.

  Raw lines of JAX, XLA and others do not reach it: what a person can do
  something about is said in words of our own.
  """
  for number in range(3):  # A stream that is closed ends in nothing.
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # Takes the lowest number, which is this.
  if sys.stdout is None:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
  if sys.stderr is None:
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  if not sys.warnoptions:
    warnings.simplefilter("ignore")
  logging.getLogger().addHandler(logging.NullHandler())
  absl_logging.set_verbosity(absl_logging.FATAL)
  handler = logging.StreamHandler()
  handler.setFormatter(_Format())
  logging.getLogger("fawkes_jax").addHandler(handler)
  logging.getLogger("fawkes_jax").setLevel(logging.WARNING)
  logging.getLogger("fawkes_jax").propagate = False


def _parse_all(words: Sequence[str]) -> argparse.Namespace:
  """Reads a command line with the program's name; absl has no flags in it."""
  flags.FLAGS(words[:1])
  return _parse(words[1:])


def _main(arguments: argparse.Namespace) -> int:
  with _terminable():
    return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
  try:
    options = _options(arguments)
    command = importlib.import_module(
      f"fawkes_jax.commands.{arguments.command}"
    )
    return command.run(options)
  except types.FawkesError as error:
    from fawkes_jax.commands import terminal

    print(f"fawkes-jax: {terminal.plain(str(error))}", file=sys.stderr)
    return 2
  except MemoryError:
    print(
      "fawkes-jax: the memory is not enough; fewer --threads or a smaller"
      " --batch_size need less",
      file=sys.stderr,
    )
    return 2
  except KeyboardInterrupt as error:
    ended = isinstance(error, _Terminated)
    what = "; the same command continues"
    if arguments.command not in _CONTINUED:
      what = ""
    how = "terminated" if ended else "interrupted"
    print(f"fawkes-jax: {how}{what}", file=sys.stderr)
    if ended:
      # Everything is closed. What Python does at its end could wait for other
      # processes, or meet threads that still compute.
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(128 + signal.SIGTERM)
    return 128 + signal.SIGINT


def entry(argv: Sequence[str] | None = None) -> None:
  """Runs the command line and exits with its code.

  0: done; 1: done, but some photo failed; 2: wrong usage or a run that cannot
  go on; 130: interrupted; 143: terminated, within the time that the photos take
  which are just being saved.
  """
  if argv is None:
    _own_process()
  memory.keep_freed()
  app.run(
    _main,
    argv=None if argv is None else ["fawkes-jax", *argv],
    flags_parser=_parse_all,
  )
