"""Folders that results go to and photos come from, here or in a bucket.

An address is a path of this machine or whatever fsspec knows: s3://bucket/key,
gs://bucket/key and others. What is written is there as a whole or not at all,
in both. The stores themselves are in `local_store.py` and `remote_store.py`,
and nothing else tells them apart; `stores.py` opens them.
"""

import os
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from fawkes_jax.archive import files

_ALIASES = {"s3a": "s3", "gcs": "gs"}


class Appender(Protocol):
  """Lines that are added to a record, one at a time."""

  def append(self, line: bytes) -> None:
    """Adds a line, without the end of line. Raises OSError."""

  def sync(self) -> None:
    """Makes all lines last. Raises OSError."""

  def close(self) -> None:
    """Ends, without `sync`."""


class Store(Protocol):
  """A folder; every name is below it, with POSIX separators.

  All methods raise OSError where they fail, FileNotFoundError where there is
  nothing of that name.

  Attributes:
    address: as it was given.
  """

  address: str

  def read(self, name: str) -> bytes:
    """The content of a file."""

  def read_part(self, name: str, start: int, size: int) -> bytes:
    """So many bytes of a file from one on."""

  def open(self, name: str) -> IO[bytes]:
    """Opens a file to be read from."""

  def write(
    self, name: str, data: bytes, stamp: files.Stamp | None = None
  ) -> None:
    """Makes or replaces a file; there are never parts of it.

    It gets a time and a mode, where the store has such.
    """

  def write_file(
    self, name: str, path: Path, stamp: files.Stamp | None = None
  ) -> None:
    """Copies a file of this machine, which may be larger than the memory."""

  def digest(self, name: str) -> str:
    """The sha256 of a file."""

  def remove(self, name: str) -> None:
    """Removes a file, if it is there."""

  def names(self, folder: str) -> list[str]:
    """The files directly in a folder, sorted; none if there is no folder."""

  def appender(self, stem: str) -> Appender:
    """Lines that go to one or more files called `stem`*.jsonl."""


def is_remote(address: str | os.PathLike) -> bool:
  """Whether an address is a URL, and no path of this machine."""
  return "://" in os.fspath(address)


def kind(address: str) -> str:
  """The kind of store that a URL is of: its scheme, under one name."""
  scheme = address.partition("://")[0]
  return _ALIASES.get(scheme, scheme)


def place(address: str | os.PathLike) -> tuple[str, PurePosixPath]:
  """Where an address leads: a kind of store, and a path that is unique there.

  Symbolic links are resolved, also those in circles.
  """
  if not is_remote(address):
    return "file", PurePosixPath(os.path.realpath(address))
  url = os.fspath(address)
  _, _, path = url.partition("://")
  return kind(url), PurePosixPath(path.rstrip("/"))


def within(address: str | os.PathLike, folder: str | os.PathLike) -> bool:
  """Whether an address is a folder's, or lies in it."""
  store, path = place(address)
  folder_store, folder_path = place(folder)
  return store == folder_store and path.is_relative_to(folder_path)
