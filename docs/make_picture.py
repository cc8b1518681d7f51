"""Draws docs/astronaut.png: a photo, its cloaks and what was changed.

The photo is `skimage.data.astronaut()`, in the public domain. Usage, after
`pip install -e .[test]`:

    python docs/make_picture.py
"""

import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageFont

HERE = pathlib.Path(__file__).parent
GAIN = 8
# The head and shoulders: left, top, right, bottom.
WINDOW = (100, 0, 350, 250)


def main() -> None:
  with tempfile.TemporaryDirectory() as folder:
    work = pathlib.Path(folder)
    source = work / "in"
    source.mkdir()
    original = Image.fromarray(skimage.data.astronaut())
    original.save(source / "astronaut.png")
    columns = [("original", original.crop(WINDOW), None)]
    for mode in ("low", "mid", "high"):
      command = [sys.executable, "-m", "fawkes_jax", "cloak"]
      command += [f"--input={source}", f"--output={work / mode}"]
      subprocess.run([*command, f"--mode={mode}"], check=True)
      with Image.open(work / mode / "astronaut.png") as cloaked:
        pixels = np.asarray(cloaked, np.float32)
      change = pixels - np.asarray(original, np.float32)
      amplified = np.clip(128 + GAIN * change, 0, 255).astype(np.uint8)
      columns.append(
        (
          mode,
          Image.fromarray(pixels.astype(np.uint8)).crop(WINDOW),
          Image.fromarray(amplified).crop(WINDOW),
        )
      )
  size, bar = WINDOW[2] - WINDOW[0], 24
  sheet = Image.new("RGB", (4 * size, 2 * (size + bar)), "white")
  draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
  for i, (name, photo, change) in enumerate(columns):
    sheet.paste(photo, (i * size, bar))
    draw.text((i * size + 8, 3), name, fill="black", font=font)
    if change is not None:
      sheet.paste(change, (i * size, size + 2 * bar))
      text = f"change, times {GAIN}"
      draw.text((i * size + 8, size + bar + 3), text, fill="black", font=font)
  sheet.save(HERE / "astronaut.png", optimize=True)


if __name__ == "__main__":
  main()
