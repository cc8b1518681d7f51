"""Pillow without its warnings and its own limit on pixels."""

import contextlib
import threading
import warnings
from collections.abc import Iterator

from PIL import Image

_lock = threading.Lock()
_users = 0
_undo = contextlib.ExitStack()


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
  """Silences Pillow while any thread is inside.

  A photo's outcome is an exception or a manifest row, never a warning, and
  the limit on pixels is the caller's. Both of Pillow's switches are global:
  the first thread that enters turns them, the last one to leave turns them
  back.
  """
  global _users
  with _lock:
    if _users == 0:
      _undo.enter_context(warnings.catch_warnings())
      warnings.filterwarnings("ignore", module=r"PIL\b")
      _undo.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
      Image.MAX_IMAGE_PIXELS = None
    _users += 1
  try:
    yield
  finally:
    with _lock:
      _users -= 1
      if _users == 0:
        _undo.close()
