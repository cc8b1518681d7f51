"""What is foreseen of a file, compared with what becomes of it."""

import concurrent.futures
import io
import struct

import numpy as np
import pytest
import skimage.data
from PIL import Image

from fawkes_jax import types
from fawkes_jax.photos import codec, drafts, segments

LIMIT = 10**7
BOXES = [(30, 20, 170, 150), (0, 0, 64, 64), (100, 90, 256, 208)]


@pytest.fixture(scope="module")
def astronaut():
  return skimage.data.astronaut()[:208, 100:356]


def save(pixels, kind="JPEG", *, orientation=1, **options):
  exif = Image.Exif()
  exif[0x0112] = orientation
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, kind, exif=exif.tobytes(), **options)
  return buffer.getvalue()


def patches():
  rng = np.random.default_rng(0)
  return [
    types.Patch(
      left=left,
      top=top,
      change=rng.normal(0, 6, (height, width, 3)).astype(np.float32),
    )
    for left, top, width, height in ((40, 30, 90, 100), (100, 90, 77, 61))
  ]


def draft(data, largest_step=4):
  return drafts.Draft(
    codec.reopen(data, max_pixels=LIMIT),
    largest_step=largest_step,
    strip_location=False,
    strip_names=False,
    max_pixels=LIMIT,
  )


def decoded(data, boxes):
  pixels = codec.decode(data, max_pixels=LIMIT).pixels
  return [pixels[top:bottom, left:right] for left, top, right, bottom in boxes]


CASES = {
  **{f"4:{n}": {"subsampling": n, "quality": 80} for n in range(3)},
  "restart markers": {"restart_marker_blocks": 3},
  "progressive": {"progressive": True},
  "quality 30": {"quality": 30},
  "PNG": {"kind": "PNG"},
  "WebP": {"kind": "WEBP", "quality": 80},
  "lossless WebP": {"kind": "WEBP", "lossless": True},
}


@pytest.mark.parametrize("finer", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_what_is_foreseen_is_what_is_decoded(astronaut, case, finer):
  one = draft(save(astronaut, **CASES[case]))
  seen = one.preview(patches(), BOXES, finer=finer)
  data = one.encode(patches(), finer=finer)
  for real in (
    decoded(data, BOXES),
    drafts.read_back(data, BOXES, max_pixels=LIMIT),
  ):
    assert all(map(np.array_equal, seen, real))


@pytest.mark.parametrize("width", [256, 251])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_so_it_is_however_the_camera_was_held(astronaut, orientation, width):
  """Also where the picture cannot be turned by its coefficients."""
  one = draft(save(astronaut[:, :width], orientation=orientation))
  boxes = [(3, 5, 150, 190), (60, 0, 208, 208)]
  seen = one.preview(patches(), boxes)
  real = decoded(one.encode(patches()), boxes)
  assert all(map(np.array_equal, seen, real))


def in_separate_scans(pixels):
  """A JPEG that is not progressive, with a scan for each component."""
  planes = Image.fromarray(pixels).convert("YCbCr").split()
  files = [save(np.asarray(plane)) for plane in planes]
  headers = [segments.parse(data) for data in files]
  height, width = pixels.shape[:2]
  frame = struct.pack(">BHHB", 8, height, width, 3)
  frame += b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
  parts = [b"\xff\xd8"]
  for segment in headers[0].segments:
    is_frame = segment.marker == 0xC0
    kept = segments.Segment(0xC0, frame) if is_frame else segment
    parts.append(kept.to_bytes())
  for number, (data, header) in enumerate(zip(files, headers, strict=True)):
    scan = bytearray(data[header.scan_offset : -2])
    scan[5] = 1 + number
    parts.append(bytes(scan))
  return b"".join(parts) + b"\xff\xd9"


def with_decoy(data):
  """The same JPEG with its frame in a comment, and filling before markers."""
  header = segments.parse(data)
  [frame] = [s.to_bytes() for s in header.segments if s.marker == 0xC0]
  comment = segments.Segment(0xFE, frame).to_bytes()
  rest = data[2:].replace(frame, b"\xff\xff" + frame, 1)
  return b"\xff\xd8" + comment + rest


ODD_FILES = {
  "separate scans": in_separate_scans,
  "without its end": lambda pixels: save(pixels)[:-2],
  "filled": lambda pixels: with_decoy(save(pixels)),
  "something behind": lambda pixels: save(pixels) + b"text" * 30,
  "grey": lambda pixels: save(pixels[..., 0]),
  "PNG": lambda pixels: save(pixels, "PNG"),
}


@pytest.mark.parametrize("case", ODD_FILES)
def test_parts_of_a_photo_are_those_of_the_whole(astronaut, case):
  data = ODD_FILES[case](astronaut)
  boxes = [(3, 5, 60, 44), (100, 17, 256, 90)]
  photo = codec.reopen(data, max_pixels=LIMIT)
  parts = drafts.parts(photo, boxes, max_pixels=LIMIT)
  assert all(map(np.array_equal, parts, decoded(data, boxes)))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_parts_of_a_turned_photo_are_those_of_the_whole(
  astronaut, orientation, subsampling
):
  data = save(
    astronaut[:, :251], orientation=orientation, subsampling=subsampling
  )
  boxes = [(3, 5, 60, 44), (100, 17, 200, 90)]
  photo = codec.reopen(data, max_pixels=LIMIT)
  parts = drafts.parts(photo, boxes, max_pixels=LIMIT)
  assert all(map(np.array_equal, parts, decoded(data, boxes)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_photos(astronaut, kind):
  one = draft(save(astronaut[..., 0], kind))
  seen = one.preview(patches(), BOXES)
  real = decoded(one.encode(patches()), BOXES)
  assert all(map(np.array_equal, seen, real))


def test_a_photo_is_encoded_as_if_nothing_had_been_foreseen(astronaut):
  data = save(astronaut)
  one = draft(data)
  one.preview(patches(), BOXES, finer=2)
  one.preview([], BOXES)
  photo = codec.decode(data, max_pixels=LIMIT)
  assert one.encode(patches()) == codec.encode(photo, patches(), largest_step=4)
  # And once more: a draft is not used up.
  assert one.encode(patches()) == one.encode(patches())


def test_threads_do_not_disturb_each_other(astronaut):
  files = [
    save(
      np.roll(astronaut, 8 * i, axis=1), quality=60 + 5 * i, progressive=i == 3
    )
    for i in range(6)
  ]

  def encode(data):
    return draft(data).encode(patches())

  alone = [encode(data) for data in files]
  with concurrent.futures.ThreadPoolExecutor(6) as pool:
    for _ in range(3):
      assert list(pool.map(encode, files)) == alone


def test_a_photo_that_is_opened_again_is_the_same(astronaut):
  data = save(astronaut, orientation=6)
  first = codec.decode(data, max_pixels=LIMIT)
  again = codec.reopen(data, max_pixels=LIMIT)
  assert again.shape == first.shape == first.pixels.shape[:2]
  assert np.array_equal(again.pixels, first.pixels)
  assert (again.grey, again.how) == (first.grey, first.how)
  assert np.array_equal(again.jpeg_tables, first.jpeg_tables)
