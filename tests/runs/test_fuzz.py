"""Damaged files through the whole command: one row each, and nothing lost.

`FAWKES_JAX_FUZZ_RUN=10000 pytest tests/runs/test_fuzz.py` tries more of them,
and with `vips` on the PATH every result is opened by that second decoder, too.
"""

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, PngImagePlugin
from terminal import run

from fawkes_jax.archive import manifest

pytestmark = pytest.mark.slow

FILES = int(os.environ.get("FAWKES_JAX_FUZZ_RUN", "120"))
FLAGS = (
  *("--crop_size=64", "--batch_size=8", "--surrogates=dlib_resnet"),
  *("--min_face_pixels=50", "--steps=12", "--min_face_pixels=50"),
)
HEAD = 700
"""Most mutations are in the first bytes, where headers and metadata are."""


def saved(image, form, **options):
  buffer = io.BytesIO()
  image.save(buffer, form, **options)
  return buffer.getvalue()


def whole(astronaut):
  """Valid files of one face in all formats, by their suffixes."""
  face = Image.fromarray(astronaut).crop((150, 20, 310, 180))
  turned = face.transpose(Image.Transpose.ROTATE_90)  # As EXIF will say.
  exif = Image.Exif()
  exif[0x010E] = "a description"
  exif[0x0112] = 6
  exif[0x8769] = {0x9003: "2026:01:01 00:00:00", 0x927C: b"maker" * 40}
  exif[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
  text = PngImagePlugin.PngInfo()
  text.add_text("Title", "a face", zip=True)
  text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
  tiff = {"compression": "tiff_lzw", "tiffinfo": {270: "a description"}}
  return [
    ("jpg", saved(face, "jpeg", quality=90)),
    ("jpg", saved(turned, "jpeg", quality=80, progressive=True, exif=exif)),
    ("jpg", saved(face, "jpeg", subsampling=0, comment=b"a comment")),
    (
      "jpg",
      saved(turned.convert("L"), "jpeg", exif=exif, restart_marker_rows=1),
    ),
    ("png", saved(turned, "png", pnginfo=text, exif=exif)),
    ("png", saved(face.convert("RGBA"), "png")),
    ("png", saved(face.convert("P"), "png")),
    ("webp", saved(turned, "webp", quality=80, exif=exif, xmp=b"<x/>")),
    ("webp", saved(face, "webp", lossless=True)),
    ("tif", saved(face, "tiff", **tiff)),
    ("tif", saved(face, "tiff")),
    ("bmp", saved(face, "bmp")),
  ]


def mutated(data, rng):
  """A file with some of its bytes changed, gone, doubled or put elsewhere."""
  data = bytearray(data)
  for _ in range(rng.choice((1, 1, 2, 5))):
    end = min(len(data), HEAD) if rng.random() < 0.8 else len(data)
    place, length = rng.randrange(end), rng.choice((1, 2, 4, 16, 100))
    part = data[place : place + length]
    kind = rng.randrange(6)
    if kind == 0:
      data[place] = rng.randrange(256)
    elif kind == 1:
      data[place : place + 4] = rng.choice(
        (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"8BIM")
      )
    elif kind == 2:
      del data[place : place + length]
    elif kind == 3:
      data[place:place] = part
    elif kind == 4:
      data[place:place] = bytes(rng.randrange(256) for _ in range(length))
    else:
      del data[rng.randrange(len(data) // 2, len(data)) :]
  return bytes(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, astronaut):
  """Seeded mutations of all files, and the files as they are."""
  source = tmp_path_factory.mktemp("fuzz") / "in"
  source.mkdir()
  files, rng = whole(astronaut), random.Random(0)
  for number in range(FILES):
    suffix, data = files[number % len(files)]
    if number >= len(files):
      data = mutated(data, rng)
    (source / f"{number:05d}.{suffix}").write_bytes(data)
  return source


def digests(folder):
  return {
    path.name: hashlib.sha256(path.read_bytes()).hexdigest()
    for path in folder.iterdir()
  }


def test_damaged_files_end_in_one_row_each(folder, tmp_path):
  before = digests(folder)
  output = tmp_path / "out"
  code, _, errors = run(
    "cloak", f"--input={folder}", f"--output={output}", *FLAGS
  )
  assert code in (0, 1), errors
  assert digests(folder) == before
  lines = (output / manifest.NAME).read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert sorted(row["path"] for row in rows) == sorted(before)
  for row in rows:
    check(row, folder / row["path"], output / row["path"])
  intact = [row for row in rows if int(row["path"][:5]) < 12]
  assert {row["status"] for row in intact} == {"cloaked"}, intact
  assert run("verify", f"--output={output}")[0] in (0, 1)


def shown(path):
  """What Pillow shows of a file, and its format."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    with Image.open(path) as image:
      form, pixels = image.format, image.convert("RGB")
    with contextlib.suppress(OSError), Image.open(path) as image:
      # Damaged EXIF turns nothing.
      pixels = ImageOps.exif_transpose(image).convert("RGB")
    return np.asarray(pixels, np.int16), form


def check(row, source, result):
  """What a row says is what is there."""
  if row["status"] == "failed":
    assert row["reason"]
    # Not what a programming error says.
    assert "Error" not in row["reason"].split(":")[0], row
    assert not result.exists(), row
    return
  assert row["status"] in ("cloaked", "no_face", "copied"), row
  if row["status"] != "cloaked":
    assert result.read_bytes() == source.read_bytes()
    return
  after, other = shown(result)
  try:
    before, form = shown(source)
  except OSError:  # It may lack what no decoder needs, such as its end.
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
      before, form = shown(source)
  assert (after.shape, other) == (before.shape, form), row
  assert row["faces"], row
  assert np.abs(after - before).max() > 2, row
  if shutil.which("vips"):
    subprocess.run(
      ["vips", "avg", str(result)], check=True, capture_output=True
    )
