"""The records of public recognisers that travel with the package."""

import re
import tomllib

import jax
import numpy as np
import pytest

from fawkes_jax.models import architectures
from fawkes_jax.models.onnx import module as onnx_module
from fawkes_jax.weights import bank, builtin, catalogue, extractors, variables
from fawkes_jax.weights.formats import onnx

PUBLIC = catalogue.public()
PORTS = [r.name for r in PUBLIC.values() if r.has_port and r.preprocessing]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_record_says_all_that_is_asked(name):
  """Enough to fetch it, to know it again, to run it and whether one may."""
  record = PUBLIC[name]
  assert re.fullmatch(r"[a-z0-9_]+", name)
  known = {catalogue.ONNX, catalogue.DETECTOR, *architectures.ARCHITECTURES}
  assert record.architecture in known
  assert record.licence
  assert record.source
  for file in record.files:
    # Under this name the file is looked for.
    assert record.built_in or file.name.partition(".")[0] == name
    assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
    assert file.address is None or file.address.startswith("https://")
    assert file.size is None or file.size > 100_000
  suffix = f".{record.files[0].name.partition('.')[2]}"
  assert record.built_in or suffix in catalogue.SUFFIXES
  # What could run elsewhere needs its preprocessing.
  elsewhere = suffix not in (".dat", ".safetensors") and not record.finds_faces
  assert (record.preprocessing is not None) == elsewhere


@pytest.mark.parametrize("name", PORTS)
def test_a_record_shows_the_face_as_its_architecture_does(name):
  record = PUBLIC[name]
  template = architectures.ARCHITECTURES[record.architecture].template
  assert record.preprocessing.square == template


def test_no_file_is_there_twice():
  records = PUBLIC.values()
  files = [file for record in records for file in record.files]
  assert len({file.name for file in files}) == len(files)
  digests = [file.sha256 for file in files]
  digests += [sha256 for record in records for sha256 in record.also]
  assert len(set(digests)) == len(digests)


def test_research_only_says_so():
  """Free ones are those under a free licence, without a further word."""
  free = {"Apache-2.0", "MIT", "CC0-1.0"}
  for record in PUBLIC.values():
    assert (record.licence in free) != record.research_only, record.name


def test_the_bank_covers_the_ports():
  assert set(PORTS) <= bank.names()


def test_the_bank_covers_what_is_built_in():
  known = catalogue.recognisers().values()
  assert {record.name for record in known if record.built_in} <= bank.names()


def test_students_are_known_and_say_who_taught_them():
  known = catalogue.recognisers()
  assert catalogue.students()
  for name, path in catalogue.students().items():
    assert known[name].architecture == variables.architecture(path)
    assert known[name].built_in
    assert builtin.checkpoint(f"{name}.md").is_file()
    assert set(catalogue.teachers(name)) <= set(PUBLIC)
    assert catalogue.teachers(name)


def path_of(name, data_dir):
  """The file of a port, whatever it is called there."""
  lines = (data_dir / "weights" / "SHA256SUMS").read_text().splitlines()
  files = dict(line.split() for line in lines)
  record = PUBLIC[name]
  for sha256 in (record.files[0].sha256, *record.also):
    if sha256 in files:
      return data_dir / "weights" / files[sha256]
  return pytest.fail(f"{name} is not in {data_dir / 'weights'}")


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", PORTS)
def test_a_port_computes_what_its_file_does(name, data_dir):
  """With the preprocessing of its record: what is read elsewhere is the same.

  A file in another format than ONNX can only be known.
  """
  path = path_of(name, data_dir)
  port = extractors.load_extractor(str(path))
  assert port.name == name
  if path.suffix != ".onnx":
    return
  model, expected = onnx.read(path), PUBLIC[name].preprocessing
  module = onnx_module.GraphModule(
    model.graph, mean=expected.mean, scale=expected.scale, bgr=expected.bgr
  )
  size = port.input_size
  noise = np.random.default_rng(0).uniform(0, 255, (2, size // 8, size // 8, 3))
  images = noise.repeat(8, axis=1).repeat(8, axis=2).astype(np.float32)
  wanted = np.asarray(jax.jit(module.apply)(model.variables, images))
  error = np.linalg.norm(port.embed(images) - wanted, axis=1)
  assert (error <= 1e-4 * np.linalg.norm(wanted, axis=1)).all()


def test_it_is_where_the_package_looks():
  tomllib.loads(builtin.checkpoint("weights.toml").read_text())
