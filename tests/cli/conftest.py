"""What tests of the command line share."""

import pytest
from PIL import Image


@pytest.fixture
def places(tmp_path):
  """An input with one photo, and an output that is not there."""
  source = tmp_path / "in"
  source.mkdir()
  Image.new("RGB", (64, 48), "teal").save(source / "wall.png")
  return source, tmp_path / "out"
