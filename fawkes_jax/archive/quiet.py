"""Pillow without its warnings and its own limits on pixels and texts."""

import contextlib
import threading
import warnings
from collections.abc import Iterator

from PIL import Image, PngImagePlugin

_TEXT = 256 << 20
"""Bytes of text that a PNG may have."""
_lock = threading.Lock()
_users = 0
_undo = contextlib.ExitStack()


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
