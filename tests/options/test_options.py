import dataclasses
import math
from pathlib import Path

import pytest

from fawkes_jax import types
from fawkes_jax.options import (
  MODES,
  BankOptions,
  CloakOptions,
  FaceOptions,
  SolverOptions,
)

PLACES = {"input": Path("in"), "output": Path("out")}


def cloak(**options):
  return CloakOptions(**PLACES, **options)


@pytest.mark.parametrize(
  ("flag", "bad", "good"),
  [
    ("rho", (0, -1, 0.51, math.nan, math.inf), (1e-6, 0.5)),
    ("steps", (0, -5, 100_001), (1, 100_000)),
    ("learning_rate", (0, -1, 256, math.nan), (0.1, 255)),
    ("linf", (0, 0.5, 256, math.nan), (1, 255)),
    ("chroma", (-1, 256, math.nan), (0, 255)),
    ("own_weight", (-0.1, 101, math.nan), (0, 100)),
    ("exchange_weight", (-0.1, 101, math.nan), (0, 100)),
    ("jitter", (-0.1, 4.1, math.nan), (0, 4)),
    ("jpeg", (-0.1, 4.1, math.nan), (0, 4)),
    ("blur", (-0.1, 8.1, math.nan), (0, 8)),
    ("seed", (-1, 2**31), (0, 2**31 - 1)),
  ],
)
def test_solver_options(flag, bad, good):
  for value in bad:
    with pytest.raises(types.FawkesError) as caught:
      SolverOptions(**{flag: value})
    assert str(caught.value).startswith(f"{flag} must be in ")
    assert str(caught.value).endswith(f"got {value}")
  for value in good:
    assert getattr(SolverOptions(**{flag: value}), flag) == value


@pytest.mark.parametrize(
  ("flag", "bad", "good"),
  [
    ("crop_size", (63, 1025, -1, 100), (64, 192, 1024)),
    ("min_face_pixels", (9, 10_001, math.nan), (None, 10, 10_000)),
    ("max_pixels", (0, 2**31 + 1), (1, 2**31)),
    ("batch_size", (0, 65_537), (None, 1, 65_536)),
    ("threads", (0, 257), (1, 256)),
    ("extractors", ((), ("a", "a")), (("a",), ("a", "b"))),
    ("on_no_face", ("delete", ""), ("copy", "skip")),
  ],
)
def test_cloak_options(flag, bad, good):
  for value in bad:
    with pytest.raises(types.FawkesError, match=f"^{flag} must be .*, got "):
      cloak(**{flag: value})
  for value in good:
    assert getattr(cloak(**{flag: value}), flag) == value


def test_modes_are_the_budgets_of_the_paper():
  budgets = {mode: options.rho for mode, options in MODES.items()}
  assert budgets == {"low": 0.0045, "mid": 0.0135, "high": 0.0192}
  assert MODES["mid"] == SolverOptions()
  assert cloak().solver == MODES["mid"]


def test_options_are_frozen():
  for options in (SolverOptions(), FaceOptions(), cloak()):
    with pytest.raises(dataclasses.FrozenInstanceError):
      options.seed = 1


# What changes a photo, and what does not.
CHANGES = {
  "solver": MODES["low"],
  "extractors": ("dlib_resnet", "another"),
  "target_dir": Path("someone"),
  "targets": "bank",
  "protect": ("anna",),
  "spare": ("anna",),
  "named": (("anna", "0123456789ab"),),
  "unsure": "spare",
  "bank": Path("bank.safetensors"),
  "crop_size": 128,
  "detector": "yunet",
  "min_face_pixels": 40.0,
  "on_no_face": "skip",
  "strip_location": True,
  "strip_names": True,
  "convert": True,
}
KEEPS = {
  "max_pixels": 1000,
  "batch_size": 3,
  "threads": 1,
  "retry_failed": True,
  "keep_index": True,
  "dry_run": True,
  "published": "elsewhere",
  "report": True,
  "input": Path("elsewhere"),
  "output": Path("elsewhere"),
  "output_format": "tar",
  "others": "skip",
  "num_processes": 3,
  "process_id": 1,
  "wait_minutes": 1.0,
  "distributed": True,
  "coordinator_address": "host:1",
  "engine": "ray",
  "ray_address": "auto",
  "metrics_port": 9090,
  "json_logs": True,
}
# What an option needs beside it.
WITH = {
  "process_id": {"num_processes": 2},
  "coordinator_address": {"distributed": True},
  "ray_address": {"engine": "ray"},
}


def test_every_option_is_told_apart_or_does_not_matter():
  names = {field.name for field in dataclasses.fields(CloakOptions)}
  assert names == set(CHANGES) | set(KEEPS)


def test_fingerprint():
  base = cloak()
  assert len(base.fingerprint()) == 12
  assert int(base.fingerprint(), 16) >= 0
  assert cloak().fingerprint() == base.fingerprint()
  different = {
    dataclasses.replace(base, **{name: value}).fingerprint()
    for name, value in CHANGES.items()
  }
  assert len(different) == len(CHANGES)
  assert base.fingerprint() not in different
  for name, value in KEEPS.items():
    same = dataclasses.replace(base, **{name: value} | WITH.get(name, {}))
    assert same.fingerprint() == base.fingerprint()


@pytest.mark.parametrize(
  "field", [f.name for f in dataclasses.fields(SolverOptions)]
)
def test_fingerprint_of_each_solver_option(field):
  base = cloak()
  value = getattr(base.solver, field)
  if isinstance(value, int | float):
    value = type(value)(value / 2 + 3)
  value = {"rho": 0.3, "precision": "bfloat16"}.get(field, value)
  changed = dataclasses.replace(base.solver, **{field: value})
  assert changed != base.solver
  fingerprint = dataclasses.replace(base, solver=changed).fingerprint()
  assert fingerprint != base.fingerprint()


def test_bank_options(tmp_path):
  def bank(**options):
    return BankOptions(
      **{"input": tmp_path, "output": tmp_path / "bank"} | options
    )

  assert bank().min_photos <= bank().max_photos
  for options, rule in (
    ({"input": tmp_path / "missing"}, "^input must be a folder"),
    ({"min_photos": 0}, "^min_photos must be in"),
    ({"min_photos": 5, "max_photos": 4}, r"^max_photos must be in \[5"),
    ({"identities": 1}, "^identities must be in"),
    ({"crop_size": 1}, "^crop_size must be in"),
  ):
    with pytest.raises(types.FawkesError, match=rule):
      bank(**options)
