"""Archives that are lists of addresses, in a text or Parquet file.

A line of a text file is an address and, after a tab, the name of the result
below the output where that shall be another. It may be as people and their
programs write it: with a byte order mark, in UTF-16, with Windows' ends of
lines, in quotation marks, with spaces around it, as a file:// URL, with ~ for
the home. A line that begins with # is a comment. All this only where there is
no file of this machine whose name is the line as it is. A Parquet file has a
column "address", "url", "uri" or "path", and may have a column "name".

An address that is no URL and no absolute path is relative to the list's
folder, and that is its name too, without . and .. in front of it. The name of
any other address is the address without the scheme: s3://bucket/trip/a.jpg
becomes bucket/trip/a.jpg.
"""

import codecs
import contextlib
import functools
import io
import os
import posixpath
import re
import sqlite3
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from pyarrow import parquet

from fawkes_jax import types
from fawkes_jax.archive import files, storage, stores
from fawkes_jax.archive.source import SourceFile

SUFFIXES = (".txt", ".parquet")
_COLUMNS = ("address", "url", "uri", "path")
_BATCH = 4096
_MARKS = {
  codecs.BOM_UTF8: "utf-8",
  codecs.BOM_UTF16_LE: "utf-16-le",
  codecs.BOM_UTF16_BE: "utf-16-be",
}


def scan(address: str) -> Iterator[SourceFile]:
  """The files that a list names, in its order.

  An entry that has the name of an earlier one, or a name that cannot be a path,
  is a failed file.

  Raises:
    OSError: the list cannot be read.
    types.FawkesError: it is not such a list, or needs a package that is not
      installed.
  """
  folder, name = posixpath.split(address)
  store = stores.open_store(folder or ".")
  if name.lower().endswith(".parquet"):
    entries = _parquet(store, name, address)
  else:
    store.open(name).close()  # Missing files are named at once.
    entries = _text(store, name, folder)
  return _sources(entries, folder)


def _text(
  store: storage.Store, name: str, folder: str
) -> Iterator[tuple[str, str]]:
  for text in _lines(store, name):
    address, _, target = text.partition("\t")
    meant = _meant(address)
    if meant != address and os.path.lexists(_where(address, folder)):
      meant = address
    if meant:
      yield meant, _unquoted(target.strip())


def _lines(store: storage.Store, name: str) -> Iterator[str]:
  """The lines of a text, whatever a program for Windows has made of it."""
  with store.open(name) as file:
    head = file.read(3)
  mark = next((mark for mark in _MARKS if head.startswith(mark)), b"")
  encoding = _MARKS.get(mark, "utf-8")
  with store.open(name) as file:
    file.seek(len(mark))
    if encoding == "utf-8":  # Bytes of names that are in none stay.
      yield from (os.fsdecode(line.rstrip(b"\r\n")) for line in file)
    else:
      with io.TextIOWrapper(file, encoding, "replace") as text:
        yield from (line.rstrip("\r\n") for line in text)


def _meant(text: str) -> str:
  """The address in a line; empty where it has none."""
  text = text.strip()
  if text.startswith("#"):
    return ""
  return os.path.expanduser(files.from_url(_unquoted(text)))


def _unquoted(text: str) -> str:
  quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
  return text[1:-1] if quoted else text


def _parquet(
  store: storage.Store, name: str, address: str
) -> Iterator[tuple[str, str]]:
  try:
    with store.open(name) as file:
      there = parquet.ParquetFile(file).schema_arrow.names
  except OSError:
    raise
  except Exception as error:
    raise types.FawkesError(
      f"{address} must be a Parquet file: {error}"
    ) from error
  column = next((c for c in _COLUMNS if c in there), None)
  if column is None:
    raise types.FawkesError(
      f"{address} must have a column {' or '.join(_COLUMNS)}, got"
      f" {', '.join(there)}"
    )
  columns = [column, *(["name"] if "name" in there else [])]

  def entries() -> Iterator[tuple[str, str]]:
    with store.open(name) as file:
      table = parquet.ParquetFile(file)
      for batch in table.iter_batches(_BATCH, columns=columns):
        for row in batch.to_pylist():
          if row[column]:
            yield row[column], row.get("name") or ""

  return entries()


def _sources(
  entries: Iterator[tuple[str, str]], folder: str
) -> Iterator[SourceFile]:
  # Temporary and on the disk, however many names there are.
  connection = sqlite3.connect("", check_same_thread=False)
  with contextlib.closing(connection) as seen:
    seen.execute("CREATE TABLE names (name BLOB PRIMARY KEY) WITHOUT ROWID")
    for number, (address, target) in enumerate(entries, start=1):
      relative = target or _name(address)
      if unusable := SourceFile.unusable(relative):
        yield unusable
        continue
      added = seen.execute(
        "INSERT OR IGNORE INTO names VALUES (?)", (files.order(relative),)
      )
      if not added.rowcount:
        yield SourceFile(
          relative=f"{relative} (entry {number})",
          status="failed",
          reason="an earlier entry has the same name",
        )
      else:
        whole = _where(address, folder)
        yield SourceFile(
          relative=relative,
          load=functools.partial(_fetch, whole),
          address=whole,
          path=None if storage.is_remote(whole) else Path(whole),
        )


def _where(address: str, folder: str) -> str:
  """An address that does not depend on the list's."""
  if storage.is_remote(address) or address.startswith("/"):
    return address
  scheme, mark, path = folder.rpartition("://")
  return scheme + mark + posixpath.normpath(posixpath.join(path, address))


def _name(address: str) -> str:
  """What the result of an address is called."""
  if address.startswith(("http://", "https://")):
    return urllib.parse.unquote(re.split("[?#]", address)[0].split("://")[1])
  if storage.is_remote(address):
    return address.partition("://")[2]
  name = posixpath.normpath(address).lstrip("/")
  while name.startswith("../"):
    name = name.removeprefix("../")
  return name


def _fetch(address: str, max_bytes: int) -> bytes:
  if not storage.is_remote(address):
    return files.read_source(Path(address), max_bytes)
  folder, _, name = address.rpartition("/")
  return stores.open_store(folder).read(name)
