"""What libraries write to standard error by themselves."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from fawkes_jax import types
from fawkes_jax.photos import codec, quiet

CHANGE = types.Patch(left=8, top=8, change=np.full((16, 16, 3), 30, "f4"))


def saved(kind, **options):
  rng = np.random.default_rng(0)
  image = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def cloaked(data):
  photo = codec.decode(data, max_pixels=10**6)
  return codec.decode(codec.encode(photo, [CHANGE]), max_pixels=10**6)


def test_libjpeg_says_nothing(capfd):
  """Of bytes that do not belong there; and of a missing end."""
  data = saved("JPEG")
  cloaked(data[:-2] + bytes(20) + data[-2:])
  cloaked(data[:-2])
  assert capfd.readouterr().err == ""


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_libtiff_says_nothing(capfd, compression):
  data = bytearray(saved("TIFF", compression=compression))
  data[400:420] = b"\xff\xd8\xff" * 6 + b"ab"
  with pytest.raises(types.PhotoError, match="decoder error"):
    cloaked(bytes(data))
  assert capfd.readouterr().err == ""


def test_what_others_say_is_not_lost(capfd):
  with quiet.quiet_natives():
    os.write(2, b"Corrupt JPEG data: 3 extraneous bytes\n")
    os.write(2, b'{"event": "failed"}\n')
    os.write(2, b"TIFFReadDirectory: Warning, Unknown field with tag 60000.\n")
  assert capfd.readouterr().err == '{"event": "failed"}\n'
