"""An option is declared once: flag, help, docstring and errors follow."""

import dataclasses
import importlib
import inspect
import pickle
from pathlib import Path

import pytest
from terminal import run

import fawkes_jax
from fawkes_jax.cli import command_line, main, subcommands
from fawkes_jax.options import OptionError, declared, rules
from fawkes_jax.options.declared import Options, option


class NapOptions(Options):
  """A run of `fawkes-jax nap`."""

  bed: Path = option("folder to lie in")
  minutes: float = option(
    "that a nap takes at most",
    rules.within(0, 90, open_low=True),
    default=20.0,
    more="They begin when the eyes are closed",
  )
  dreams: tuple[str, ...] = option(
    "of whom, with commas", default=("sheep",), flag="dream"
  )
  noise: str | None = option(
    "heard meanwhile", rules.one_of("rain", "sea"), default=None, shown="none"
  )
  alarms: tuple[int, ...] | None = option(
    "100% loud, after so many minutes",
    rules.each(rules.within(1, 90)),
    default=None,
    rare=True,
  )
  blanket: bool = option("take one", default=False, group="comfort")

  def __post_init__(self):
    super().__post_init__()
    rules.require(
      self,
      "dreams",
      "left out for {noise}=sea",
      not (self.dreams and self.noise == "sea"),
    )


NAP = subcommands.Command(
  name="nap", help="sleep", description="Sleeps a bit.", options=NapOptions
)


def parsed(*words):
  return command_line.options_of(command_line.parse(("nap", *words), [NAP]))


def shown(capsys, flag):
  """The help, in a line."""
  with pytest.raises(SystemExit):
    parsed(flag)
  return " ".join(capsys.readouterr().out.split())


def test_an_option_has_a_flag_of_its_type_and_default():
  assert parsed("--bed=b") == NapOptions(bed=Path("b"))
  words = "--minutes=5 --dream=a,b --noise=rain --alarms=7,8 --blanket"
  assert parsed("--bed=b", *words.split()) == NapOptions(
    bed=Path("b"),
    minutes=5.0,
    dreams=("a", "b"),
    noise="rain",
    alarms=(7, 8),
    blanket=True,
  )


def test_an_option_is_in_the_help(capsys):
  said = shown(capsys, "--help_all")
  assert "--bed BED folder to lie in" in said
  assert "--minutes MINUTES that a nap takes at most (20)" in said
  assert "of whom, with commas (sheep)" in said
  assert "--noise {rain,sea} heard meanwhile (none)" in said
  assert "--alarms ALARMS 100% loud, after so many minutes" in said
  assert "comfort: --blanket take one" in said


def test_a_rare_option_is_in_the_help_of_all(capsys):
  said = shown(capsys, "--help")
  assert "--minutes" in said
  assert "--alarms" not in said
  assert said.endswith("fawkes-jax nap --help_all shows 1 flags more.")


def test_an_option_is_in_the_docstring():
  assert inspect.getdoc(NapOptions).splitlines()[:6] == [
    "A run of `fawkes-jax nap`.",
    "",
    "Attributes:",
    "  bed: folder to lie in.",
    "  minutes: that a nap takes at most; in (0, 90]. They begin when the eyes"
    " are",
    "    closed.",
  ]


@pytest.mark.parametrize(
  ("flags", "options", "message"),
  [
    ("--minutes=0", {"minutes": 0.0}, "minutes must be in (0, 90], got 0.0"),
    ("--alarms=5,0", {"alarms": (5, 0)}, "alarms must be in [1, 90], got 0"),
    (
      "--noise=sea",
      {"noise": "sea"},
      "dream(s) must be left out for (noise)=sea, got sheep",
    ),
  ],
)
def test_an_error_names_the_option_or_the_flag(flags, options, message):
  """A flag in the terminal, a field elsewhere."""
  with pytest.raises(OptionError) as caught:
    NapOptions(bed=Path("b"), **options)
  fields = message.replace("(s)", "s").replace("(noise)", "noise")
  assert str(caught.value) == fields
  with pytest.raises(OptionError) as caught:
    parsed("--bed=b", flags)
  flags = message.replace("(s)", "").replace("(noise)", "--noise")
  assert main.told(caught.value) == f"--{flags}"


def test_what_must_be_given_is_asked_for(capsys):
  with pytest.raises(SystemExit):
    parsed("--minutes=5")
  assert "are required: --bed" in capsys.readouterr().err
  with pytest.raises(TypeError, match="bed"):
    NapOptions(minutes=5)


def test_an_error_survives_the_way_between_processes():
  """As from a worker of a cluster."""
  with pytest.raises(OptionError) as caught:
    fawkes_jax.SolverOptions(steps=0)
  again = pickle.loads(pickle.dumps(caught.value))
  assert str(again) == "steps must be in [1, 100000], got 0"
  assert main.told(again) == "--steps must be in [1, 100000], got 0"


def test_the_terminal_names_flags_in_rules_too(tmp_path):
  places = f"--input={tmp_path}", f"--output={tmp_path / 'out'}"
  ended = run("cloak", *places, "--coordinator_address=a:1")
  assert ended.errors == (
    "fawkes-jax: --coordinator_address must be given together with"
    " --distributed, got a:1\n"
  )


@pytest.mark.parametrize(
  "command",
  [one for each in subcommands.COMMANDS for one in each.actions or [each]],
  ids=lambda command: command.name,
)
def test_every_option_is_explained(command):
  said = " ".join(inspect.getdoc(command.options).split())
  for field in dataclasses.fields(command.options):
    assert f" {field.name}: {declared.of(field).help}" in said


@pytest.mark.parametrize(
  "command", subcommands.COMMANDS, ids=lambda command: command.name
)
def test_every_subcommand_has_a_module_that_runs_it(command):
  module = importlib.import_module(f"fawkes_jax.commands.{command.name}")
  assert callable(module.run)
