"""What a person sees at the command line, before any photo is read."""

import os
import subprocess
import sys

import pytest
from terminal import run

from fawkes_jax.cli import command_line
from fawkes_jax.weights import extractors


def cloak(places, *flags):
  source, output = places
  return run("cloak", f"--input={source}", f"--output={output}", *flags)


@pytest.mark.parametrize(
  ("flags", "rule"),
  [
    ("--rho=0", "--rho must be in (0, 0.5], got 0"),
    ("--rho=3", "--rho must be in (0, 0.5], got 3"),
    ("--rho=nan", "--rho must be in (0, 0.5], got nan"),
    ("--steps=0", "--steps must be in [1, 100000], got 0"),
    ("--learning_rate=-1", "--learning_rate must be in (0, 255], got -1"),
    ("--linf=0", "--linf must be in [1, 255], got 0"),
    ("--own_weight=-1", "--own_weight must be in [0, 100], got -1"),
    ("--jitter=5", "--jitter must be in [0, 4], got 5"),
    ("--seed=-1", "--seed must be in [0,"),
    ("--crop_size=2000", "--crop_size must be in [64, 1024], got 2000"),
    ("--crop_size=100", "--crop_size must be a multiple of 16, got 100"),
    ("--min_face_pixels=1", "--min_face_pixels must be in [10, 10000], got 1"),
    ("--max_pixels=0", "--max_pixels must be in [1,"),
    ("--batch_size=0", "--batch_size must be in [1, 65536], got 0"),
    ("--jpeg_step=256", "--jpeg_step must be in [0, 255], got 256"),
    ("--threads=0", "--threads must be in [1, 256], got 0"),
    ("--surrogates=dlib_resnet,dlib_resnet", "--surrogates must be one or"),
    ("--surrogates=nobody", "--surrogates must be of"),
  ],
)
def test_flags_out_of_range(places, flags, rule):
  code, _, errors = cloak(places, flags)
  assert code == 2
  assert errors.startswith(f"fawkes-jax: {rule}")
  assert errors.count("\n") == 1
  assert not any(path.suffix == ".png" for path in places[1].rglob("*"))


@pytest.mark.parametrize(
  ("flags", "word"),
  [
    ("--nonsense", "--nonsense"),
    ("--zzzzzz", "there is no flag --zzzzzz (fawkes-jax cloak --help)"),
    ("--stepps=3", "no flag --stepps; did you mean --steps?"),
    ("--step=3", "no flag --step; did you mean --steps?"),
    ("--dryrun", "did you mean --dry_run?"),
    ("-x", "-x"),
    ("--mode=extreme", "extreme"),
    ("--on_no_face=delete", "delete"),
    ("--steps=many", "many"),
    ("--steps=1.5", "1.5"),
    ("--rho=", "--rho"),
    ("stray", "stray"),
  ],
)
def test_unknown_flags_and_values(places, flags, word):
  code, said, errors = cloak(places, flags)
  assert code == 2
  assert said == ""
  assert errors.startswith("fawkes-jax cloak: ")
  assert errors.count("\n") == 1
  assert word in errors
  assert not places[1].exists()


@pytest.mark.parametrize(
  ("arguments", "word"),
  [
    ((), "command"),
    (("cloack",), "cloack"),
    (("cloak",), "--input"),
    (("cloak", "--input=x"), "--output"),
    (("cloak", "x"), "--input"),
    (("cloak", "--input=x", "y", "z"), "y z"),
    (("status",), "--output"),
    (("status", "--outptu=x"), "did you mean --output?"),
    (("weights", "fetch", "--miror=x"), "did you mean --mirror?"),
    (("bank", "--input=x"), "--output"),
    (("weights",), "action"),
    (("weights", "get"), "get"),
    (("weights", "fetch"), "NAME"),
    (("weights", "import"), "FILE"),
    (("weights", "import", "x.onnx", "--mean=a"), "--mean"),
  ],
)
def test_missing_and_unknown_commands(arguments, word):
  code, _, errors = run(*arguments)
  assert code == 2
  assert word in errors


def test_a_missing_input(tmp_path):
  code, _, errors = cloak((tmp_path / "no\nwhere", tmp_path / "out"))
  assert code == 2
  assert "--input must be readable, got" in errors
  assert "No such file or directory" in errors
  assert not (tmp_path / "out").exists()


def test_an_empty_input(tmp_path):
  source = tmp_path / "empty"
  source.mkdir()
  code, said, errors = cloak((source, tmp_path / "out"))
  assert code == 0
  assert "holds no files: nothing to do" in said
  assert f"--input={source}" in said
  assert errors == ""
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  ("where", "rule"),
  [
    ("in", "must not be the same"),
    ("in/out", "the output must not be in the input"),
    ("in/../in/deep/out", "the output must not be in the input"),
    (".", "the input must not be in the output"),
    ("link", "must not be the same"),
    ("link/out", "the output must not be in the input"),
    ("file", "must be a folder"),
  ],
)
def test_outputs_that_are_refused(places, tmp_path, where, rule):
  source, _ = places
  (tmp_path / "link").symlink_to(source)
  (tmp_path / "file").write_text("mine")
  before = sorted(tmp_path.rglob("*"))
  code, _, errors = cloak((source, tmp_path / where))
  assert code == 2
  assert rule in errors
  assert "--output" in errors
  assert sorted(tmp_path.rglob("*")) == before
  assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a[/b]c", "a[old]", "a{b}", "a:smile:b"])
def test_odd_names_are_shown_as_they_are(places, tmp_path, name):
  """Brackets and braces are no markup."""
  source, _ = places
  code, said, _ = cloak((source, tmp_path / name))
  assert code == 0
  ends = [line.endswith(f": {tmp_path / name}") for line in said.splitlines()]
  assert sum(ends) == 1


def unprivileged(*arguments, folder):
  """The command line without root's power to ignore permissions.

  An empty run comes first: the interpreter itself, of which more is imported
  on the way, may lie where only root can read.
  """
  (folder / "empty").mkdir()
  folder.chmod(0o755)
  script = (
    "import os, sys\n"
    "from fawkes_jax import cli\n"
    "empty = sys.argv[1]\n"
    "try: cli.entry(['cloak', f'--input={empty}', f'--output={empty}-out'])\n"
    "except SystemExit: pass\n"
    "os.getuid() == 0 and os.setresuid(65534, 65534, 65534)\n"
    "cli.entry(sys.argv[2:])\n"
  )
  return subprocess.run(
    [sys.executable, "-c", script, folder / "empty", *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.slow
def test_an_output_without_permission(places, tmp_path):
  source, output = places
  output.mkdir()
  output.chmod(0o555)
  source.chmod(0o755)
  (source / "wall.png").chmod(0o644)
  done = unprivileged(
    "cloak", f"--input={source}", f"--output={output}", folder=tmp_path
  )
  assert done.returncode == 2, done.stderr
  assert done.stderr.startswith(f"fawkes-jax: {output}")
  assert "cannot be used: Permission denied" in done.stderr
  assert "Traceback" not in done.stderr
  assert os.listdir(output) == []


@pytest.mark.slow
def test_an_input_without_permission(places, tmp_path):
  source, output = places
  source.chmod(0)
  try:
    done = unprivileged(
      "cloak", f"--input={source}", f"--output={output}", folder=tmp_path
    )
  finally:
    source.chmod(0o755)
  assert done.returncode == 2, done.stderr
  assert done.stderr.startswith("fawkes-jax: --input must be readable, got")
  assert done.stderr.endswith("Permission denied\n")


def test_a_bank_of_nobody(places, tmp_path):
  code, _, errors = run(
    "bank", f"--input={tmp_path / 'missing'}", f"--output={tmp_path / 'b'}"
  )
  assert code == 2
  assert "--input must be a folder" in errors


@pytest.mark.parametrize(
  ("arguments", "rule"),
  [
    (("fetch", "nobody"), "fetch must name one of mobilefacenet, "),
    (("fetch", "facenet"), "facenet may be used for research only"),
    (("fetch", "sface", "--mirror=ftp://x"), "--mirror must be an http or"),
    (
      ("import", "x.pt"),
      "x.pt must end in .safetensors, .onnx, .xml, .p",
    ),
    (("import", "x.onnx"), "x.onnx must be readable: No such file"),
    (("import", "x.onnx", "--architecture=x"), "--architecture must be one o"),
  ],
)
def test_weights_that_are_refused(tmp_path, monkeypatch, arguments, rule):
  monkeypatch.setenv("FAWKES_JAX_CACHE", str(tmp_path))
  code, _, errors = run("weights", *arguments)
  assert code == 2
  assert errors.startswith(f"fawkes-jax: {rule}")
  assert errors.count("\n") == 1
  assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_weights_are_listed_and_imported(data_dir, tmp_path, monkeypatch):
  """From a file to an extractor, by way of its name."""
  monkeypatch.setenv("FAWKES_JAX_CACHE", str(tmp_path / "cache"))
  code, said, _ = run("weights", "list")
  assert code == 0
  rows = {line.split()[0]: line for line in said.splitlines() if line.split()}
  assert "built in" in rows["dlib_resnet"]
  assert "Apache-2.0" in rows["mobilefacenet"]
  assert "99.06 %" in rows["mobilefacenet"]
  assert "to fetch" in rows["mobilefacenet"]
  assert "research only" in rows["buffalo_l"]
  file = data_dir / "weights" / "foamliu_mobilefacenet.onnx"
  code, said, _ = run("weights", "import", file)
  assert code == 0
  assert "--surrogates=dlib_resnet,mobilefacenet" in said
  _, said, _ = run("weights", "list")
  [row] = [line for line in said.splitlines() if " mobilefacenet" in line]
  assert "in the cache" in row
  loaded = extractors.load_extractor("mobilefacenet")
  assert (loaded.name, loaded.input_size) == ("mobilefacenet", 112)


def options_of(*words):
  """What a command line asks for."""
  return command_line.options_of(command_line.parse(words))


@pytest.mark.parametrize(
  ("words", "source", "output"),
  [
    (("in", "out"), "in", "out"),
    (("in", "--mode=high", "out"), "in", "out"),
    (("--mode", "high", "in", "out"), "in", "out"),
    (("--input=in", "out"), "in", "out"),
    (("--output=out", "in"), "in", "out"),
    (("in", "a.jpg", "out"), ("in", "a.jpg"), "out"),
    (("--output=out", "in", "a.jpg"), ("in", "a.jpg"), "out"),
    (("--input=in", "--input=b", "--output=out"), ("in", "b"), "out"),
    (("--", "-in", "out"), "-in", "out"),
  ],
)
def test_folders_need_no_flag_names(words, source, output):
  for command in ("cloak", "status", "verify"):
    if not (command != "cloak" and "high" in "".join(words)):
      options = options_of(command, *words)
      assert (options.input, options.output) == (source, output)
  assert options_of("status", "out").output == "out"
  assert options_of("status", "out").input is None


def test_a_home_is_found_in_every_path(monkeypatch, tmp_path):
  """Shells leave ~ alone within --input=~/photos."""
  monkeypatch.setenv("HOME", str(tmp_path))
  options = options_of(
    "cloak",
    *("--input=~/photos", "--output=~/out", "--bank=~/bank"),
    *("--target_dir=~", "--surrogates=dlib_resnet,~/mine.onnx"),
  )
  assert options.input == f"{tmp_path}/photos"
  assert options.output == f"{tmp_path}/out"
  assert options.bank == tmp_path / "bank"
  assert options.target_dir == tmp_path
  assert options.extractors == ("dlib_resnet", f"{tmp_path}/mine.onnx")
  options = options_of(
    "evaluate", "--data=~/lfw", "--output=~/out", "--trackers=~/a.onnx,dlib"
  )
  assert options.data == f"{tmp_path}/lfw"
  assert options.output == tmp_path / "out"
  assert options.trackers == (f"{tmp_path}/a.onnx", "dlib")
  options = options_of(
    "train", "--data=d", "--output=~/out", "--teachers=~/t.onnx", "--pairs=~/p"
  )
  assert options.teachers == (f"{tmp_path}/t.onnx",)
  assert options.pairs == tmp_path / "p"
  assert options_of("cloak", "~", "out~").output == "out~"


def test_addresses_that_file_managers_copy(tmp_path):
  """file:// URLs, escaped or not."""
  (tmp_path / "100%25").mkdir()
  (tmp_path / "my photos").mkdir()
  for url, name in (("my%20photos", "my photos"), ("100%25", "100%25")):
    options = options_of("cloak", f"file://{tmp_path}/{url}", "out")
    assert options.input == f"{tmp_path}/{name}"


def test_dashes_in_flags_are_underscores():
  options = options_of(
    "cloak", "in", "out-put", "--dry-run", "--on-no-face=skip"
  )
  assert options.dry_run
  assert options.on_no_face == "skip"
  assert options.output == "out-put"


def test_flags_of_an_import():
  """One number stands for all channels; commas make a template a square."""
  flags = "--mean=127.5", "--scale=1,2,3", "--template=-0.3,-0.5,1.6"
  options = options_of("weights", "import", "x", *flags)
  assert options.preprocessing == {
    "mean": (127.5,) * 3,
    "scale": (1, 2, 3),
    "template": (-0.3, -0.5, 1.6),
  }


def test_an_input_whose_name_would_command_the_terminal(tmp_path):
  _, _, errors = cloak((tmp_path / "no\x1b[2Jwhere", tmp_path / "out"))
  assert "\x1b" not in errors
  assert r"no\x1b[2Jwhere: No such file" in errors
