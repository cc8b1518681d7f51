"""Pillow without its warnings and its own limits; others' silence."""

import contextlib
import dataclasses
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Iterator

from PIL import Image, PngImagePlugin

_TEXT = 256 << 20
"""Bytes of text that a PNG may have."""
_lock = threading.Lock()
_users = 0
_undo = contextlib.ExitStack()

_STDERR = 2
_native = threading.Lock()
_natives = contextlib.ExitStack()
_inside = 0
# What libjpeg and libtiff say of files, without naming them.
_NATIVE = re.compile(
  rb"^(tempfile\.tif: |_?TIFF\w+: |\w*(Decode|Encode|Setup)\w*: |JPEGLib: "
  rb"|(Application transferred|Arithmetic table|Bogus|Component index)\b"
  rb"|(Corrupt|Empty JPEG|Failed to create|Fractional sampling|Huffman table)\b"
  rb"|(Image too|Improper|Inconsistent|Insufficient|Invalid|JPEG datastream)\b"
  rb"|(Maximum supported|Not a JPEG|Premature end|Quantization table)\b"
  rb"|(Requested feature|Sampling factors|Scan script|Sorry,|Too many)"
  rb"|(Unknown (Adobe|JPEG)|Unsupported|Warning: unknown|Wrong JPEG)\b)"
)


@dataclasses.dataclass
class _Said:
  """What is written to standard error while it is turned away.

  Attributes:
    file: descriptor of the file that it goes to.
    kept: descriptor of standard error.
    read: bytes of the file that have been passed on.
  """

  file: int
  kept: int
  read: int = 0


_said: _Said | None = None


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
  """Silences Pillow while any thread is inside.

  A photo's outcome is an exception or a manifest row, never a warning, and
  the limit on pixels is the caller's. Much text makes no PNG suspect. All of
  Pillow's switches are global: the first thread that enters turns them, the
  last one to leave turns them back.
  """
  global _users
  with _lock:
    if _users == 0:
      _undo.enter_context(warnings.catch_warnings())
      warnings.filterwarnings("ignore", module=r"PIL\b")
      _undo.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
      Image.MAX_IMAGE_PIXELS = None
      for limit in "MAX_TEXT_CHUNK", "MAX_TEXT_MEMORY":
        _undo.callback(
          setattr, PngImagePlugin, limit, getattr(PngImagePlugin, limit)
        )
        setattr(PngImagePlugin, limit, _TEXT)
    _users += 1
  try:
    yield
  finally:
    with _lock:
      _users -= 1
      if _users == 0:
        _undo.close()


@contextlib.contextmanager
def quiet_natives() -> Iterator[None]:
  """Silences libjpeg and libtiff, which write to standard error by themselves.

  Threads can be inside at the same time: the first one turns standard error
  away, and the last one turns it back. What others write there meanwhile is
  written whenever a thread leaves.
  """
  global _inside
  with _native:
    if _inside == 0:
      _natives.enter_context(_turned_away())
    _inside += 1
  try:
    yield
  finally:
    with _native:
      _inside -= 1
      if _inside == 0:
        _natives.close()
      else:
        _pass_on()


@contextlib.contextmanager
def _turned_away() -> Iterator[None]:
  """Standard error goes to a file, until it is passed on."""
  global _said
  with tempfile.TemporaryFile(buffering=0) as file:
    try:
      kept = os.dup(_STDERR)
    except OSError:  # There is no standard error.
      yield
      return
    os.dup2(file.fileno(), _STDERR)
    _said = _Said(file=file.fileno(), kept=kept)
    try:
      yield
    finally:
      os.dup2(kept, _STDERR)
      _pass_on()
      _said = None
      os.close(kept)


def _pass_on() -> None:
  """Writes what others have said since the last time."""
  said = _said
  if said is None:
    return
  size = os.fstat(said.file).st_size
  text = os.pread(said.file, size - said.read, said.read)
  said.read = size
  for line in text.splitlines(keepends=True):
    if not _NATIVE.match(line):
      with contextlib.suppress(OSError):
        os.write(said.kept, line)
