"""`fawkes-jax demo`: cloaks a photo that comes with the package."""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fawkes_jax import types
from fawkes_jax.commands import cloak, terminal
from fawkes_jax.faces import cloaker as cloaker_lib
from fawkes_jax.imaging import geometry
from fawkes_jax.options import CloakerOptions, CloakOptions, DemoOptions
from fawkes_jax.weights import builtin

PHOTO = "astronaut.jpg"
"""Eileen Collins, NASA 1993, in the public domain; from scikit-image."""

UNSEEN = ("student_ghostfacenet", "student_se_mobilefacenet")
"""Recognisers of the package that cloaks are not made against by default."""

_GAIN = 8
_BAR = 24


def run(options: DemoOptions) -> int:
  """Cloaks the photo and says what this protects against.

  Args:
    options: the options of the run.

  Returns:
    0, or 1 if the photo could not be protected.

  Raises:
    FawkesError: the folder cannot be written to, or the run not begin.
  """
  source, target = options.output / "photos", options.output / "cloaked"
  try:
    source.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(builtin.checkpoint(PHOTO), source / PHOTO)
  except OSError as error:
    raise types.FawkesError(
      f"--output must be a folder that can be written to, got {options.output}:"
      f" {error.strerror}"
    ) from error
  same = {
    field.name: getattr(options, field.name)
    for field in dataclasses.fields(CloakerOptions)
  }
  code = cloak.run(CloakOptions(input=source, output=target, **same))
  if code:
    return code
  before, after = _pixels(source / PHOTO), _pixels(target / PHOTO)
  sheet = options.output / "comparison.png"
  _compare(before, after).save(sheet)
  console = terminal.console()
  console.print(f"  before: {source / PHOTO}")
  console.print(f"  after: {target / PHOTO}")
  console.print(f"  both, and the change times {_GAIN}: {sheet}")
  console.print(
    "  how much the cloaked face still looks like the original, to recognisers"
    " that the cloak was not made against (1: the same person, 0: a stranger):"
  )
  unseen = [name for name in UNSEEN if name not in options.extractors]
  for name, cosine in _likeness(before, after, unseen).items():
    console.print(f"    {cosine:5.2f} {name}")
  console.print(
    "  a stronger recogniser may still know the person: see docs/protection.md,"
    " and measure with `fawkes-jax evaluate`"
  )
  return 0


def _pixels(path: Path) -> np.ndarray:
  with Image.open(path) as image:
    return np.asarray(image.convert("RGB"))


def _likeness(
  before: np.ndarray, after: np.ndarray, unseen: Sequence[str]
) -> Mapping[str, float]:
  """The cosine between the embeddings of a face in two versions of a photo."""
  known = cloaker_lib.Cloaker(extractors=unseen, photos=1)
  [[face, *_]] = known.recognition.finder.find([before])
  crops = [geometry.extract(p, face.alignment) for p in (before, after)]
  embeddings = known.normalised(
    known.embed([np.rint(crop).astype(np.uint8) for crop in crops])
  )
  return {name: float(e[0] @ e[1]) for name, e in embeddings.items()}


def _compare(before: np.ndarray, after: np.ndarray) -> Image.Image:
  """Both photos and what was changed, side by side."""
  change = after.astype(np.float32) - before
  amplified = np.clip(128 + _GAIN * change, 0, 255).astype(np.uint8)
  height, width = before.shape[:2]
  sheet = Image.new("RGB", (3 * width, height + _BAR), "white")
  draw = ImageDraw.Draw(sheet)
  for i, (title, pixels) in enumerate(
    (
      ("before", before),
      ("after", after),
      (f"the change, times {_GAIN}", amplified),
    )
  ):
    sheet.paste(Image.fromarray(pixels), (i * width, _BAR))
    draw.text((i * width + 8, 6), title, fill="black")
  return sheet
