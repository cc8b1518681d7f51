"""Pillow without its warnings and its own limits; others' silence."""

import contextlib
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
_native = threading.RLock()
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

  One thread at a time can be inside. What others write there meanwhile is
  written in the end.
  """
  with _native, tempfile.TemporaryFile(buffering=0) as said:
    try:
      kept = os.dup(_STDERR)
    except OSError:  # There is no standard error.
      yield
      return
    os.dup2(said.fileno(), _STDERR)
    try:
      yield
    finally:
      os.dup2(kept, _STDERR)
      os.close(kept)
      said.seek(0)
      for line in said.read().splitlines(keepends=True):
        if not _NATIVE.match(line):
          with contextlib.suppress(OSError):
            os.write(_STDERR, line)
