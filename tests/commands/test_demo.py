"""A first look, without a photo of one's own."""

import re

import numpy as np
import pytest
from PIL import Image
from terminal import run


@pytest.mark.slow
def test_the_demo_cloaks_a_photo_and_says_what_it_measured(tmp_path):
  few = ("--steps=24", "--crop_size=96", "--batch_size=1")
  flags = (*few, "--surrogates=dlib_resnet", f"--output={tmp_path / 'demo'}")
  code, said, errors = run("demo", *flags)
  assert (code, errors) == (0, "")
  for name in ("photos/astronaut.jpg", "cloaked/astronaut.jpg"):
    assert str(tmp_path / "demo" / name) in said.replace("\n", "")
  before, after = (
    np.asarray(Image.open(tmp_path / "demo" / folder / "astronaut.jpg"))
    for folder in ("photos", "cloaked")
  )
  assert before.shape == after.shape
  assert (before != after).any()
  with Image.open(tmp_path / "demo" / "comparison.png") as sheet:
    assert sheet.size == (3 * 512, 512 + 24)
  # To networks that it was not cloaked against, she is less like herself.
  likeness = re.findall(r"(-?\d\.\d\d) (student_\w+)", said)
  assert len(likeness) == 2
  assert all(-1 <= float(cosine) < 0.999 for cosine, _ in likeness)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  code, _, errors = run("demo", f"--output={tmp_path / 'file'}")
  assert code == 2
  assert "--output must be a folder that can be written to" in errors
