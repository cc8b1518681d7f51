import concurrent.futures
import io
import struct
import subprocess
import sys
import zlib

import jpeglib
import numpy as np
import pytest
import scipy.fft
import skimage.data
from PIL import Image, ImageCms, ImageOps

from fawkes_jax import types
from fawkes_jax.photos import blocks, codec, coefficients, segments

LIMIT = 10**8
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GPS_MARK = struct.pack("<6I", 52, 1, 31, 1, 417, 100)
SUBSAMPLINGS = ["4:4:4", "4:2:2", "4:2:0", "4:4:0"]


@pytest.fixture(scope="module")
def astronaut():
  return np.ascontiguousarray(skimage.data.astronaut()[:256, 100:420])


def save(pixels, kind="JPEG", **options):
  image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def save_jpeg(pixels, *, subsampling="4:2:0", **options):
  if subsampling == "4:4:0":  # Pillow cannot: turn a 4:2:2 by its coefficients
    turned = np.ascontiguousarray(pixels.swapaxes(0, 1))
    options["exif"] = exif(5)
    data = save_jpeg(turned, subsampling="4:2:2", **options)
    photo = decode(data)
    return codec.encode(photo, [patch(0, 0, np.full((1, 1, 3), 1e-3))])
  return save(
    pixels, quality=options.pop("quality", 85), subsampling=subsampling,
    **options,
  )  # fmt: skip


def decode(data):
  return codec.decode(data, max_pixels=LIMIT)


def patch(left, top, change):
  return types.Patch(left=left, top=top, change=np.asarray(change, np.float32))


def smooth_change(height, width, amplitude=12.0, seed=0):
  """What a cloak looks like to a JPEG: not only the highest frequencies."""
  coarse = np.random.default_rng(seed).normal(
    0, amplitude, (-(-height // 4), -(-width // 4), 3)
  )
  return np.kron(coarse, np.ones((4, 4, 1)))[:height, :width].astype(np.float32)


def exif(orientation=1, *, gps=False, thumbnail=b""):
  """A little-endian EXIF by hand, as cameras lay it out."""
  entries = [
    struct.pack("<HHII", 0x010F, 2, 4, 0x00636241),
    struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0),
  ]
  end = 8 + 2 + 12 * (3 if gps else 2) + 4
  tail = b""
  if gps:
    entries.append(struct.pack("<HHII", 0x8825, 4, 1, end))
    tail += struct.pack("<H", 1)
    tail += struct.pack("<HHII", 2, 5, 3, end + 18) + bytes(4) + GPS_MARK
  following = 0
  if thumbnail:
    following = end + len(tail)
    start = following + 2 + 24 + 4
    tail += struct.pack("<H", 2)
    tail += struct.pack("<HHII", 0x0201, 4, 1, start)
    tail += struct.pack("<HHII", 0x0202, 4, 1, len(thumbnail))
    tail += bytes(4) + thumbnail
  head = b"II*\x00" + struct.pack("<IH", 8, len(entries))
  return (
    b"Exif\x00\x00"
    + head
    + b"".join(entries)
    + struct.pack("<I", following)
    + tail
  )


def read_coefficients(data, tmp_path):
  path = tmp_path / "coefficients.jpg"
  path.write_bytes(data)
  image = jpeglib.read_dct(str(path))
  image.load()
  planes = [image.Y] if image.Cb is None else [image.Y, image.Cb, image.Cr]
  return image, planes


# Every format there and back.


@pytest.fixture(scope="module")
def encoded_formats(astronaut):
  return dict(formats(astronaut))


def formats(pixels):
  rgba = np.dstack([pixels, pixels[..., :1]])
  image = Image.fromarray(pixels)
  options = {"exif": exif(), "icc_profile": ICC}
  yield "jpeg", save(pixels, quality=90, **options)
  yield "jpeg_grey", save(pixels[..., 0], exif=exif())
  yield "png", save(pixels, "PNG", **options)
  yield "png_grey", save(pixels[..., 0], "PNG", exif=exif())
  yield "png_rgba", save(rgba, "PNG", **options)
  yield "png_la", save(rgba[..., 2:], "PNG", exif=exif())
  yield "webp", save(pixels, "WEBP", quality=80, **options)
  yield "webp_lossless", save(rgba, "WEBP", lossless=True, **options)
  yield "tiff", save(pixels, "TIFF", icc_profile=ICC, dpi=(300, 300))
  yield "tiff_lzw", save(rgba, "TIFF", compression="tiff_lzw")
  yield "tiff_grey", save(pixels[..., 0], "TIFF", compression="packbits")
  yield "tiff_jpeg", save(pixels, "TIFF", compression="jpeg")
  yield "bmp", save(pixels, "BMP", dpi=(72, 72))
  yield "bmp_grey", save(pixels[..., 0], "BMP")
  yield "png_palette", save(image.quantize(64), "PNG", icc_profile=ICC)


LOSSY = {"webp", "tiff_jpeg", "jpeg", "jpeg_grey"}
FORMATS = [name for name, _ in formats(np.zeros((16, 16, 3), np.uint8))]


@pytest.mark.parametrize("name", FORMATS)
def test_formats_there_and_back(encoded_formats, name):
  data = encoded_formats[name]
  photo = decode(data)
  before = Image.open(io.BytesIO(data))
  assert np.array_equal(photo.pixels, np.asarray(before.convert("RGB")))
  change = smooth_change(64, 80)
  encoded = codec.encode(photo, [patch(32, 48, change)])
  again = decode(encoded)
  after = Image.open(io.BytesIO(encoded))
  assert after.format == before.format
  assert after.size == before.size
  assert again.grey == photo.grey
  if name != "png_palette":
    assert after.mode == before.mode
  assert after.info.get("icc_profile") == before.info.get("icc_profile")
  assert after.info.get("compression") == before.info.get("compression")
  assert after.info.get("dpi") == before.info.get("dpi")
  assert dict(after.getexif()).get(271) == dict(before.getexif()).get(271)
  assert (again.alpha is None) == (photo.alpha is None)
  if photo.alpha is not None:
    assert np.array_equal(again.alpha, photo.alpha)
  if photo.grey:
    change = (change @ [0.299, 0.587, 0.114])[..., np.newaxis]
  wanted = photo.pixels.astype(np.float32)
  wanted[48:112, 32:112] += change
  wanted = np.clip(np.rint(wanted), 0, 255)
  error = np.abs(again.pixels - wanted)
  if name in LOSSY:
    assert error.mean() < 2.5
  else:
    assert error.max() == 0


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("patches", [0, 1])
def test_no_change_gives_identical_pixels(encoded_formats, name, patches):
  photo = decode(encoded_formats[name])
  zero = [patch(8, 8, np.zeros((16, 16, 3)))] * patches
  again = decode(codec.encode(photo, zero))
  assert np.array_equal(again.pixels, photo.pixels)


def test_overlapping_patches_add_up_before_rounding(astronaut):
  photo = decode(save(astronaut // 2 + 40, "PNG"))
  third = np.full((20, 20, 3), 1 / 3)
  patches = [patch(10, 10, third)] * 3 + [patch(25, 25, 2 * third)]
  again = decode(codec.encode(photo, patches))
  difference = again.pixels.astype(int) - photo.pixels
  assert (difference[10:25, 10:25] == 1).all()
  assert (difference[25:30, 25:30] == 2).all()
  assert (difference[30:45, 30:45] == 1).all()
  assert difference.sum() == 3 * (400 - 25 + 25 * 2 + 400 - 25)


def test_a_patch_beyond_the_border_is_refused(astronaut):
  photo = decode(save(astronaut, "PNG"))
  with pytest.raises(ValueError, match="reaches out"):
    codec.encode(photo, [patch(310, 0, np.ones((16, 16, 3)))])


def test_values_are_clipped(astronaut):
  photo = decode(save(astronaut, "PNG"))
  bright = np.full((16, 16, 3), 300.0)
  again = decode(codec.encode(photo, [patch(0, 0, bright)]))
  assert (again.pixels[:16, :16] == 255).all()


def test_decode_is_deterministic_and_leaves_the_source(astronaut):
  data = save_jpeg(astronaut)
  one, other = decode(data), decode(data)
  assert one.source == data
  assert np.array_equal(one.pixels, other.pixels)
  change = [patch(3, 5, smooth_change(60, 60))]
  assert codec.encode(one, change) == codec.encode(other, change)


# JPEG: coefficients.


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_jpeg_coefficients(astronaut, tmp_path, subsampling, progressive):
  pixels = astronaut[:251, :309]  # no whole number of blocks
  data = save_jpeg(
    pixels, subsampling=subsampling, progressive=progressive, exif=exif()
  )
  photo = decode(data)
  assert photo.subsampling == subsampling
  left, top, height, width = 101, 37, 77, 66
  change = smooth_change(height, width)
  encoded = codec.encode(photo, [patch(left, top, change)])
  assert decode(encoded).subsampling == subsampling
  old_image, old = read_coefficients(data, tmp_path)
  new_image, new = read_coefficients(encoded, tmp_path)
  assert np.array_equal(
    photo.jpeg_tables, old_image.qt[[0, old_image.quant_tbl_no[1]]]
  )
  assert np.array_equal(decode(encoded).jpeg_tables, photo.jpeg_tables)
  assert new_image.progressive_mode == progressive
  whole = np.zeros((256 + 16, 312 + 16, 3))
  whole[top : top + height, left : left + width] = change
  red, green, blue = np.moveaxis(whole, 2, 0)
  components = [
    0.299 * red + 0.587 * green + 0.114 * blue,
    -0.168735892 * red - 0.331264108 * green + 0.5 * blue,
    0.5 * red - 0.418687589 * green - 0.081312411 * blue,
  ]
  factors = old_image.samp_factor
  for i, component in enumerate(components):
    rows, columns = factors[0] // factors[i]
    touched = 0
    for y in range(old[i].shape[0]):
      for x in range(old[i].shape[1]):
        block = component[8 * rows * y :, 8 * columns * x :]
        block = block[: 8 * rows, : 8 * columns]
        block = block.reshape(8, rows, 8, columns).mean(axis=(1, 3))
        steps = scipy.fft.dctn(block, norm="ortho")
        steps /= old_image.get_component_qt(i)
        # A tie may fall to either side.
        assert np.abs(new[i][y, x] - old[i][y, x] - steps).max() <= 0.5 + 1e-6
        touched += bool(block.any())
        if not block.any():
          assert np.array_equal(new[i][y, x], old[i][y, x])
    assert 0 < touched < old[i].shape[0] * old[i].shape[1] / 3


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_jpeg_pixels_outside(astronaut, subsampling):
  photo = decode(save_jpeg(astronaut, subsampling=subsampling))
  left, top, right, bottom = 96, 64, 160, 128  # whole coding units
  change = smooth_change(bottom - top, right - left, 20.0)
  again = decode(codec.encode(photo, [patch(left, top, change)]))
  rows = 1 if subsampling in ("4:2:0", "4:4:0") else 0
  columns = 1 if subsampling in ("4:2:0", "4:2:2") else 0
  inside = np.zeros(photo.pixels.shape[:2], bool)
  inside[top - rows : bottom + rows, left - columns : right + columns] = True
  different = (again.pixels != photo.pixels).any(axis=2)
  assert not different[~inside].any()
  assert different[inside].mean() > 0.9
  borders = different.copy()
  borders[top:bottom, left:right] = False
  assert borders.any() == bool(rows or columns)  # the margin is tight


def test_jpeg_at_the_photos_border(astronaut):
  photo = decode(save_jpeg(astronaut[:250, :310], quality=95))
  change = np.full((50, 60, 3), 16.0)
  patches = [patch(250, 200, change), patch(0, 0, change)]
  again = decode(codec.encode(photo, patches))
  middle = (photo.pixels > 30) & (photo.pixels < 220)
  difference = again.pixels.astype(int) - photo.pixels
  for part in (np.s_[202:, 252:], np.s_[:48, :58]):
    assert difference[part][middle[part]].mean() == pytest.approx(16, abs=0.5)


def test_overlapping_patches_in_a_jpeg(astronaut):
  photo = decode(save_jpeg(astronaut))
  one, other = smooth_change(40, 40, seed=1), smooth_change(50, 30, seed=2)
  both = np.zeros((60, 60, 3), np.float32)
  both[:40, :40] += one
  both[10:60, 20:50] += other
  apart = codec.encode(photo, [patch(30, 30, one), patch(50, 40, other)])
  assert apart == codec.encode(photo, [patch(30, 30, both)])


def test_extreme_changes_stay_valid(astronaut):
  data = save_jpeg(astronaut, quality=100, subsampling="4:4:4")
  change = np.random.default_rng(0).choice([-255.0, 255.0], (64, 64, 3))
  change[:16] = 255
  encoded = codec.encode(decode(data), [patch(0, 0, change)] * 4)
  assert decode(encoded).pixels.shape == astronaut.shape


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("orientation", [1, 6])
def test_finer_steps(astronaut, orientation, grey):
  pixels = np.ascontiguousarray(astronaut[..., 0]) if grey else astronaut
  photo = decode(save_jpeg(pixels, quality=60, exif=exif(orientation)))
  change = smooth_change(64, 64, 3.0)
  if grey:
    change = np.repeat(change[..., :1], 3, axis=2)
  coarse, fine = (
    decode(codec.encode(photo, [patch(64, 96, change)], largest_step=step))
    for step in (0, 4)
  )
  assert np.array_equal(coarse.jpeg_tables, photo.jpeg_tables)
  # Black's brightness would be below what a file can hold in steps of 1.
  assert photo.jpeg_tables[:, 0, 0].tolist() == [13, 13 if grey else 14]
  assert fine.jpeg_tables[0, 0, 0] == 13
  assert np.delete(fine.jpeg_tables[0], 0).max() <= 4
  assert not (photo.jpeg_tables % fine.jpeg_tables).any()
  inside = np.s_[96 + 2 : 160 - 2, 64 + 2 : 128 - 2]

  def lost(again):
    difference = again.pixels.astype(float) - photo.pixels - change_in(photo)
    return np.abs(difference[inside]).mean()

  def change_in(photo):
    whole = np.zeros(photo.pixels.shape)
    whole[96:160, 64:128] = change
    return whole

  outside = np.ones(photo.pixels.shape[:2], bool)
  outside[96 - 1 : 160 + 1, 64 - 1 : 128 + 1] = False
  # After a transposition decoders may round otherwise, see `codec.encode`.
  moved = np.abs(fine.pixels.astype(int) - photo.pixels)[outside]
  assert moved.max() <= (0 if orientation == 1 else 3)
  assert np.abs(fine.pixels.astype(int) - coarse.pixels)[outside].max() == 0
  assert lost(fine) < 0.7 * lost(coarse)


def test_finer_steps_stay_valid(astronaut):
  hard = np.where(np.indices((64, 64)).sum(0) % 2, 255, 0).astype(np.uint8)
  data = save(np.dstack([hard] * 3), qtables=[[255] * 64] * 2, subsampling=0)
  photo = decode(data)
  change = np.full((8, 8, 3), 9.0)
  again = decode(codec.encode(photo, [patch(0, 0, change)], largest_step=1))
  assert np.array_equal(again.pixels[8:], photo.pixels[8:])


@pytest.mark.parametrize(
  ("quality", "most"),
  [(75, 1.5), (85, 1.37), (90, 1.23), (95, 1.12), (97, 1.06)],
)
def test_finer_steps_grow(quality, most):
  """1.47, 1.34, 1.20, 1.09 and 1.03 measured."""
  data = save_jpeg(skimage.data.astronaut(), quality=quality)
  change = smooth_change(128, 128, 4.0)
  finer = codec.encode(decode(data), [patch(160, 60, change)], largest_step=4)
  assert 1 < len(finer) / len(data) < most


@pytest.mark.parametrize("quality", [75, 95])
def test_jpegs_grow_little(astronaut, quality):
  data = save_jpeg(astronaut, quality=quality)
  change = smooth_change(128, 128, 4.0)
  encoded = codec.encode(decode(data), [patch(80, 20, change)])
  assert 0.9 < len(encoded) / len(data) < 1.15


def test_restart_markers_and_wide_tables(astronaut):
  data = save(
    astronaut, qtables=[[17] * 64, [255] * 64], subsampling=0,
    restart_marker_rows=1,
  )  # fmt: skip
  assert b"\xff\xd0" in data
  photo = decode(data)
  assert photo.jpeg_tables.tolist() == np.stack(
    [np.full((8, 8), 17), np.full((8, 8), 255)]
  ).tolist()  # fmt: skip
  again = decode(codec.encode(photo, [patch(0, 0, np.full((8, 8, 3), 60.0))]))
  assert np.array_equal(again.pixels[16:], photo.pixels[16:])
  assert np.array_equal(again.jpeg_tables, photo.jpeg_tables)


UNUSUAL = [
  ((2, 2), (1, 2), (1, 2)),
  ((2, 2), (2, 1), (2, 1)),
  ((1, 2), (1, 2), (1, 2)),
  ((1, 1), (2, 2), (2, 2)),
  ((2, 2), (1, 1), (2, 1)),
  ((1, 3), (1, 1), (1, 1)),
  ((4, 1), (1, 1), (1, 1)),
]


@pytest.mark.parametrize(
  ("sampling", "orientation"), [(s, 1) for s in UNUSUAL] + [(UNUSUAL[0], 6)]
)
def test_unusual_sampling_keeps_all_other_pixels(
  astronaut, sampling, orientation
):
  pixels = astronaut[:192, :192]
  ycc = np.asarray(Image.fromarray(pixels).convert("YCbCr")).astype(float)
  rows, columns = (max(s) for s in zip(*sampling, strict=True))
  table = np.full((8, 8), 6, np.uint16)
  planes = [
    blocks.quantise(blocks.average(plane, rows // v, columns // h), table)
    for plane, (v, h) in zip(
      np.moveaxis(ycc - 128, 2, 0), sampling, strict=True
    )
  ]
  encoded = blocks.Coefficients(
    height=192,
    width=192,
    planes=planes,
    tables=[table] * 3,
    sampling=list(sampling),
  )
  jfif = segments.Segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
  data = segments.replace_metadata(
    coefficients.write(encoded, progressive=False),
    [jfif, segments.Segment(0xE1, exif(orientation))],
    (1, 2, 3),
  )
  photo = decode(data)
  encoded = codec.encode(photo, [patch(48, 48, np.full((32, 48, 3), 30.0))])
  assert segments.parse(encoded).sampling == sampling
  moved = decode(encoded).pixels.astype(int) - photo.pixels
  middle = (photo.pixels > 40) & (photo.pixels < 215)
  part = np.s_[52:76, 52:92]
  assert moved[part][middle[part]].mean() == pytest.approx(30, abs=0.5)
  moved[48 - 34 : 80 + 34, 48 - 34 : 96 + 34] = 0
  assert not moved.any()


def test_rgb_jpegs_are_encoded_again(astronaut):
  data = save(astronaut, keep_rgb=True, quality=92)
  photo = decode(data)
  again = decode(codec.encode(photo, [patch(0, 0, np.ones((8, 8, 3)))]))
  assert np.abs(again.pixels.astype(int) - photo.pixels).mean() < 2
  assert np.array_equal(again.jpeg_tables, photo.jpeg_tables)
  finer = decode(
    codec.encode(photo, [patch(0, 0, np.ones((8, 8, 3)))], largest_step=2)
  )
  assert finer.jpeg_tables.max() == 2


# Orientations.


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientations(astronaut, kind, orientation):
  options = {
    "JPEG": {"quality": 90, "subsampling": "4:2:2"},
    "WEBP": {"lossless": True},
  }.get(kind, {})
  if kind == "TIFF":
    options["tiffinfo"] = {274: orientation}
  else:
    options["exif"] = exif(orientation)
  data = save(astronaut, kind, **options)
  photo = decode(data)
  upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
  assert np.array_equal(photo.pixels, np.asarray(upright))
  change = np.zeros((48, 64, 3), np.float32)
  change[:32, :32] = 40  # no symmetry
  encoded = codec.encode(photo, [patch(16, 32, change)])
  after = Image.open(io.BytesIO(encoded))
  assert after.getexif().get(274, 1) == 1
  after = np.asarray(after.convert("RGB")).astype(int)
  wanted = photo.pixels.astype(np.float32)
  wanted[32:80, 16:80] += change
  error = np.abs(after - np.clip(wanted, 0, 255))
  if kind == "JPEG":
    assert decode(encoded).subsampling == (
      "4:2:2" if orientation < 5 else "4:4:0"
    )
    # Coefficients are exact, decoders round upsampled chroma by place.
    assert np.abs(after - photo.pixels)[96:].max() <= 3
    assert np.median(error) <= 1
  else:
    assert error.max() == 0


@pytest.mark.parametrize("subsampling", [*SUBSAMPLINGS, "grey"])
@pytest.mark.parametrize("size", [(251, 309), (256, 309), (251, 320)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_odd_sizes_keep_all_other_pixels(
  astronaut, orientation, size, subsampling
):
  """Phones' portraits: an axis that cannot be flipped by its coefficients."""
  pixels = astronaut[: size[0], : size[1]]
  if subsampling == "grey":
    options = {}
    pixels = np.ascontiguousarray(pixels[..., 0])
  else:
    options = {"subsampling": subsampling}
  if subsampling == "4:4:0":
    data = save_jpeg(pixels, quality=90, **options)
    data = segments.replace_metadata(
      data,
      [segments.Segment(0xE1, exif(orientation))],
      segments.parse(data).ids,
    )
  else:
    data = save(pixels, quality=90, exif=exif(orientation), **options)
  photo = decode(data)
  change = np.zeros((48, 64, 3), np.float32)
  change[:32, :32] = 40  # no symmetry
  encoded = codec.encode(photo, [patch(16, 32, change)])
  again = decode(encoded)
  assert Image.open(io.BytesIO(encoded)).getexif()[274] in (1, orientation)
  assert len(encoded) < 1.1 * len(data)
  moved = again.pixels.astype(int) - photo.pixels
  inside = np.zeros(photo.pixels.shape[:2], bool)
  inside[32 - 18 : 64 + 18, : 48 + 18] = True
  turned = Image.open(io.BytesIO(encoded)).getexif()[274] != orientation
  # After a transposition decoders may round otherwise, see `codec.encode`.
  assert np.abs(moved[~inside]).max() <= (4 if turned else 0)
  middle = (photo.pixels > 45) & (photo.pixels < 210)
  part = np.s_[34:62, 18:46]
  assert moved[part][middle[part]].mean() == pytest.approx(40, abs=2)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("restarts", [0, 1])
def test_only_the_end_is_missing(astronaut, progressive, restarts):
  """FF D9 is all that viewers do without; a byte more is a truncated file."""
  data = save_jpeg(
    astronaut, progressive=progressive, restart_marker_rows=restarts
  )
  whole = decode(data)
  change = [patch(16, 32, np.full((48, 64, 3), 40.0))]
  for ending in (data[:-1], data[:-2], data[:-2] + bytes(50)):
    photo = decode(ending)
    assert np.array_equal(photo.pixels, whole.pixels)
    assert codec.encode(photo, []) == ending
    assert codec.encode(photo, change) == codec.encode(whole, change)
  for missing in (3, 4, 10, 100, len(data) // 2):
    with pytest.raises(types.PhotoError, match="truncated"):
      decode(data[:-missing])


# Metadata.


def test_location_stays_or_goes(astronaut):
  xmp = b"<x:xmpmeta><exif:GPSLatitude>52,31N</exif:GPSLatitude></x:xmpmeta>"
  change = [patch(0, 0, np.full((8, 8, 3), 20.0))]
  options = {"exif": exif(gps=True), "xmp": xmp}
  for kind in ("JPEG", "WEBP", "PNG", "TIFF"):
    if kind == "TIFF":
      data = save(astronaut, kind, exif=tiff_exif(), compression="raw")
    elif kind == "PNG":
      data = png_with_xmp(save(astronaut, kind, exif=exif(gps=True)), xmp)
    else:
      data = save(astronaut, kind, **options)
    photo = decode(data)
    for patches in (change, []):
      kept = codec.encode(photo, patches)
      stripped = codec.encode(photo, patches, strip_location=True)
      after = Image.open(io.BytesIO(stripped))
      assert dict(after.getexif()).get(0x8825) is None
      assert after.getexif()[271] == "Abc"
      if kind != "TIFF":
        assert Image.open(io.BytesIO(kept)).getexif().get_ifd(0x8825)
        assert b"GPSLatitude" in kept
        assert GPS_MARK in kept
      elif patches:
        gps = Image.open(io.BytesIO(kept)).getexif().get_ifd(0x8825)
        assert gps == {1: "N", 2: (52.0, 31.0, 4.17)}
      assert b"GPSLatitude" not in stripped
      assert GPS_MARK not in stripped


def tiff_exif():
  tags = Image.Exif()
  tags[271] = "Abc"
  tags.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 4.17)})
  return tags.tobytes()


def png_with_xmp(data, xmp):
  payload = b"XML:com.adobe.xmp" + bytes(5) + xmp
  return data[:33] + chunk(b"iTXt", payload) + data[33:]


def chunk(name, payload):
  check = struct.pack(">I", zlib.crc32(name + payload))
  return struct.pack(">I", len(payload)) + name + payload + check


def test_jpeg_segments_are_carried_over_without_previews(astronaut):
  thumbnail = save(astronaut[:64, :64])
  resources = b"".join(
    b"8BIM" + struct.pack(">HHI", number, 0, len(value)) + value
    for number, value in ((0x0404, b"IPTC"), (0x040C, bytes(28) + thumbnail))
  )
  extra = b"".join(
    segments.Segment(marker, payload).to_bytes()
    for marker, payload in (
      (0xED, b"Photoshop 3.0\x00" + resources),
      (0xE2, b"MPF\x00" + bytes(20)),
      (0xE5, b"Unknown" + bytes(10)),
      (0xE5, b"Preview" + thumbnail),
    )
  )
  xmp = (
    b'<x:xmpmeta tiff:Orientation="6"><xmp:Thumbnails>/9j/4AAQ'
    b"</xmp:Thumbnails><dc:creator>A</dc:creator></x:xmpmeta>"
  )
  data = save(
    astronaut, exif=exif(6, thumbnail=thumbnail), icc_profile=ICC,
    comment=b"a comment", dpi=(240, 240), xmp=xmp,
  )  # fmt: skip
  data = data[:2] + extra + data[2:] + b"trailing picture" + thumbnail
  photo = decode(data)
  encoded = codec.encode(photo, [patch(8, 8, np.full((16, 16, 3), 20.0))])
  after = Image.open(io.BytesIO(encoded))
  assert after.info["icc_profile"] == ICC
  assert after.info["comment"] == b"a comment"
  assert after.info["dpi"] == (240, 240)
  assert after.getexif()[274] == 1
  assert after.getexif()[271] == "Abc"
  assert b"dc:creator" in after.info["xmp"]
  assert b'tiff:Orientation="1"' in after.info["xmp"]
  assert b"/9j/" not in encoded
  assert b"Unknown" in encoded
  assert b"IPTC" in encoded
  for gone in (b"Preview", b"MPF", b"trailing picture"):
    assert gone not in encoded
  assert encoded.count(b"\xff\xd8\xff") == 1


def test_a_damaged_exif_costs_nothing(astronaut):
  broken = b"Exif\x00\x00II*\x00" + struct.pack("<I", 10**6)
  data = save(astronaut, exif=broken)
  photo = decode(data)
  change = [patch(0, 0, np.full((8, 8, 3), 20.0))]
  assert broken in codec.encode(photo, change)
  assert broken not in codec.encode(photo, change, strip_location=True)


def test_png_keeps_its_chunks(astronaut):
  data = save(astronaut, "PNG", dpi=(150, 150))
  extra = chunk(b"gAMA", struct.pack(">I", 45455))
  extra += chunk(b"tEXt", b"Author\x00Somebody")
  data = data[:33] + extra + data[33:]
  photo = decode(data)
  encoded = codec.encode(photo, [patch(0, 0, np.ones((8, 8, 3)))])
  after = Image.open(io.BytesIO(encoded))
  after.load()
  assert after.info["gamma"] == 0.45455
  assert after.text == {"Author": "Somebody"}
  assert after.info["dpi"] == pytest.approx((150, 150), abs=0.1)


def test_png_transparent_colour(astronaut):
  image = Image.fromarray(astronaut)
  data = save(image, "PNG", transparency=tuple(astronaut[0, 0].tolist()))
  photo = decode(data)
  assert photo.alpha[0, 0] == 0
  again = decode(codec.encode(photo, [patch(0, 0, np.ones((8, 8, 3)))]))
  assert np.array_equal(again.alpha, photo.alpha)


def test_bmp_with_alpha(data_dir):
  data = (data_dir / "photos/formats/einstein.bmp").read_bytes()
  photo = decode(data)
  assert photo.alpha is not None
  again = decode(codec.encode(photo, [patch(0, 0, np.ones((8, 8, 3)))]))
  assert np.array_equal(again.alpha, photo.alpha)
  assert np.array_equal(again.pixels[8:], photo.pixels[8:])


@pytest.mark.slow
def test_heic(astronaut):
  pillow_heif = pytest.importorskip("pillow_heif")
  pillow_heif.register_heif_opener()
  data = save(astronaut, "HEIF", quality=90, exif=exif(6, gps=True))
  photo = decode(data)
  assert photo.pixels.shape in ((320, 256, 3), (256, 320, 3))
  change = np.full((64, 64, 3), 30.0)
  encoded = codec.encode(photo, [patch(0, 0, change)], strip_location=True)
  again = decode(encoded)
  assert again.format == "HEIF"
  assert again.pixels.shape == photo.pixels.shape
  assert np.abs(again.pixels.astype(int) - photo.pixels)[80:].mean() < 2
  assert GPS_MARK not in encoded


def test_heic_without_the_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, "pillow_heif", None)
  with pytest.raises(types.PhotoError, match=r"fawkes-jax\[heic\]"):
    decode(b"\x00\x00\x00\x18ftypheic" + bytes(100))


@pytest.mark.parametrize("name", ["webp", "tiff_jpeg", "jpeg_rgb", "jpeg"])
def test_finer_encodings_lose_less(astronaut, encoded_formats, name):
  """Each step; the last of WebP and TIFF loses nothing at all."""
  if name == "jpeg_rgb":
    data = save(astronaut, keep_rgb=True, quality=60)
  elif name == "jpeg":
    data = save_jpeg(astronaut, quality=60)
  else:
    data = encoded_formats[name]
  photo = decode(data)
  change = smooth_change(64, 80, 3.0)
  wanted = photo.pixels.astype(np.float32)
  wanted[32:96, 48:128] += change
  wanted = np.clip(np.rint(wanted), 0, 255)
  lost = []
  for finer in range(1 + codec.refinements(photo, largest_step=4)):
    encoded = codec.encode(
      photo, [patch(48, 32, change)], largest_step=4, finer=finer
    )
    again = decode(encoded)
    assert again.format == photo.format
    error = np.abs(again.pixels - wanted)[32:96, 48:128]
    lost.append(float(error.mean()))
  assert len(lost) == 3
  assert lost[0] > lost[1] > lost[2]
  if name in ("webp", "tiff_jpeg"):
    assert lost[2] == 0
  assert codec.refinements(decode(encoded_formats["png"]), largest_step=4) == 0
  if name == "jpeg":  # Whoever keeps all steps keeps them.
    assert codec.refinements(photo, largest_step=0) == 0


# Refusals.


def png_16_bit():
  header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
  body = zlib.compress((b"\x00" + bytes(24)) * 4)
  return b"\x89PNG\r\n\x1a\n" + b"".join(
    chunk(*c) for c in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
  )


def png_bomb():
  header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
  return b"\x89PNG\r\n\x1a\n" + b"".join(
    chunk(*c) for c in ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
  )


def jpeg_with_a_step_of_zero():
  data = bytearray(save(np.zeros((16, 16, 3), np.uint8), quality=90))
  data[data.index(b"\xff\xdb") + 6] = 0
  return bytes(data)


def refused():
  grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
  colour = np.dstack([grey] * 3)
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
  image, other = Image.fromarray(colour), Image.fromarray(colour[::-1])
  frames = {"save_all": True, "append_images": [other]}
  jpeg = save(noise)
  png = save(noise, "PNG")
  yield "zero bytes", b"", "zero bytes"
  yield "text", b"Dear diary,\n" * 30, "not an image"
  yield "truncated jpeg", jpeg[: len(jpeg) // 2], "truncated"
  yield "truncated png", png[: len(png) // 2], "truncated"
  yield "jpeg header only", jpeg[:40], "not an image|truncated|corrupted"
  yield "step of zero", jpeg_with_a_step_of_zero(), "step of 0"
  yield "corrupted png", png[:60] + bytes(40) + png[100:], "corrupted|broken"
  yield "bomb", png_bomb(), "60000 x 60000 is more than .* pixels"
  yield "gif animated", save(image, "GIF", **frames), "GIF"
  yield "gif", save(image, "GIF"), "GIF"
  yield "ico", save(image.resize((16, 16)), "ICO"), "ICO"
  yield "webp animated", save(image, "WEBP", **frames), "more than one frame"
  yield "png animated", save(image, "PNG", **frames), "more than one frame"
  yield "tiff pages", save(image, "TIFF", **frames), "more than one frame"
  yield "png 16", save(grey.astype(np.uint16) * 999, "PNG"), "8 bits"
  yield "png 16 rgb", png_16_bit(), "8 bits"
  yield "tiff 16", save(grey.astype(np.uint16), "TIFF"), "8 bits"
  yield "tiff float", save(grey.astype(np.float32), "TIFF"), "8 bits|floating"
  yield "jpeg cmyk", save(image.convert("CMYK")), "CMYK"
  yield "tiff cmyk", save(image.convert("CMYK"), "TIFF"), "CMYK"
  yield "png 1", save(image.convert("1"), "PNG"), "1 bit"
  yield "tiff lab", save(image.convert("LAB"), "TIFF"), "mode LAB"
  yield "ppm", save(image, "PPM"), "format PPM"


@pytest.mark.parametrize(
  ("data", "reason"), [pytest.param(d, r, id=n) for n, d, r in refused()]
)
def test_refused_with_a_reason(data, reason):
  with pytest.raises(types.PhotoError, match=reason):
    decode(data)


def test_the_limit_is_exact_and_not_pillows(astronaut, monkeypatch):
  data = save(astronaut, "PNG")
  pixels = astronaut.shape[0] * astronaut.shape[1]
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
  codec.decode(data, max_pixels=pixels)
  assert Image.MAX_IMAGE_PIXELS == 100
  with pytest.raises(types.PhotoError, match="decompression bomb"):
    codec.decode(data, max_pixels=pixels - 1)


@pytest.mark.slow
def test_damaged_bytes_are_never_fatal(astronaut):
  """Each damage gives a photo that can be encoded, or a reason."""
  small = astronaut[:64, :64]
  script = """
import sys, numpy as np
from fawkes_jax import types
from fawkes_jax.photos import codec
rng = np.random.default_rng(0)
change = [types.Patch(left=0, top=0, change=np.full((9, 9, 3), 9.0, "f4"))]
for path in sys.argv[1:]:
  data = open(path, "rb").read()
  for _ in range(400):
    damaged = np.frombuffer(data, np.uint8).copy()
    places = rng.integers(2, len(data), rng.integers(1, 8))
    damaged[places] = rng.integers(0, 256, len(places))
    try:
      photo = codec.decode(damaged.tobytes(), max_pixels=10**6)
      if photo.pixels.shape[0] > 9 < photo.pixels.shape[1]:
        codec.encode(photo, change)
    except types.PhotoError as error:
      assert str(error)
print("survived")
"""
  import tempfile
  from pathlib import Path

  with tempfile.TemporaryDirectory() as folder:
    paths = []
    for i, (_, data) in enumerate(formats(small)):
      path = Path(folder) / str(i)
      path.write_bytes(data)
      paths.append(str(path))
    done = subprocess.run(
      [sys.executable, "-c", script, *paths],
      capture_output=True,
      text=True,
      check=False,
    )
  assert done.stdout.strip() == "survived", done.stderr[-2000:]


# Threads.


@pytest.mark.slow
def test_threads_give_the_same_bytes(astronaut, encoded_formats):
  sources = [
    save_jpeg(astronaut[: 200 + i], progressive=i % 2, quality=80 + i)
    for i in range(8)
  ] + list(encoded_formats.values())

  def work(data):
    photo = decode(data)
    return codec.encode(photo, [patch(20, 20, smooth_change(90, 90))])

  serial = [work(data) for data in sources]
  with concurrent.futures.ThreadPoolExecutor(6) as pool:
    assert list(pool.map(work, sources * 2)) == serial * 2


# Real files.


@pytest.mark.slow
def test_real_photos(data_dir):
  folders = ("orientation", "formats", "groups")
  paths = [
    path
    for folder in folders
    for path in sorted((data_dir / "photos" / folder).iterdir())
  ]
  reasons = {}
  for path in paths:
    data = path.read_bytes()
    try:
      photo = decode(data)
    except types.PhotoError as error:
      reasons[path.name] = str(error)
      continue
    with Image.open(path) as image:
      upright = ImageOps.exif_transpose(image).convert("RGB")
    assert np.array_equal(photo.pixels, np.asarray(upright)), path
    encoded = codec.encode(photo, [patch(9, 9, np.full((40, 40, 3), 30.0))])
    assert decode(encoded).pixels.shape == photo.pixels.shape
  assert set(reasons) == {
    "corrupted.png",
    "einstein.gif",
    "einstein.ico",
    "empty.png",
    "truncated.jpg",
  }
