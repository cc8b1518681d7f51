"""One input file, wherever it is."""

import dataclasses
import posixpath
from collections.abc import Callable
from pathlib import Path

from fawkes_jax import types
from fawkes_jax.archive import files


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceFile:
  """One input file.

  Attributes:
    relative: its name below the input, POSIX separators, as the store has it
      (bytes of a file system that are not UTF-8 as surrogates): where the
      output goes.
    status: None for a file to be decoded; "skipped" or "failed" where
      listing already settled it.
    reason: why, with a status.
    load: reads it, without a status; at most so many bytes may come. Raises
      OSError or PhotoError.
    address: of a file that a list names, which may be anywhere; else None.
    path: the path of a file of this machine, without a status; else None.
    stamp: time and mode of a file that has them and no path.
  """

  relative: str
  status: str | None = None
  reason: str | None = None
  load: Callable[[int], bytes] | None = None
  address: str | None = None
  path: Path | None = None
  stamp: files.Stamp | None = None

  @property
  def name(self) -> str:
    """`relative` as text for rows and messages, see `files.printable`."""
    return files.printable(self.relative)

  @property
  def suffix(self) -> str:
    """The end of the name from its last dot, in lower case."""
    return posixpath.splitext(self.relative)[1].lower()

  def stamped(self) -> files.Stamp:
    """Time and mode as they are now; unknown where there are none."""
    if self.path is not None:
      return files.stamp(self.path)
    return self.stamp or files.Stamp()

  @staticmethod
  def as_member(
    relative: str, seen: set[str], *, regular: bool, place: str
  ) -> tuple[str, str | None, str | None]:
    """What becomes of a member of an archive file before it is read.

    Args:
      relative: its name.
      seen: names of members before it; gets this one's.
      regular: whether it is a regular file.
      place: where it is in the archive, for one whose name is taken.

    Returns:
      Its name, status and reason; None for both where it is to be read.
    """
    status, reason = None, None
    if not regular:
      status, reason = "skipped", "not a regular file"
    elif "/." in relative:
      status, reason = "skipped", "hidden"
    elif relative in seen:
      relative = f"{relative} ({place})"
      status, reason = "failed", "an earlier member has the same name"
    seen.add(relative)
    return relative, status, reason

  @classmethod
  def unusable(cls, name: str) -> "SourceFile | None":
    """A failed file, where a name cannot be a path below a folder."""
    if "\0" not in name and not {"", ".", ".."} & set(name.split("/")):
      return None
    return cls(
      relative=name.replace("\0", "\\0"),
      status="failed",
      reason="its name cannot be a path",
    )

  def read(self, *, max_bytes: int) -> bytes:
    """Reads the file.

    Raises:
      types.PhotoError: it cannot be read, has more than `max_bytes` bytes, or
        has a status.
    """
    if self.status is not None or self.load is None:
      raise types.PhotoError(self.reason or "nothing to read")
    try:
      data = self.load(max_bytes)
    except OSError as error:
      raise types.PhotoError(
        f"cannot be read: {files.reason(error)}"
      ) from error
    if len(data) > max_bytes:
      raise types.PhotoError(f"more than {max_bytes} bytes")
    return data
