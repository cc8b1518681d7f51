"""Files beside the photos of an archive: sidecars, videos, documents."""

from pathlib import Path
from typing import IO

from PIL import Image

from fawkes_jax.photos.quiet import quiet_pillow

LARGE = 64 << 20
"""Files of more bytes are not read into memory."""

# Of Pillow's kinds, those that hold no still picture.
_NO_IMAGES = frozenset(("BUFR", "GRIB", "HDF5", "IPTC", "MPEG"))


def image_kind(file: IO[bytes] | Path) -> str | None:
  """The kind of picture that a file is by its content; None for no picture.

  A picture that cannot be cloaked may not be taken for a file beside the
  photos, and be copied with clean faces.

  Args:
    file: a file of this machine, or one open for reading at its start.

  Returns:
    Pillow's name of the kind, such as "PSD".
  """
  with quiet_pillow():
    try:
      with Image.open(file) as image:
        kind = image.format
    except Exception:  # Each of its readers may raise what it likes.
      return None
  return None if kind in _NO_IMAGES else kind
