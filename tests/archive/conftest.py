"""Folders of every kind of store."""

import itertools

import pytest

_NUMBERS = itertools.count()


@pytest.fixture(params=["local", "memory", "s3", "gs", "other"])
def address(request, tmp_path):
  """The address of an empty folder, whose name has a space."""
  number = next(_NUMBERS)
  match request.param:
    case "local":
      return str(tmp_path / "the folder")
    case "memory":
      return f"memory://photos/the folder {number}"
    case "s3":
      request.getfixturevalue("s3_server")
      return f"s3://photos/the folder {number}"
    case "gs":
      request.getfixturevalue("gcs_server")
      return f"gs://photos/the folder {number}"
    case _:
      # A file system whose files appear while they are written.
      return f"local://{tmp_path}/the folder"
