"""The examples of the manual run; here with few steps and small crops."""

import importlib.util
import shutil
from pathlib import Path

import pytest

import fawkes_jax

FOLDER = Path(__file__).parents[1] / "docs" / "examples"

pytestmark = pytest.mark.slow


def example(name):
  spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def options(**solver):
  return fawkes_jax.CloakerOptions(
    solver=fawkes_jax.SolverOptions(steps=24, **solver),
    extractors=("dlib_resnet",),
    crop_size=64,
    batch_size=1,
  )


@pytest.fixture(scope="module")
def cloaker():
  return fawkes_jax.Cloaker(options())


def test_every_example_is_run_here():
  names = {path.stem for path in FOLDER.glob("*.py")}
  tests = Path(__file__).read_text()
  assert names
  assert all(f'example("{name}")' in tests for name in names)


def test_cloak_arrays(cloaker):
  results = example("cloak_arrays").main(cloaker)
  assert [len(result.faces) for result in results] == [1, 1, 1]
  assert len({result.faces[0].person for result in results}) == 1


def test_own_extractor():
  result = example("own_extractor").main(options())
  assert set(result.faces[0].cosine) == {"dlib_resnet", "mine"}


def test_own_loss():
  result = example("own_loss").main(options(rho=0.0006))
  [face] = result.faces
  assert face.cost <= 0.0006
  assert face.cosine["dlib_resnet"] < 0.95


def test_measure_protection(cloaker, data_dir, tmp_path, capsys):
  pytest.importorskip("dlib")
  folders = sorted(
    folder
    for folder in (data_dir / "lfw").iterdir()
    if folder.is_dir() and len(list(folder.iterdir())) >= 5
  )[:3]
  if len(folders) < 3:
    pytest.skip("no three people with five photos each")
  for folder in folders:
    place = tmp_path / (
      "me" if folder == folders[0] else f"others/{folder.name}"
    )
    place.mkdir(parents=True)
    for path in sorted(folder.iterdir())[:5]:
      shutil.copy(path, place)
  wrong = example("measure_protection").main(
    tmp_path / "me", tmp_path / "others", cloaker
  )
  assert wrong["clean"] == 0
  assert 0 <= wrong["cloaked"] <= 1
  assert (
    "learned from cloaked photos was wrong about" in capsys.readouterr().out
  )
