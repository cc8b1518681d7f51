"""Finds the files of an archive."""

import dataclasses
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from fawkes_jax import types
from fawkes_jax.archive import files


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceFile:
  """One input file.

  Attributes:
    path: where it is.
    relative: below the input folder, POSIX separators, as the file system
      has it (bytes that are not UTF-8 as surrogates): where the output goes.
    name: `relative` as text for the manifest and for messages, see
      `files.printable`.
    status: None for a file to be decoded; "skipped" or "failed" where
      scanning already settled it.
    reason: why, with a status.
  """

  path: Path
  relative: str
  status: str | None = None
  reason: str | None = None

  @property
  def name(self) -> str:
    """The path as rows and messages show it."""
    return files.printable(self.relative)


def scan(root: Path, *, flag: str = "input") -> Iterator[SourceFile]:
  """The files below a folder, lazily, sorted by name in each folder.

  Every file gets its turn, whatever its name, so that it gets a row:

  * Hidden files (.DS_Store) and everything that is not a regular file are
    skipped with a reason. Hidden folders are one skipped entry, not entered.
  * A symbolic link to a file inside the input is a file like any other. A
    link to a folder is never followed: its files have their own turn if they
    are inside. A link that leads out, or nowhere, is skipped.
  * A folder that cannot be read is one failed entry; the scan goes on.

  A single file as `root` is an archive of one.

  Args:
    root: the folder or file.
    flag: that it comes from, for messages.

  Returns:
    The files.

  Raises:
    types.FawkesError: the input is missing or unreadable.
  """
  try:
    mode = os.stat(root).st_mode
    if stat.S_ISREG(mode):
      return iter((SourceFile(path=root, relative=root.name),))
    if not stat.S_ISDIR(mode):
      raise types.FawkesError(
        f"--{flag} must be a folder or a file, got {files.printable(root)}"
      )
    entries = _list(root)
  except OSError as error:
    raise types.FawkesError(
      f"--{flag} must be readable, got {files.printable(root)}:"
      f" {error.strerror}"
    ) from error
  return _walk(entries, "", _resolve(root))


def check_output(source: Path, output: Path, *, flag: str = "input") -> None:
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
  inner, outer = _resolve(source), _resolve(output)
  flags = (
    f"--output={files.printable(output)} and --{flag}={files.printable(source)}"
  )
  if inner == outer:
    raise types.FawkesError(f"{flags} must not be the same")
  if inner in outer.parents:
    raise types.FawkesError(f"{flags}: the output must not be in the input")
  if outer in inner.parents:
    raise types.FawkesError(f"{flags}: the input must not be in the output")
  if outer.exists() and not outer.is_dir():
    raise types.FawkesError(
      f"--output must be a folder, got {files.printable(output)}"
    )


def _resolve(path: Path) -> Path:
  """Follows symbolic links; unlike Path.resolve, also those in circles."""
  return Path(os.path.realpath(path))


def _list(folder: Path) -> list[os.DirEntry]:
  with os.scandir(folder) as entries:
    return sorted(entries, key=lambda entry: os.fsencode(entry.name))


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
          path=Path(entry.path),
          relative=relative,
          status="failed",
          reason=f"folder cannot be read: {error.strerror}",
        )
      else:
        yield from _walk(inner, relative + "/", root)
    else:
      yield _file(entry, relative, root)


def _file(entry: os.DirEntry, relative: str, root: Path) -> SourceFile:
  reason = _why_skipped(entry, root)
  return SourceFile(
    path=Path(entry.path),
    relative=relative,
    status="skipped" if reason else None,
    reason=reason,
  )


def _why_skipped(entry: os.DirEntry, root: Path) -> str | None:
  if entry.name.startswith("."):
    return "hidden"
  if entry.is_symlink():
    target = _resolve(Path(entry.path))
    if root not in target.parents:
      return "a symbolic link that leads out of the input"
    if os.path.isdir(target):
      return "a symbolic link to a folder"
    if not os.path.isfile(target):
      return "a symbolic link that leads nowhere"
    return None
  return None if entry.is_file() else "not a regular file"
