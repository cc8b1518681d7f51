"""Folders of every kind of store."""

import contextlib
import itertools
import resource

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


@pytest.fixture
def full_disk():
  """To be entered: then no file can be larger than some bytes.

  A full disk's little sister, which needs no privileges.
  """

  @contextlib.contextmanager
  def limited():
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
      yield
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, limits)

  return limited()
