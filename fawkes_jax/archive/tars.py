"""Archives in tar files, such as WebDataset's shards."""

import errno
import fnmatch
import functools
import posixpath
import tarfile
from collections.abc import Iterator

from fawkes_jax import types
from fawkes_jax.archive import files, storage
from fawkes_jax.archive.source import SourceFile

SUFFIX = ".tar"


def scan(address: str) -> Iterator[SourceFile]:
  """The members of tar files, in the order of the files and in theirs.

  A member is called as its tar file without the suffix and as itself, as in
  shard-0007/photo.jpg. It is read where it is, nothing is unpacked.

  Args:
    address: of one tar file, or of several with * in the file's name.

  Raises:
    OSError: there is none, or they cannot be listed.
  """
  folder, pattern = posixpath.split(address)
  store = storage.open_store(folder or ".")
  if "*" not in pattern:
    store.open(pattern).close()
    shards = [pattern]
  else:
    shards = [
      name
      for name in store.names("")
      if fnmatch.fnmatchcase(name, pattern) and not name.startswith(".")
    ]
    if not shards:
      raise FileNotFoundError(errno.ENOENT, "no such file")
  return (source for shard in shards for source in _members(store, shard))


def _members(store: storage.Store, shard: str) -> Iterator[SourceFile]:
  stem = shard.removesuffix(SUFFIX)
  seen = set()
  try:
    with (
      store.open(shard) as file,
      tarfile.open(fileobj=file, mode="r:") as tar,
    ):
      for member in tar:
        # It would keep all of them.
        tar.members.clear()  # type: ignore[attr-defined]
        if member.isdir():
          continue
        relative = f"{stem}/{member.name.removeprefix('./')}"
        status, reason = None, None
        if unusable := SourceFile.unusable(relative):
          yield unusable
          continue
        if not member.isreg():
          status, reason = "skipped", "not a regular file"
        elif "/." in relative:
          status, reason = "skipped", "hidden"
        elif relative in seen:
          relative = f"{relative} (at {member.offset})"
          status, reason = "failed", "an earlier member has the same name"
        seen.add(relative)
        load = functools.partial(
          _fetch, store, shard, member.offset_data, member.size
        )
        yield SourceFile(
          relative=relative,
          status=status,
          reason=reason,
          load=None if status else load,
        )
      # A damaged header looks like the end.
      file.seek(tar.offset)
      if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError("damaged")
  except (OSError, tarfile.TarError) as error:
    why = files.reason(error) if isinstance(error, OSError) else str(error)
    yield SourceFile(
      relative=shard,
      status="failed",
      reason=f"cannot be read as a tar file any further: {why}",
    )


def _fetch(
  store: storage.Store, shard: str, start: int, size: int, max_bytes: int
) -> bytes:
  if size > max_bytes:
    raise types.PhotoError(f"more than {max_bytes} bytes")
  return store.read_part(shard, start, size)
