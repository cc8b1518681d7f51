"""What several tests share."""

import os
import pathlib

import pytest


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
  """The folder with the project's photographs; skips where there is none."""
  default = pathlib.Path(__file__).parents[2] / "shared" / "data"
  folder = pathlib.Path(os.environ.get("FAWKES_JAX_DATA", default))
  if not folder.is_dir():
    pytest.skip(f"no photographs in {folder}; set FAWKES_JAX_DATA")
  return folder
