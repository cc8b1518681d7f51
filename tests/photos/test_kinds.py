"""What is refused by what it is, whatever its name."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from fawkes_jax import types
from fawkes_jax.photos import codec, kinds

CFA, LINEAR, RGB = 32803, 34892, 2


def directory(order, entries, offset, sub_at=None):
  """A directory of a TIFF file: short and long values of one each."""
  parts = [struct.pack(order + "H", len(entries))]
  for tag, value in sorted(entries.items()):
    if isinstance(value, bytes):
      parts.append(struct.pack(order + "HHI4s", tag, 1, len(value), value))
    else:
      parts.append(struct.pack(order + "HHII", tag, 4, 1, value))
  return b"".join(parts) + bytes(4)


def tiff(first, sub=None, *, order="<", make=b""):
  """A TIFF file of a picture, and of another that it has as its part."""
  mark = b"II*\0" if order == "<" else b"MM\0*"
  size = 64
  pixels = bytes(np.arange(3 * size * size, dtype=np.uint32).astype(np.uint8))
  start = 8 + len(pixels)
  entries = {
    **{256: size, 257: size, 258: 8, 259: 1, 262: RGB, 273: 8, 277: 3},
    **{278: size, 279: len(pixels)},
  } | first
  length = 2 + 12 * (len(entries) + (sub is not None) + bool(make)) + 4
  if make:
    entries[271] = start + length
  if sub is not None:
    entries[330] = start + length + len(make)
  ifd = directory(order, entries, start)
  if make:  # as text, elsewhere
    entry = struct.pack(order + "HHII", 271, 4, 1, start + length)
    text = struct.pack(order + "HHII", 271, 2, len(make), start + length)
    ifd = ifd.replace(entry, text)
  data = mark + struct.pack(order + "I", start) + pixels + ifd + make
  if sub is not None:
    data += directory(order, {256: 512, 257: 512, 259: 1} | sub, len(data))
  return data


def raws():
  yield "dng", tiff({50706: b"\1\4\0\0"}), "DNG"
  yield "dng cfa", tiff({254: 1, 50706: b"\1\4\0\0"}, {262: CFA}), "DNG"
  yield "nef", tiff({254: 1}, {259: 34713}, make=b"NIKON CORPORATION\0"), "NEF"
  yield "nef big", tiff({}, {262: CFA}, order=">", make=b"NIKON\0"), "NEF"
  yield "arw", tiff({254: 1}, {259: 32767}, make=b"SONY\0"), "ARW"
  yield "pef", tiff({259: 65535}, make=b"PENTAX\0", order=">"), "PEF"
  yield "srw", tiff({}, {259: 32770}, make=b"SAMSUNG\0"), "SRW"
  yield "3fr", tiff({}, {262: CFA}, make=b"Hasselblad\0"), "3FR"
  yield "linear", tiff({262: LINEAR}), "sensor's samples"
  yield "preview", tiff({254: 1}, {262: RGB}), "preview of a larger"
  head = b"II*\0\x10\0\0\0CR\x02\0" + bytes(100)
  yield "cr2", head, "CR2"
  yield "cr3", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(50), "CR3"
  yield "raf", b"FUJIFILMCCD-RAW 0201FF389501" + bytes(50), "RAF"
  yield "orf", b"IIRO\x08\0\0\0" + bytes(50), "ORF"
  yield "rw2", b"IIU\0\x18\0\0\0" + bytes(50), "RW2"
  yield "iiq", b"II*\0\x08\0\0\0IIII\1waR" + bytes(50), "IIQ"
  yield "x3f", b"FOVb" + bytes(50), "X3F"
  yield "mrw", b"\0MRM" + bytes(50), "MRW"
  yield "crw", b"II\x1a\0\0\0HEAPCCDR" + bytes(50), "CRW"


@pytest.mark.parametrize(
  ("data", "name"), [pytest.param(d, n, id=i) for i, d, n in raws()]
)
def test_raw_files_are_never_read_as_their_preview(data, name):
  with pytest.raises(types.PhotoError, match=name) as caught:
    codec.decode(data, max_pixels=10**8, convert=True)
  assert not isinstance(caught.value, types.OtherFileError)
  assert kinds.identify(data).picture


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
  "odd",
  [
    {},
    {50708: b"Abc\0", 50721: 7, 33434: 5, 37500: b"note"},
    {254: 1},
    {254: 2},
    {65000: 9, 65535: 1},
  ],
)
def test_ordinary_tiffs_with_odd_tags_are_photos(order, odd):
  data = tiff(odd, order=order)
  photo = codec.decode(data, max_pixels=10**8)
  assert photo.pixels.shape == (64, 64, 3)
  # A pyramid, as Photoshop keeps it: smaller pictures beside the first.
  data = tiff(odd, {256: 32, 257: 32, 254: 1, 262: RGB}, order=order)
  assert kinds.identify(data) is None


def test_a_grey_tiff_that_begins_like_a_raw_file():
  """libtiff puts pixels at byte 8, and these are "IIII" there."""
  data = bytearray(tiff({}))
  data[8:40] = b"I" * 32
  assert kinds.identify(bytes(data)) is None
  assert codec.decode(bytes(data), max_pixels=10**8).pixels[0, 0, 0] == 73


def test_damaged_tiffs_are_no_trouble():
  data = tiff({254: 1}, {262: CFA}, make=b"NIKON\0")
  rng = np.random.default_rng(0)
  for length in rng.integers(0, len(data), 200):
    kinds.identify(data[:length])
  for _ in range(2000):
    damaged = np.frombuffer(data, np.uint8).copy()
    damaged[rng.integers(4, 12)] = rng.integers(256)
    damaged[-rng.integers(1, 300)] = rng.integers(256)
    kinds.identify(damaged.tobytes())


OTHERS = {
  "pdf": (b"%PDF-1.7\n", "PDF"),
  "zip": (b"PK\x03\x04" + bytes(30), "ZIP"),
  "mp4": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "MP4"),
  "mov": (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "MOV"),
  "svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
          "SVG"),
  "webm": (b"\x1aE\xdf\xa3" + bytes(30), "WebM"),
  "avi": (b"RIFF\0\0\0\0AVI LIST", "AVI"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_no_photos(name):
  data, what = OTHERS[name]
  with pytest.raises(types.OtherFileError, match=what):
    codec.decode(data, max_pixels=10**8)


def picture(kind, mode="RGB", **options):
  rng = np.random.default_rng(0)
  image = Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8))
  buffer = io.BytesIO()
  image.convert(mode).save(buffer, kind, **options)
  return buffer.getvalue()


def jpeg_frame(marker, precision=8):
  data = bytearray(picture("JPEG"))
  at = data.index(b"\xff\xc0")
  data[at + 1], data[at + 4] = marker, precision
  return bytes(data)


LEFT_OUT = {
  "jxl": (b"\xff\x0a" + bytes(30), "JPEG XL"),
  "jxl box": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(30), "JPEG XL"),
  "jp2": (picture("JPEG2000"), "JPEG 2000"),
  "psd": (b"8BPS\0\1" + bytes(30), "PSD"),
  "ppm": (picture("PPM"), "PPM"),
  "tga": (picture("TGA"), "TGA"),
  "avif": (picture("AVIF"), "AVIF"),
  "lossless": (jpeg_frame(0xC3), "lossless JPEG"),
  "hierarchical": (jpeg_frame(0xC5), "hierarchical JPEG"),
  "jpeg-ls": (jpeg_frame(0xF7), "JPEG-LS"),
  "12 bits": (jpeg_frame(0xC1, 12), "JPEG of 12 bits"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_pictures_that_are_left_out_have_their_reason(name):
  data, what = LEFT_OUT[name]
  with pytest.raises(types.PhotoError, match=what) as caught:
    codec.decode(data, max_pixels=10**8)
  assert not isinstance(caught.value, types.OtherFileError)


def test_what_only_looks_like_targa_is_no_photo():
  """Targa has no mark at its start, so that the mark at the end decides."""
  data = picture("TGA")[:-26]
  with pytest.raises(types.OtherFileError):
    codec.decode(data, max_pixels=10**8)


# Conversions.


def convertible():
  noise = np.random.default_rng(0).integers(0, 65536, (48, 64), np.uint16)
  buffer = io.BytesIO()
  Image.fromarray(noise).save(buffer, "PNG")
  yield "16 bits", buffer.getvalue(), "PNG", noise >> 8
  cmyk = picture("JPEG", "CMYK", quality=95)
  yield "cmyk", cmyk, "JPEG", Image.open(io.BytesIO(cmyk)).convert("RGB")
  gif = picture("GIF")
  yield "gif", gif, "PNG", Image.open(io.BytesIO(gif)).convert("RGB")
  frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "blue")]
  for kind in ("GIF", "WEBP", "PNG", "TIFF"):
    buffer = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(
      buffer, kind, save_all=True, append_images=frames[1:], **options
    )
    yield f"animated {kind}", buffer.getvalue(), "PNG", frames[0]
  avif = picture("AVIF", quality=90)
  yield "avif", avif, "JPEG", Image.open(io.BytesIO(avif)).convert("RGB")
  for kind in ("PPM", "TGA"):
    data = picture(kind)
    yield kind, data, "PNG", Image.open(io.BytesIO(data))
  data = picture("JPEG2000", irreversible=False)
  yield "jp2", data, "JPEG", Image.open(io.BytesIO(data))
  bits = picture("PNG", "1")
  yield "1 bit", bits, "PNG", Image.open(io.BytesIO(bits)).convert("L")


@pytest.mark.parametrize(
  ("data", "kind", "wanted"),
  [pytest.param(d, k, w, id=n) for n, d, k, w in convertible()],
)
def test_conversions_keep_the_picture(data, kind, wanted):
  with pytest.raises(types.PhotoError):
    codec.decode(data, max_pixels=10**6)
  photo = codec.decode(data, max_pixels=10**6, convert=True)
  assert photo.format == kind
  assert photo.suffix == {"PNG": ".png", "JPEG": ".jpg"}[kind]
  assert f"written as {kind}" in photo.note
  wanted = np.asarray(wanted).astype(int)
  wanted = wanted if wanted.ndim == 3 else wanted[..., None]
  error = np.abs(photo.pixels - wanted)
  assert error.max() == 0 if kind == "PNG" else error.mean() < 8
  change = types.Patch(left=8, top=8, change=np.full((8, 8, 3), 20, "f4"))
  assert codec.decode(codec.encode(photo, [change]), max_pixels=10**6)


def test_a_conversion_is_bounded_too():
  with pytest.raises(types.PhotoError, match="--max_pixels"):
    codec.decode(picture("GIF"), max_pixels=100, convert=True)


def test_a_conversion_keeps_exif_and_turns():
  exif = Image.Exif()
  exif[0x010F], exif[0x0112] = "Maker", 6
  data = picture("JPEG", "CMYK", exif=exif)
  photo = codec.decode(data, max_pixels=10**6, convert=True)
  assert photo.pixels.shape == (64, 48, 3)
  with Image.open(io.BytesIO(photo.source)) as image:
    assert image.getexif()[0x010F] == "Maker"
    assert image.getexif().get(0x0112, 1) == 1


def test_big_tiff_raw_files():
  tags = TiffImagePlugin.ImageFileDirectory_v2()
  tags[50706] = b"\1\4\0\0"
  buffer = io.BytesIO()
  Image.new("RGB", (8, 8)).save(buffer, "TIFF", tiffinfo=tags, big_tiff=True)
  assert kinds.identify(buffer.getvalue()).raw
