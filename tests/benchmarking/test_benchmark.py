"""`fawkes-jax benchmark`, from flags to tables. No test looks at a clock."""

import json
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import PIL.Image
import pytest
import terminal

from fawkes_jax import types
from fawkes_jax.benchmarking import measuring, report, rounds, solving
from fawkes_jax.engine import executor
from fawkes_jax.options import USUAL_PARTS, BenchmarkOptions, SolverOptions

pytestmark = pytest.mark.slow

STEPS = 3
PRICE = 7.2
FLAGS = (
  *("--surrogates=dlib_resnet", "--crop_size=64", "--batch_size=1,2"),
  *(f"--steps={STEPS}", "--rounds=3", "--round_seconds=0"),
  *("--min_face_pixels=80", "--threads=2"),
)
DOES_NOT_FIT = 2


def run(*arguments):
  return terminal.run("benchmark", *arguments)


def too_much(*_):
  """Asks for more memory than any machine has."""
  return jnp.zeros(1 << 44).block_until_ready()


@pytest.fixture(scope="module")
def photos(tmp_path_factory, small_astronaut):
  """Two photos, one of them with a face, among other files."""
  folder = tmp_path_factory.mktemp("photos")
  image = PIL.Image.fromarray(small_astronaut)
  image.save(folder / "a.jpg", quality=90)
  PIL.Image.new("RGB", (200, 160), "teal").save(folder / "wall.png")
  (folder / "broken.jpg").write_bytes(b"not a photo")
  (folder / "notes.txt").write_text("mine")
  return folder


@pytest.fixture(scope="module")
def done(photos, tmp_path_factory):
  """A run of all parts; one batch size does not fit into memory."""
  output = tmp_path_factory.mktemp("out")
  trace = output / "trace"
  kept = jax.config.jax_compilation_cache_dir
  with pytest.MonkeyPatch.context() as patch:
    cache = tmp_path_factory.mktemp("cache")
    patch.setenv("FAWKES_JAX_CACHE", str(cache))
    states = executor.Executor.states
    patch.setattr(
      executor.Executor,
      "states",
      lambda self, problem: (
        too_much() if self.slots == DOES_NOT_FIT else states(self, problem)
      ),
    )
    code, said, errors = run(
      *FLAGS,
      *(f"--data={photos}", f"--output={output}", f"--profile_dir={trace}"),
      f"--price_per_hour={PRICE}",
    )
  assert (code, errors) == (0, "")
  assert jax.config.jax_compilation_cache_dir == kept
  # Nothing of the photos stays.
  assert {path.name for path in output.iterdir()} == {
    *("benchmark.json", "benchmark.md", "benchmark.png", "trace")
  }
  assert [path for path in trace.rglob("*") if path.is_file()]
  summary = json.loads((output / "benchmark.json").read_text())
  return summary, said, output


def assert_spread(spread):
  assert len(spread["rounds"]) == 3
  assert 0 < spread["low"] <= spread["value"] <= spread["high"]
  assert spread["value"] in spread["rounds"]


def test_the_solver(done):
  fits, _ = done[0]["tables"]["solver"]
  assert fits["surrogates"] == "dlib_resnet"
  assert (fits["devices"], fits["batch size"]) == (1, 1)
  assert fits["problem"] is None
  assert_spread(fits["face-steps/s"])
  rate = fits["face-steps/s"]["value"]
  assert fits["faces/s"] == pytest.approx(rate / STEPS, rel=1e-4)
  hours = 1e6 / fits["faces/s"] / 3600
  assert fits["h a million faces"] == pytest.approx(hours, rel=1e-4)
  price = fits["price a million faces"]
  assert price == pytest.approx(PRICE * hours, rel=1e-4)
  assert fits["compile s"] > 0
  assert fits["GFLOP/s"] == pytest.approx(
    rate * fits["GFLOP a face-step"], rel=1e-4
  )
  assert fits["GB/s"] == pytest.approx(
    rate * fits["MB a face-step"] / 1e3, rel=1e-4
  )
  product, copy = done[0]["tables"]["device"]
  assert fits["of float32 product"] == pytest.approx(
    fits["GFLOP/s"] / product["GFLOP/s"]["high"], rel=1e-4
  )
  assert fits["of copy"] == pytest.approx(
    fits["GB/s"] / copy["GB/s"]["high"], rel=1e-4
  )
  # The weights alone take 22 MB.
  assert fits["program GB"] > 0.02
  # dlib's network is 1 GFLOP, forwards and backwards with the DSSIM.
  assert 0.3 < fits["GFLOP a face-step"] < 10


def test_a_batch_that_does_not_fit_is_a_row(done):
  summary, said, output = done
  _, row = summary["tables"]["solver"]
  assert row["batch size"] == DOES_NOT_FIT
  assert row["problem"].startswith("out of memory: RESOURCE_EXHAUSTED")
  assert row["face-steps/s"] is None
  assert row["faces/s"] is None
  assert row["problem"] in said
  with PIL.Image.open(output / "benchmark.png") as image:
    assert image.width > 500


def test_the_other_parts(done):
  tables = done[0]["tables"]
  assert list(tables) == ["solver", "detector", "codecs", "pipeline", "device"]
  assert [(r["what"], r["photos"]) for r in tables["detector"]] == [
    ("find boxes", 2), ("find and align", 2), ("embed", 2)
  ]  # fmt: skip
  for row in (*tables["detector"][:2], *tables["codecs"]):
    assert_spread(row["photos/s"])
    size = (256 * 256 + 200 * 160) / 2e6
    assert row["megapixels/s"]["value"] == pytest.approx(
      size * row["photos/s"]["value"], rel=1e-4
    )
  assert_spread(tables["detector"][2]["faces/s"])
  assert [row["what"] for row in tables["codecs"]] == ["decode", "encode"]
  assert_spread(tables["codecs"][0]["MB/s"])


def test_the_pipeline(done):
  [row] = done[0]["tables"]["pipeline"]
  assert (row["photos"], row["faces"], row["failed"]) == (2, 1, 0)
  assert row["batch size"] == 8
  for unit in ("photos/s", "faces/s"):
    assert_spread(row[unit])
  rate = row["photos/s"]["value"]
  assert row["faces/s"]["value"] == pytest.approx(rate / 2, rel=1e-4)
  hours = 1e6 / rate / 3600
  assert row["h a million photos"] == pytest.approx(hours, rel=1e-4)
  assert row["price a million photos"] == pytest.approx(PRICE * hours, rel=1e-4)
  stages = ("loading", "finding", "embedding", "measuring", "solving")
  shares = [row[f"share {stage}"] for stage in stages]
  assert all(0 < share < 1 for share in shares)
  assert sum(shares) <= 1.3  # Medians, each of its own.


def test_what_is_written_and_said(done):
  summary, said, output = done
  text = (output / "benchmark.md").read_text()
  assert text in said
  for title in ("Solver", "Finding faces", "Reading and", "Everything", "What"):
    assert f"\n## {title}" in text
  assert "| dlib_resnet | float32 | 1 | 1 | " in text
  # CPUs do not say what they use.
  assert "device GB" not in text
  data = Path(summary["options"]["data"])
  assert summary["command"] in text
  assert f" --data={data.name} --steps={STEPS} " in summary["command"]
  assert str(data) not in text
  assert str(output) not in text
  assert summary["options"]["solver"]["steps"] == STEPS
  assert summary["host"]["backend"] == jax.default_backend()
  assert "jax" in summary["packages"]
  assert "round 3 of 3" in said


def options(**changes):
  return BenchmarkOptions(output=Path("out"), **changes)


def test_all_combinations_have_a_row(monkeypatch):
  monkeypatch.setattr(jax, "local_devices", lambda: [None] * 4)
  subjects = solving.subjects(
    options(
      ensembles=(("dlib_resnet",), ("dlib_resnet", "student_mobileface_v2")),
      batch_sizes=(8, 2),
      precisions=("bfloat16", "float32"),
    )
  )
  assert [tuple(subject.title.values()) for subject in subjects] == [
    (ensemble, precision, devices, size)
    for ensemble in ("dlib_resnet", "dlib_resnet+student_mobileface_v2")
    for precision in ("bfloat16", "float32")
    for devices, sizes in ((1, (2, 8)), (4, (4, 8)))
    for size in sizes
  ]


def work(call=lambda: None, **amounts):
  return rounds.Work(
    part="codecs", title={"what": "it"}, call=call, amounts=amounts
  )


def test_all_have_their_turn_in_each_round():
  turns, said = [], []
  results = rounds.run(
    [
      work(lambda: turns.append("a"), x=2),
      work(lambda: turns.append("b"), y=1),
    ],
    count=2,
    seconds=0,
    say=said.append,
  )
  assert turns == ["a", "b"] * 3
  assert said[0] == "preparing codecs, it"
  spread = results[0].spread("x/s")
  assert len(spread["rounds"]) == 2
  assert rounds.best(results, "x/s", what="it") == spread["high"]


@pytest.mark.parametrize("late", [0, 2])
def test_out_of_memory_stops_nothing_else(late):
  """Whether it is while preparing or in the second round."""
  calls = iter(range(10))

  def call():
    return too_much() if next(calls) >= late else None

  def hungry():
    raise MemoryError("Unable to allocate 8 PiB")

  results = rounds.run(
    [work(call, x=1), work(hungry, x=1), work(x=1)],
    count=3,
    seconds=0,
    say=lambda _: None,
  )
  assert results[0].problem.startswith("out of memory: RESOURCE_EXHAUSTED")
  assert results[1].problem == "out of memory: Unable to allocate 8 PiB"
  assert results[0].spread("x/s") is None
  assert results[0].median("x/s") is None
  assert results[2].problem is None
  assert len(results[2].values("x/s")) == 3


def test_other_errors_are_not_hidden():
  def broken():
    raise jax.errors.JaxRuntimeError("INTERNAL: no")

  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
    rounds.run([work(broken)], count=1, seconds=0, say=lambda _: None)


def test_a_report_of_an_accelerator():
  """With a second ceiling, several devices and the device's own peak."""

  def result(part, title, facts, **figures):
    subject = rounds.Work(part=part, title=title, call=print, amounts={})
    return rounds.Result(subject=subject, facts=facts, rounds=[figures] * 2)

  facts = {
    "compile s": 30.0, "GFLOP": 64.0, "GB": math.nan, "program bytes": 4e9,
    "device bytes": 5e9,
  }  # fmt: skip
  title = {"surrogates": "dlib_resnet", "devices": 4, "batch size": 32}
  results = [
    result("solver", title, facts, **{"face-steps/s": 1200.0}),
    result("device", {"what": "float32 product"}, {}, **{"GFLOP/s": 6000.0}),
    result("device", {"what": "bfloat16 product"}, {}, **{"GFLOP/s": 12000.0}),
    result("device", {"what": "copy"}, {}, **{"GB/s": 2000.0}),
  ]
  host = {
    "devices": 4,
    "device": "X",
    "backend": "gpu",
    "cores": 8,
    "load": 0.0,
  }
  summary = report.summary(options(), host, results)
  [row] = summary["tables"]["solver"]
  steps = SolverOptions().steps
  assert row["faces/s"] == pytest.approx(1200 / steps, rel=1e-5)
  assert row["GFLOP a face-step"] == 2
  assert row["of float32 product"] == 0.1
  assert row["of bfloat16 product"] == 0.05
  assert row["GB/s"] is row["of copy"] is None
  assert "price a million faces" not in row
  assert row["device GB"] == 5
  assert json.loads(json.dumps(summary, allow_nan=False)) == summary
  assert "4 x X (gpu), 8 CPU cores" in report.markdown(summary)


def test_without_photos_only_the_solver(monkeypatch):
  assert measuring.parts(options()) == USUAL_PARTS
  monkeypatch.setattr(measuring.importlib.util, "find_spec", lambda _: None)
  assert measuring.parts(options()) == ("solver",)
  assert measuring.parts(options(data=Path("in"))) == USUAL_PARTS
  with pytest.raises(types.FawkesError, match=r"--parts=codecs,pipe"):
    measuring.parts(options(parts=("solver", "pipeline", "codecs")))


@pytest.mark.parametrize(
  ("flags", "rule"),
  [
    ("--parts=solver,disk", "--parts must be of solver, detector, codecs, pip"),
    ("--parts=", "--parts must be of .*, got none"),
    ("--batch_size=8,0", r"--batch_size must be in \[1, 65536\], got 0"),
    ("--batch_size=8,8", "--batch_size must be one or more numbers, each once"),
    ("--batch_size=many", "invalid"),
    ("--devices=0", r"--devices must be in \[1, 65536\], got 0"),
    ("--devices=99", r"--devices must be in \[1, .* on this host, got 99"),
    ("--surrogates=a;a", "--surrogates must be one or more ensembles, each on"),
    ("--surrogates=a,a", "--surrogates must be one or more names or files"),
    ("--surrogates=nobody", "--surrogates must be of"),
    ("--rounds=0", r"--rounds must be in \[1, 1000\], got 0"),
    ("--round_seconds=-1", r"--round_seconds must be in \[0, 3600\], got -1"),
    ("--photos=0", r"--photos must be in \[1, 1e\+06\], got 0"),
    ("--price_per_hour=-1", r"--price_per_hour must be in \[0, 1e\+06\], got"),
    ("--crop_size=100", "--crop_size must be a multiple of 16, got 100"),
    ("--steps=0", r"--steps must be in \[1, 100000\], got 0"),
    ("--mode=extreme", "extreme"),
    ("--data=nowhere", "--data must be readable, got nowhere"),
    ("--data={empty}", "--data must hold a photo that can be cloaked, got "),
    ("--data={output}", "--output=.* and --data=.* must not be the same"),
    ("--output={file}", "--output must be a folder that can be written to"),
    ("--profile_dir={file}", "--profile_dir must be a folder that can be wri"),
    ("--parts=codecs --profile_dir=x", "--profile_dir must be left out where"),
  ],
)
def test_what_is_refused(tmp_path, flags, rule):
  (tmp_path / "file").write_text("mine")
  (tmp_path / "empty").mkdir()
  places = {n: tmp_path / n for n in ("file", "empty", "output")}
  code, said, errors = run(
    f"--output={tmp_path / 'output'}", *flags.format(**places).split()
  )
  assert code == 2
  assert "round" not in said
  assert re.search(rule, errors)
  assert (tmp_path / "file").read_text() == "mine"
