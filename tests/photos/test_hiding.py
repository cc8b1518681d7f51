"""No picture of a face without its cloak is left in a file, wherever it hid."""

import itertools
import os
import random
import re
import zlib

import hiding
import numpy as np
import pytest

from fawkes_jax import types
from fawkes_jax.photos import codec, pictures

FILES = int(os.environ.get("FAWKES_JAX_FUZZ", "300"))
"""How many files are tried; all kinds of places are about 200."""
ROUND = 6
CHANGE = types.Patch(left=8, top=8, change=np.full((16, 16, 3), 9, np.float32))
# Nothing but its name tells of what lies between the parts of these.
UNNAMED = {"tiff_gap", "tiff_trailing"}


def decode(data):
  return codec.decode(data, max_pixels=10**7)


def inflated(data):
  """A file, and all that its compressed streams hold."""
  parts = [data]
  for match in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", data):
    try:
      parts.append(zlib.decompressobj().decompress(data[match.start() :]))
    except zlib.error:
      continue
  return b"\x00\x00\x00".join(parts)


def slices(form):
  """Pieces from the middle of what was hidden, that are no accident."""
  places = range(len(form) // 3, len(form) - 20, max(1, len(form) // 9))
  pieces = [form[place : place + 20] for place in places]
  return [piece for piece in pieces if len(set(piece)) > 6]


def tries():
  """Seeded: names and files, and what is hidden in them."""
  photo = hiding.astronaut(64, (0, 200, 200, 400))
  shown = list(hiding.pictures().items())
  forms = [(f, hiding.binary_files) for f in hiding.BINARY.items()]
  forms += [(f, hiding.text_files) for f in hiding.TEXT.items()]
  rng = random.Random(0)
  while True:
    picture, data = rng.choice(shown)
    (form, write), files = rng.choice(forms)
    hidden = write(data)
    if len(hidden) < 30_000:
      found = list(files(photo, hidden))
      for name, file in rng.sample(found, ROUND):
        yield f"{name}, {picture} {form}", file, hidden


@pytest.mark.slow
def test_no_clean_picture_is_left_anywhere():
  left, unsaid = [], []
  for name, file, hidden in itertools.islice(tries(), FILES):
    lost = set()
    encoded = codec.encode(decode(file), [CHANGE], lost=lost)
    assert decode(encoded).pixels.shape == (64, 64, 3), name
    whole = inflated(encoded)
    if any(p in whole or p.hex().encode() in whole for p in slices(hidden)):
      left.append(name)
    if not lost and name.split(",")[0] not in UNNAMED:
      unsaid.append(name)
  assert not left, "the clean face is still there"
  assert not unsaid, "the row does not say what has gone"


@pytest.mark.parametrize("form", [*hiding.BINARY, *hiding.TEXT])
def test_every_picture_is_found_in_every_form(form):
  write = (hiding.BINARY | hiding.TEXT)[form]
  missed = [
    name
    for name, data in hiding.pictures().items()
    if not pictures.holds(write(data))
  ]
  assert missed == []


def innocent():
  rng = np.random.default_rng(0)
  curve = np.linspace(0, 1, 3000) ** 0.45
  yield "nothing", bytes(5000)
  yield "prose", b"Dear diary, today we walked along the river.\n" * 300
  yield "german", "Größe, Übermut und Verdruß; schöne Grüße. ".encode() * 90
  yield "wide text", ("a description of the photo, " * 90).encode("utf-16")
  yield "bytes", bytes(range(256)) * 20
  yield "counters", np.arange(3000, dtype="<u4").tobytes()
  yield "fractions", rng.normal(size=400).astype("<f4").tobytes()
  yield "curve", (255 * curve).astype("u1").tobytes()
  yield (
    "digests",
    b"".join(
      b"<li>xmp.did:%s</li>" % rng.bytes(16).hex().encode() for _ in range(200)
    ),
  )
  yield "few random bytes", rng.bytes(1000)
  yield "profile", hiding.ICC


@pytest.mark.parametrize(
  "block", [pytest.param(data, id=name) for name, data in innocent()]
)
def test_what_shows_nothing_is_kept(block):
  assert not pictures.holds(block)
  assert not pictures.holds(b"Make\x00\x01" + block)


def test_a_large_block_of_bytes_goes_as_it_may_be_a_picture():
  noise = np.random.default_rng(0).bytes(3000)
  assert pictures.holds(noise)
