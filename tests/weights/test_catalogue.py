"""The list of public recognisers that travels with the package."""

import re
import tomllib

import pytest

from fawkes_jax.models import architectures
from fawkes_jax.weights import bank, builtin, catalogue, extractors

MODELS = catalogue.models()


@pytest.mark.parametrize("name", MODELS)
def test_an_entry(name):
  """Enough to fetch it, to know it again and to know whether one may."""
  model = MODELS[name]
  assert re.fullmatch(r"[a-z0-9_]+", name)
  assert model.architecture in {"onnx", *architectures.ARCHITECTURES}
  assert model.licence
  assert model.source
  for file in model.files:
    # Under this name the file is looked for.
    assert file.name.partition(".")[0] == name
    assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
    assert file.address is None or file.address.startswith("https://")
    assert file.size is None or file.size > 100_000
  # What is no port needs its preprocessing.
  assert (model.preprocessing is not None) == (model.architecture == "onnx")
  if model.files:
    assert f".{model.files[0].name.partition('.')[2]}" in catalogue.SUFFIXES


def test_no_file_is_there_twice():
  files = [file for model in MODELS.values() for file in model.files]
  assert len({file.sha256 for file in files}) == len(files)
  assert len({file.name for file in files}) == len(files)


def test_ports_are_known_by_their_files():
  """What a file is loaded as is what it can be fetched as."""
  for sha256, (name, _) in extractors._PORTS.items():
    model = catalogue.by_sha256(sha256)
    assert model is not None
    assert model.name == model.architecture == name


def test_research_only_says_so():
  """Free ones are those under a free licence, without a further word."""
  free = {"Apache-2.0", "MIT", "CC0-1.0"}
  for model in MODELS.values():
    assert (model.licence in free) != model.research_only, model.name


def test_the_bank_covers_the_ports():
  ports = [name for name, _ in extractors._PORTS.values()]
  covered = set(ports) - {"ghostfacenet"}
  assert set(bank.load(sorted(covered)).embeddings) == covered


def test_the_files_that_are_here_are_the_known_ones(data_dir):
  lines = (data_dir / "weights" / "SHA256SUMS").read_text().splitlines()
  sums = {line.split()[0] for line in lines}
  for name, _ in extractors._PORTS.values():
    model = MODELS[name]
    here = {file.sha256 for file in model.files} | set(model.also)
    assert here & sums
    assert here - sums <= {file.sha256 for file in model.files if model.also}


def test_it_is_where_the_package_looks():
  tomllib.loads(builtin.checkpoint("weights.toml").read_text())
