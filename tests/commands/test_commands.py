"""Every command line that the program or its documents print can be typed."""

import contextlib
import dataclasses
import io
import re
import shlex
from pathlib import Path

import pytest

import fawkes_jax
from fawkes_jax import reports
from fawkes_jax.cli import command_line
from fawkes_jax.options import BenchmarkOptions, EvaluateOptions, TrainOptions

ROOT = Path(__file__).parents[2]
TEXTS = sorted(
  path
  for folder in (".", "docs", "docs/guides", "checkpoints", "launch")
  for path in (ROOT / folder).iterdir()
  if path.is_file()
  and path.suffix in (".md", ".sh", ".yaml", ".sbatch", "")
  and path.name not in ("LICENSE", ".gitignore")
)
# What begins a command. It goes to the end of the line, or of the words in
# backquotes or quotation marks, or to what a shell does with it.
COMMAND = re.compile(
  r"[`\"]?(?:bash )?(?:launch/)?"
  r"(?:fawkes-jax|local\.sh|multi_gpu\.sh)\s+"
  r"(?=(?:cloak|demo|status|verify|report|index|people|forget|bank|train|weights"
  r"|evaluate|benchmark)\b)"
)
# A line of a document that is to be typed.
LINE = re.compile(
  r"^ {4}(?:\w+=\S+ )*(?:fawkes-jax|bash launch/local\.sh) (?!test)(.*)$",
  re.MULTILINE,
)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MANUAL = [path for path in TEXTS if path.suffix == ".md"]


def parsed(words, *, options=True):
  """What a command line asks for; fails where it is refused."""
  errors = io.StringIO()
  with contextlib.redirect_stderr(errors):
    try:
      arguments = command_line.parse(words)
    except SystemExit:
      pytest.fail(f"{shlex.join(words)}: {errors.getvalue()}")
  return command_line.options_of(arguments) if options else None


def commands(text):
  """The words of each command with flags or names."""
  text = re.sub(r"\\\n[# ]*", " ", text)  # Lines that go on.
  for match in COMMAND.finditer(text):
    quoted = text[: match.start()].count("`") + match[0].count("`")
    end = "`" if quoted % 2 else '"' if match[0][0] == '"' else "\n"
    line = text[match.end() :].partition(end)[0]
    if "$" in line or " --" not in line:  # Made by a script, or a name only.
      continue
    line = re.sub(r"\s(?:#|>|\||&|on |with |and ).*", "", line)
    # A number that the reader has to put in.
    line = re.sub(r"=PRICE\b", "=1", line)
    words = shlex.split(line)
    helps = {"--help", "--help_all"} & set(words)
    if any(word.startswith("--") for word in words[1:]) and not helps:
      yield [word for word in words if word != "..."]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_commands_of_the_documents(path):
  for words in commands(path.read_text()):
    if words[0] in (
      *("cloak", "status", "verify", "report", "bank", "benchmark"),
    ):
      # A command that is named for a flag of it leaves the folders out.
      text = " ".join(words)
      if not all(word.startswith("-") for word in words[1:]):
        parsed(words, options=False)  # Its folders are there without flags.
        continue
      words += [f for f in ("--output=x",) if "--output" not in text]
      if words[0] in ("cloak", "bank") and "--input" not in text:
        words.append("--input=x")
    parsed(words, options=words[0] != "bank")  # Whose folder must be there.


def lines(text):
  """The words of each line that is to be typed."""
  for match in LINE.finditer(re.sub(r"\\\n *", " ", text)):
    line = match[1].partition(" #")[0].replace("=PRICE", "=1")
    if not {"[", "...", "$"} & set(line) and "..." not in line:
      yield shlex.split(line)


@pytest.mark.parametrize("path", MANUAL, ids=lambda path: path.name)
def test_lines_to_be_typed(path):
  for words in lines(path.read_text()):
    parsed(words, options=False)


def test_lines_are_found():
  found = [words for path in MANUAL for words in lines(path.read_text())]
  assert ["cloak", "photos", "cloaked"] in found
  assert ["demo"] in found
  assert len(found) > 30


@pytest.mark.parametrize("path", MANUAL, ids=lambda path: path.name)
def test_python_of_the_documents(path):
  """Blocks are whole programs, whose names are in the package.

  Those that a page includes are examples, which have a test of their own.
  """
  text = path.read_text()
  for name in re.findall(r'^--8<-- "(.*)"$', text, re.MULTILINE):
    assert (ROOT / "docs" / name).parent == ROOT / "docs" / "examples"
    assert (ROOT / "docs" / name).is_file()
  for block in PYTHON.findall(text):
    compile(block, str(path), "exec")
    assert "import fawkes_jax" in block
    for name in re.findall(r"\bfawkes_jax\.(\w+)", block):
      assert name in fawkes_jax.__all__, name


def test_commands_are_found():
  found = [words for path in TEXTS for words in commands(path.read_text())]
  assert {words[0] for words in found} == {
    *("cloak", "status", "verify", "report", "bank", "train", "evaluate"),
    *("benchmark", "weights", "people", "forget"),
  }
  assert len(found) > 25


# Some other value than the default of each option of several commands.
CHANGED = {
  EvaluateOptions: {
    "data": "tfds:lfw",
    "experiments": ("dssim", "leak"),
    "modes": ("low", "high"),
    "solver_changes": (("steps", 3), ("jpeg", 0.0)),
    "bank": Path("b"),
    "trackers": ("a.onnx", "dlib"),
    "detector": "yunet.onnx",
    "tracker_detector": Path("yunet.onnx"),
    "heads": ("softmax",),
    "rhos": (0.001, 0.5),
    "sizes": (2, 3),
    "leaks": (0.5,),
    "rates": (0.25,),
    "ablations": ((("jpeg", 0.0), ("blur", 0.5)), (("steps", 3.0),)),
    "finetune": "x.safetensors",
    "extractors": ("dlib_resnet", "a.onnx"),
    "min_face_pixels": 12.5,
    "crop_size": 160,
  },
  BenchmarkOptions: {
    "output": Path("out"),
    "data": Path("photos"),
    "parts": ("solver", "codecs"),
    "mode": "high",
    "solver_changes": (("seed", 7),),
    "ensembles": (("dlib_resnet",), ("a.onnx", "b.onnx")),
    "batch_sizes": (1, 8),
    "precisions": ("float32", "bfloat16"),
    "devices": (1, 2),
    "rounds": 3,
    "round_seconds": 0.5,
    "photos": 4,
    "bank": Path("b"),
    "price_per_hour": 3.5,
    "profile_dir": Path("trace"),
    "min_face_pixels": 12.5,
    "crop_size": 160,
  },
  TrainOptions: {
    "data": "tfds:lfw",
    "teachers": ("a.onnx", "dlib_resnet"),
    "name": "n",
    "initial": Path("i"),
    "steps": 5,
    "dtype": "bfloat16",
    "holdout": Path("h"),
    "pairs": Path("p"),
    "min_face_pixels": 12.5,
    "student": "student_mobile",
    "crop_size": 128,
  },
}


def changed(kind):
  """Options of which every one that can be is not the default."""
  values = {"output": Path("out"), **CHANGED[kind]}
  for field in dataclasses.fields(kind):
    if field.name not in values and isinstance(field.default, int | float):
      wanted = field.default + 1 if isinstance(field.default, int) else 0.25
      values[field.name] = wanted
  for name in ("cloaking", "adversarial"):  # One rules out the other.
    if kind is TrainOptions:
      values[name] = 0.0
  return kind(**values)


@pytest.mark.parametrize("kind", [EvaluateOptions, BenchmarkOptions])
def test_the_command_of_a_report_gives_the_same_options(kind):
  options = changed(kind)
  name = kind.__name__.removesuffix("Options").lower()
  said = shlex.split(reports.command(name, options, untold=()))
  assert said[:2] == ["fawkes-jax", name]
  same = parsed(said[1:])
  assert dataclasses.asdict(same) == dataclasses.asdict(options)


def test_the_command_of_a_model_card_gives_the_same_options():
  options = changed(TrainOptions)
  said = shlex.split(reports.command("train", options, untold=("data_note",)))
  same = parsed(said[1:])
  assert dataclasses.replace(same, data_note=options.data_note) == options
