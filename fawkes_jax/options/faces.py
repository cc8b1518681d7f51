"""Options of all commands that look for faces in photos."""

import dataclasses
import hashlib
import json
import os

from fawkes_jax.options import rules
from fawkes_jax.options.declared import Options, option

CROP_SIZE = (
  rules.within(64, 1024),
  rules.Rule(says="a multiple of 16", keeps=lambda value: value % 16 == 0),
)
MIN_FACE_PIXELS = rules.within(10, 10_000)
BATCH_SIZE = rules.within(1, 65_536)
THREADS = rules.within(1, 256)
DEFAULT_THREADS = min(8, os.cpu_count() or 1)


class PhotoOptions(Options, group="faces"):
  """How the faces of photos are found."""

  detector: str = option(
    "finds faces: own, dlib, yunet or a file",
    default="own",
    more="own travels with the package, as dlib does; yunet is there after"
    " `fawkes-jax weights fetch yunet`; files are of `fawkes-jax"
    " train_detector`",
  )
  min_face_pixels: float | None = option(
    "side of the smallest face to look for; halving it quadruples the search",
    MIN_FACE_PIXELS,
    default=None,
    shown="1/64 of the longer side, at least 16; dlib: 1/48, 24",
    more="It is in pixels of the photo; None stands for the detector's rule",
  )
  crop_size: int = option(
    "largest side of an aligned face, in pixels",
    *CROP_SIZE,
    default=192,
    rare=True,
  )
  max_pixels: int = option(
    "refuse photos with more pixels than this",
    rules.within(1, 2**31),
    default=250_000_000,
    rare=True,
  )
  threads: int = option(
    "number of threads that decode and encode photos",
    THREADS,
    default=DEFAULT_THREADS,
    shown="one per core, at most 8",
    rare=True,
  )


class FaceOptions(PhotoOptions, group="faces"):
  """How the faces of photos are found and embedded."""

  extractors: tuple[str, ...] = option(
    "recognisers to cloak against: names (fawkes-jax weights list) or files,"
    " separated by commas; free: all installed ones with a free licence",
    rules.several("names or files"),
    default=(
      "dlib_resnet",
      "student_mobilefacenet",
      "student_mobileface_v2",
      "student_se_mobilenet",
      "student_esp_mobilefacenet",
      "student_se_mobilefacenet",
    ),
    flag="surrogates",
  )
  batch_size: int | None = option(
    "number of faces that are cloaked at once",
    BATCH_SIZE,
    default=None,
    shown="8 on a CPU, or fewer for fewer files; elsewhere 256 per device, or"
    " as many as its memory holds",
    rare=True,
  )

  def faces_fingerprint(self) -> str:
    """A digest of all options that change which faces are found, and how.

    Returns:
      Twelve hexadecimal digits.
    """
    free = ("max_pixels", "threads", "batch_size")
    kept = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(FaceOptions)
      if field.name not in free
    }
    text = json.dumps(kept, default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
