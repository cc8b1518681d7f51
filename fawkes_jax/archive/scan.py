"""Finds the files of an archive."""

import collections
import dataclasses
import errno
import functools
import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from fawkes_jax import types
from fawkes_jax.archive import (
  datasets,
  files,
  lists,
  remote_store,
  storage,
  tars,
)
from fawkes_jax.archive.source import SourceFile

Addresses = str | os.PathLike | Sequence[str | os.PathLike]
"""Of an archive, or of several that are to be one."""


def scan(address: Addresses, *, flag: str = "input") -> Iterator[SourceFile]:
  """The files of an archive, lazily, in the order of their names' bytes.

  The archive is a folder, here or in a bucket, a single file, or one of:

  * a list of addresses in a .txt or .parquet file, see `lists`;
  * tar or ZIP files, as in `shards/*.tar`, see `tars`;
  * `tfds:NAME`, the images of a dataset of TensorFlow Datasets.

  Of several archives each is a folder of its own, as `cp -r` would make it: it
  is called as the last part of its address, or as many of them as tell it from
  the others.

  Every file gets its turn, whatever its name, so that it gets a row:

  * Hidden files (.DS_Store) and everything that is not a regular file are
    skipped with a reason. Hidden folders are one skipped entry, not entered.
  * A symbolic link to a file inside the input is a file like any other. A
    link to a folder is never followed: its files have their own turn if they
    are inside. A link that leads out, or nowhere, is skipped.
  * A folder that cannot be read is one failed entry; the scan goes on.
  * A name of a bucket that cannot be a path is a failed entry.

  Args:
    address: the address of the archive, or several.
    flag: that it comes from, for messages.

  Returns:
    The files.

  Raises:
    types.FawkesError: the input is missing or unreadable; from the iterator
      too where a bucket cannot be listed any more.
  """
  if not isinstance(address, str | os.PathLike):
    return _several(address, flag)
  text = os.fspath(address)
  try:
    if text.startswith(datasets.PREFIX):
      return datasets.scan(text, flag=flag)
    folder = os.path.isdir(text)
    if text.lower().endswith(lists.SUFFIXES) and not folder:
      return lists.scan(text)
    if text.lower().endswith(tars.SUFFIXES) and not folder:
      return tars.scan(text)
    if storage.is_remote(text):
      return _first_now(_remote(text), text, flag)
    return _local(Path(address), flag)
  except OSError as error:
    raise _unreadable(text, flag, error) from error


def shown(address: Addresses) -> str:
  """The address of an archive, or of several, for messages."""
  if isinstance(address, str | os.PathLike):
    return files.printable(address)
  more = f" and {len(address) - 2} more" if len(address) > 2 else ""
  return ", ".join(map(files.printable, address[:2])) + more


def is_one_file(address: Addresses) -> bool:
  """Whether it is that of a single photo, rather than of an archive.

  Raises:
    types.FawkesError: it needs a package that is not installed.
  """
  if not isinstance(address, str | os.PathLike):
    return False
  text = os.fspath(address)
  if text.startswith(datasets.PREFIX) or "*" in text:
    return False
  if text.lower().endswith((*lists.SUFFIXES, *tars.SUFFIXES)):
    return False
  if storage.is_remote(text):
    return remote_store.RemoteStore(text).is_file()
  return os.path.isfile(text)


def _several(
  addresses: Sequence[str | os.PathLike], flag: str
) -> Iterator[SourceFile]:
  """The files of several archives, each under a name of its own."""
  unique = {storage.place(a): os.fspath(a) for a in addresses}
  names = _names(list(unique.values()))
  for one, other in itertools.pairwise(sorted(n + "/" for n in names)):
    if other.startswith(one):
      raise types.FawkesError(
        f"--{flag} must not hold a folder beside one of the same name in"
        f" another: {files.printable(other[:-1])}"
      )
  found = []
  for name, text in sorted(names.items(), key=lambda item: item[0].encode()):
    folder, _, _ = name.rpartition("/")
    whole = text.lower().endswith(tars.SUFFIXES) or is_one_file(text)
    found.append(_within(folder if whole else name, scan(text, flag=flag)))
  return itertools.chain.from_iterable(found)


def _names(addresses: Sequence[str]) -> dict[str, str]:
  """By name, each of several addresses."""
  paths = {}
  for text in addresses:
    kind, _, rest = text.rpartition("://")
    path = rest if kind else os.path.abspath(text)
    paths[text] = (kind or "file", *filter(None, path.split("/")))
  depths = dict.fromkeys(addresses, 1)
  while True:
    names = {text: "/".join(paths[text][-depths[text] :]) for text in addresses}
    counts = collections.Counter(names.values())
    twice = [text for text, name in names.items() if counts[name] > 1]
    if not twice:
      return {name: text for text, name in names.items()}
    for text in twice:
      depths[text] += 1


def _within(folder: str, sources: Iterator[SourceFile]) -> Iterator[SourceFile]:
  """Files with the name of a folder before theirs."""
  for source in sources:
    relative = f"{folder}/{source.relative}" if folder else source.relative
    yield dataclasses.replace(source, relative=relative)


def check_output(
  source: Addresses, output: str | os.PathLike, *, flag: str = "input"
) -> None:
  """Makes sure that writing the output can never touch the input.

  Symbolic links are resolved first.

  Args:
    source: the input.
    output: where results go.
    flag: that the input comes from, for messages.

  Raises:
    types.FawkesError: one of the two lies inside the other, both are the
      same, or the output is not a folder.
  """
  if not isinstance(source, str | os.PathLike):
    for each in source:
      check_output(each, output, flag=flag)
    return
  flags = (
    f"--output={files.printable(output)} and --{flag}={files.printable(source)}"
  )
  if storage.place(source) == storage.place(output):
    raise types.FawkesError(f"{flags} must not be the same")
  if storage.within(output, source):
    raise types.FawkesError(f"{flags}: the output must not be in the input")
  if storage.within(source, output):
    raise types.FawkesError(f"{flags}: the input must not be in the output")
  if os.path.exists(output) and not os.path.isdir(output):
    raise types.FawkesError(
      f"--output must be a folder, got {files.printable(output)}"
    )


def _unreadable(text: str, flag: str, error: OSError) -> types.FawkesError:
  return types.FawkesError(
    f"--{flag} must be readable, got {files.printable(text)}:"
    f" {files.reason(error)}"
  )


def _first_now(
  sources: Iterator[SourceFile], text: str, flag: str
) -> Iterator[SourceFile]:
  """Begins to list at once, and says of what cannot be listed what it is."""

  def rest() -> Iterator[SourceFile]:
    try:
      yield from sources
    except OSError as error:
      raise _unreadable(text, flag, error) from error

  try:
    first = list(itertools.islice(sources, 1))
  except FileNotFoundError as error:
    if not error.strerror:  # Each store has words of its own.
      error = FileNotFoundError(errno.ENOENT, "there is no such bucket")
    raise error
  return itertools.chain(first, rest())


def _remote(address: str) -> Iterator[SourceFile]:
  """The files of a folder in a bucket, or a single one."""
  store = remote_store.RemoteStore(address)
  if store.is_file():
    folder, _, name = store.address.rpartition("/")
    parent = remote_store.RemoteStore(folder)
    yield SourceFile(
      relative=name, load=functools.partial(_fetch, parent, name, None)
    )
    return
  hidden, any_there = None, False
  for name, size in store.walk():
    any_there = True
    parts = name.split("/")
    # Tools that show folders make an empty object for each.
    if not parts[-1] and not any(part.startswith(".") for part in parts):
      continue
    dotted = next((i for i, p in enumerate(parts) if p.startswith(".")), None)
    if unusable := SourceFile.unusable(name):
      yield unusable
    elif dotted is not None:
      top = "/".join(parts[: dotted + 1])
      if top != hidden:
        yield SourceFile(relative=top, status="skipped", reason="hidden")
      hidden = top
    else:
      yield SourceFile(
        relative=name, load=functools.partial(_fetch, store, name, size)
      )
  if not any_there:
    # Buckets have no empty folders.
    raise FileNotFoundError(errno.ENOENT, "nothing is there")


def _fetch(
  store: storage.Store, name: str, size: int | None, max_bytes: int
) -> bytes:
  """Reads an object, if it is not too large."""
  if size is not None and size > max_bytes:
    raise types.PhotoError(f"more than {max_bytes} bytes")
  return store.read(name)


def _local(root: Path, flag: str) -> Iterator[SourceFile]:
  """The files of a folder of this machine, or a single one."""
  mode = os.stat(root).st_mode
  if stat.S_ISREG(mode):
    return iter((_readable(root, root.name),))
  if not stat.S_ISDIR(mode):
    raise types.FawkesError(
      f"--{flag} must be a folder or a file, got {files.printable(root)}"
    )
  return _walk(_list(root), "", Path(os.path.realpath(root)))


def _readable(path: Path, relative: str) -> SourceFile:
  return SourceFile(
    relative=relative,
    load=functools.partial(files.read_source, path),
    path=path,
  )


def _list(folder: Path) -> list[os.DirEntry]:
  with os.scandir(folder) as entries:
    return sorted(entries, key=_order)


def _order(entry: os.DirEntry) -> bytes:
  """As if all names of the archive were sorted at once."""
  name = os.fsencode(entry.name)
  return name + b"/" if entry.is_dir(follow_symlinks=False) else name


def _walk(
  entries: list[os.DirEntry], prefix: str, root: Path
) -> Iterator[SourceFile]:
  for entry in entries:
    relative = prefix + entry.name
    if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
      try:
        inner = _list(Path(entry.path))
      except OSError as error:
        yield SourceFile(
          relative=relative,
          status="failed",
          reason=f"folder cannot be read: {files.reason(error)}",
        )
      else:
        yield from _walk(inner, relative + "/", root)
    else:
      yield _file(entry, relative, root)


def _file(entry: os.DirEntry, relative: str, root: Path) -> SourceFile:
  if reason := _why_skipped(entry, root):
    return SourceFile(relative=relative, status="skipped", reason=reason)
  return _readable(Path(entry.path), relative)


def _why_skipped(entry: os.DirEntry, root: Path) -> str | None:
  if entry.name.startswith("."):
    return "hidden"
  if entry.is_symlink():
    target = Path(os.path.realpath(entry.path))
    if root not in target.parents:
      return "a symbolic link that leads out of the input"
    if os.path.isdir(target):
      return "a symbolic link to a folder"
    if not os.path.isfile(target):
      return "a symbolic link that leads nowhere"
    return None
  return None if entry.is_file() else "not a regular file"
