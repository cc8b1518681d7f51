"""What a person sees who asks for help."""

import re
import resource
import subprocess
import sys

import pytest
from terminal import run

HELP = {
  (): ("cloak", "demo", "bank", "train", "weights", "evaluate", "benchmark"),
  ("cloak",): (
    *("--input", "--output", "--mode", "--target_dir", "--on_no_face"),
    *("--strip_location", "--dry_run", "--surrogates", "--min_face_pixels"),
    *("--crop_size", "--max_pixels", "--batch_size", "--threads", "--rho"),
    *("--steps", "--learning_rate", "--linf", "--own_weight", "--jitter"),
    "--seed",
  ),
  ("report",): ("--input", "--output", "--file", "--no_faces"),
  ("bank",): ("--input", "--output", "--min_photos", "--identities"),
  ("evaluate",): (
    *("--data", "--output", "--experiments", "--mode", "--trackers", "--steps"),
    *("--detector", "--surrogates", "--ablations", "jpeg=0;blur=0"),
  ),
  ("benchmark",): (
    *("--output", "--data", "--parts", "--batch_size", "--surrogates"),
    *("--devices", "--rounds", "--price_per_hour", "--profile_dir", "--steps"),
  ),
  ("weights",): ("list", "fetch", "import"),
  ("weights", "fetch"): ("NAME", "--mirror", "--accept_research_licence"),
  ("weights", "import"): (
    *("FILE", "--name", "--architecture", "--template", "--mean", "--scale"),
    "--bgr",
  ),
}


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help(command):
  code, said, errors = run(*command, "--help_all")
  assert code == 0
  assert errors == ""
  unwrapped = re.sub(r"\n *", "", said)
  for name in HELP[command]:
    assert name in said or name in unwrapped


@pytest.mark.parametrize("command", ["cloak", "evaluate", "benchmark", "train"])
def test_help_shows_a_page_and_says_where_the_rest_is(command):
  code, said, errors = run(command, "--help")
  assert (code, errors) == (0, "")
  flags = re.findall(r"^  (?:-h, )?(--\w+)", said, re.MULTILINE)
  assert {"--output", "--help_all"} < set(flags)
  assert len(flags) <= 20
  assert said.count("\n") < 60
  assert "--learning_rate" not in said
  _, everything, _ = run(command, "--help_all")
  all_flags = re.findall(r"^  (?:-h, )?(--\w+)", everything, re.MULTILINE)
  rest = len(all_flags) - len(flags)
  assert said.endswith(
    f"fawkes-jax {command} --help_all shows {rest} flags more.\n"
  )


def test_help_gives_the_default_of_each_mode():
  _, said, _ = run("cloak", "--help_all")
  assert "0.0045 low, 0.0135 mid, 0.0192 high" in " ".join(said.split())


@pytest.mark.parametrize(
  "command",
  [(), ("cloak",), ("evaluate",), ("benchmark",), ("weights", "fetch")],
)
def test_help_is_fast_and_needs_no_jax(command):
  """Under two seconds of a processor, however busy the machine is."""
  script = (
    "import sys\n"
    "from fawkes_jax import cli\n"
    "try:\n"
    "  cli.entry(sys.argv[1:])\n"
    "finally:\n"
    "  print({'jax', 'flax', 'optax'} & set(sys.modules))\n"
  )
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  done = subprocess.run(
    [sys.executable, "-c", script, *command, "--help"],
    capture_output=True,
    text=True,
    check=True,
  )
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  assert done.stdout.startswith("usage: fawkes-jax")
  assert done.stdout.endswith("set()\n")
  spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
  assert spent < 2
