r"""Measures what is seen of cloaks, with programs that are not ours.

    pip install flip-evaluator; apt-get install libjxl-devtools
    python tests/benchmarks/seen.py ORIGINALS CLOAKED [MORE ...] [--photos=50]

Photos are compared by their paths in the folders, without their suffixes; each
on the square around what was changed, where DSSIM counts, too. Prints for each
folder of cloaked photos the means of

- the change of a* and b* (CIE Lab), and of their means over 8 x 8 pixels;
- FLIP (NVIDIA's, 67 pixels a degree), 0..1;
- butteraugli's distance, its 3-norm, and its largest value;
- SSIMULACRA's error.

Of each, less is less to see. What is not installed is left out.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import tempfile

import numpy as np
import skimage.color
from PIL import Image

try:
  import flip_evaluator
except ImportError:
  flip_evaluator = None

BLOCK = 8
"""Of tints in blocks of so many pixels; finer ones are hardly seen."""

LEAST = 2
"""What differs by more grey levels was changed."""


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("originals", type=pathlib.Path)
  parser.add_argument("cloaked", type=pathlib.Path, nargs="+")
  parser.add_argument("--photos", type=int, default=50)
  arguments = parser.parse_args()
  originals = photos_of(arguments.originals)
  for folder in arguments.cloaked:
    cloaked = photos_of(folder)
    both = [key for key in originals if key in cloaked]
    rows = []
    for key in both[:: max(1, len(both) // arguments.photos)]:
      pair = changed_square(pixels(originals[key]), pixels(cloaked[key]))
      if pair is not None:
        rows.append(compared(*pair))
    print(f"{folder}: {len(rows)} photos")
    for name in rows[0] if rows else ():
      print(f"  {name:24s} {np.mean([row[name] for row in rows]):.4f}")


def photos_of(folder: pathlib.Path) -> dict[pathlib.Path, pathlib.Path]:
  """The photos in a folder by their paths without suffixes."""
  known = (".jpg", ".jpeg", ".png", ".webp")
  return {
    path.relative_to(folder).with_suffix(""): path
    for path in sorted(folder.rglob("*"))
    if path.suffix.lower() in known
  }


def pixels(path: pathlib.Path) -> np.ndarray:
  return np.asarray(Image.open(path).convert("RGB"))


def changed_square(
  original: np.ndarray, cloaked: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
  """The part of two photos in which they differ; None where they do not."""
  if original.shape != cloaked.shape:
    return None
  difference = np.abs(original.astype(int) - cloaked).max(axis=-1) > LEAST
  if not difference.any():
    return None
  rows, columns = (np.flatnonzero(difference.any(axis=i)) for i in (1, 0))
  part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
  return original[part], cloaked[part]


def compared(original: np.ndarray, cloaked: np.ndarray) -> dict[str, float]:
  """What is seen of the difference of two images, by measure."""
  tint = np.diff(
    [skimage.color.rgb2lab(image)[..., 1:] for image in (original, cloaked)],
    axis=0,
  )[0]
  blocks = [side // BLOCK for side in tint.shape[:2]]
  whole = tint[: blocks[0] * BLOCK, : blocks[1] * BLOCK]
  coarse = whole.reshape(blocks[0], BLOCK, blocks[1], BLOCK, 2).mean(
    axis=(1, 3)
  )
  found = {
    "a*, b*": np.abs(tint).mean(),
    f"a*, b* of {BLOCK} x {BLOCK}": np.abs(coarse).mean(),
  }
  if flip_evaluator is not None:
    images = [np.float32(image) / 255 for image in (original, cloaked)]
    found["FLIP"] = flip_evaluator.evaluate(*images, "LDR")[1]
  with tempfile.TemporaryDirectory() as folder:
    paths = [f"{folder}/{name}.png" for name in ("original", "cloaked")]
    for path, image in zip(paths, (original, cloaked), strict=True):
      Image.fromarray(image).save(path)
    if shutil.which("butteraugli_main"):
      said = _said("butteraugli_main", *paths)
      found["butteraugli, 3-norm"] = float(said[1])
      found["butteraugli, largest"] = float(said[0])
    if shutil.which("ssimulacra_main"):
      found["SSIMULACRA"] = float(_said("ssimulacra_main", *paths)[0])
  return found


def _said(*command: str) -> list[str]:
  """The last number of each line that a program prints."""
  output = subprocess.run(command, check=True, capture_output=True, text=True)
  return re.findall(r"([\d.]+)\s*$", output.stdout, re.MULTILINE)


if __name__ == "__main__":
  main()
