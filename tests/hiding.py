"""Photos of all formats with another picture hidden in them, anywhere."""

import base64
import io
import struct
import zlib

import numpy as np
import skimage.data
from PIL import Image, ImageCms

SIDE = 40
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def astronaut(side, box=(160, 20, 300, 160)):
  image = Image.fromarray(skimage.data.astronaut())
  return image.crop(box).resize((side, side))


def save(image, kind, **options):
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def pictures():
  """Previews of a face: name to bytes."""
  face = astronaut(SIDE)
  samples = np.asarray(face)
  jpeg = save(face, "JPEG", quality=80)
  return {
    "jpeg": jpeg,
    "progressive": save(face, "JPEG", quality=70, progressive=True),
    "headless_jpeg": jpeg[20:],
    "muted_jpeg": b"\x00" + jpeg[1:],
    "grey_jpeg": save(face.convert("L"), "JPEG"),
    "png": save(face, "PNG"),
    "gif": save(face, "GIF"),
    "webp": save(face, "WEBP"),
    "webp_lossless": save(face, "WEBP", lossless=True),
    "tiff": save(face, "TIFF"),
    "tiff_lzw": save(face, "TIFF", compression="tiff_lzw"),
    "bmp": save(face, "BMP"),
    "dib": save(face, "DIB"),
    "ppm": save(face, "PPM"),
    "pcx": save(face, "PCX"),
    "tga": save(face, "TGA"),
    "ico": save(face, "ICO"),
    "jpeg2000": save(face, "JPEG2000"),
    "j2k": save(face, "JPEG2000", no_jp2=True),
    "pdf": save(face, "PDF"),
    "rgb": samples.tobytes(),
    "planes": np.ascontiguousarray(samples.transpose(2, 0, 1)).tobytes(),
    "grey": np.asarray(face.convert("L")).tobytes(),
    "ycbcr": np.asarray(face.convert("YCbCr")).tobytes(),
    "rgbx": np.dstack([samples, samples[..., :1] * 0]).tobytes(),
    "rgb_16": (samples.astype("<u2") * 257).tobytes(),
    "deflated": zlib.compress(samples.tobytes(), 9),
  }


def _pieces(data, size):
  return [data[i : i + size] for i in range(0, len(data), size)]


# What a picture is written as: binary ones, and texts.
BINARY = {
  "as_it_is": lambda data: data,
  "with_a_head": lambda data: b"Nikon\x00\x02\x10\x00\x00" + data + bytes(40),
  "deflated": zlib.compress,
  "in_shorts": lambda data: np.frombuffer(data, "u1").astype("<u2").tobytes(),
  "in_wide_base64": lambda data: (
    bytes(range(20, 250))
    + base64.b64encode(data).decode().encode("utf-16-le")
    + bytes(range(20, 250))
  ),
  "in_longs": lambda data: np.frombuffer(data, "u1").astype(">u4").tobytes(),
}
TEXT = {
  "base64": base64.b64encode,
  "base64_lines": base64.encodebytes,
  "base64_url": base64.urlsafe_b64encode,
  "base64_of_deflated": lambda data: base64.b64encode(zlib.compress(data)),
  "base64_twice": lambda data: base64.b64encode(base64.b64encode(data)),
  "in_prose": lambda data: (
    b"Dear diary, see " + base64.b64encode(data) + b" and so on"
  ),
  "data_url": lambda data: b"data:image/x;base64," + base64.b64encode(data),
  "hex": lambda data: data.hex().encode(),
  "hex_lines": lambda data: b"\n".join(_pieces(data.hex().encode(), 72)),
  "hex_upper": lambda data: data.hex().upper().encode(),
  "decimal": lambda data: b", ".join(b"%d" % byte for byte in data),
}


# EXIF by hand.

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 9: 4, 10: 8, 12: 8}


def ifd(entries, offset, order="<", following=0):
  """A directory at an offset: (tag, type, value) each, in the order of tags."""
  end = offset + 2 + 12 * len(entries) + 4
  head, values = struct.pack(order + "H", len(entries)), b""
  for tag, kind, value in entries:
    if isinstance(value, int):
      place, count = struct.pack(order + "I", value), 1
      if kind == 3:
        place = struct.pack(order + "HH", value, 0)
    else:
      value += bytes(-len(value) % SIZES[kind])
      count = len(value) // SIZES[kind]
      if len(value) <= 4:
        place = value.ljust(4, b"\x00")
      else:
        place = struct.pack(order + "I", end + len(values))
        values += value + bytes(len(value) % 2)
    head += struct.pack(order + "HHI", tag, kind, count) + place
  return head + struct.pack(order + "I", following) + values


MAKE = (0x010F, 2, b"Abcdef\x00")
DATE = (0x0132, 2, b"2026:01:02 03:04:05\x00")


def exif(entries, *, order="<", sub=None, sub_tag=0x8769, second=(), tail=b""):
  """A TIFF structure with one, two or three directories.

  Args:
    entries: of the first directory, besides make and date.
    order: of the bytes.
    sub: the entries of a directory that the first one links to.
    sub_tag: the tag of that link.
    second: the entries of the directory behind the first; a value may be a
      function of where the tail is.
    tail: what is behind all.
  """
  start = 8
  links = [(sub_tag, 4, 0)] if sub is not None else []

  def first(link=0, following=0):
    listed = [MAKE, DATE, *entries] + [(t, k, link) for t, k, _ in links]
    return ifd(sorted(listed, key=lambda e: e[0]), start, order, following)

  at = start + len(first())
  at += at % 2
  subs = ifd(sub, at, order) if sub is not None else b""
  second_at = at + len(subs) + len(subs) % 2

  def later(place):
    values = [(t, k, v(place) if callable(v) else v) for t, k, v in second]
    return ifd(values, second_at, order)

  seconds = later(0) if second else b""
  tail_at = second_at + len(seconds)
  seconds = later(tail_at) if second else b""
  one = first(at, second_at if second else 0)
  whole = one + bytes(at - start - len(one)) + subs
  whole += bytes(second_at - start - len(whole)) + seconds + tail
  mark = b"II*\x00" if order == "<" else b"MM\x00*"
  return mark + struct.pack(order + "I", start) + whole


def exifs(hidden, order="<"):
  """EXIF that hides a picture: name to bytes."""
  size = len(hidden)
  yield "maker_note", exif([], sub=[(0x927C, 7, hidden)], order=order)
  yield (
    "user_comment",
    exif([], sub=[(0x9286, 7, b"ASCII\0\0\0" + hidden)], order=order),
  )
  for kind in 1, 2, 3, 4, 5, 6, 7, 12:
    yield f"private_{kind}", exif([(0xC6F0, kind, hidden)], order=order)
  yield "description", exif([(0x010E, 2, hidden)], order=order)
  yield "gps_tag", exif([], sub=[(0x001B, 7, hidden)], sub_tag=0x8825)
  yield "interop_tag", exif([], sub=[(0x0001, 7, hidden)], sub_tag=0xA005)
  yield "sub_ifd", exif([], sub=[(0xC6F0, 7, hidden)], sub_tag=0x014A)
  yield "tail", exif([], tail=hidden, order=order)
  yield (
    "thumbnail",
    exif(
      [],
      second=[(0x0201, 4, lambda at: at), (0x0202, 4, size)],
      tail=hidden,
      order=order,
    ),
  )
  yield (
    "thumbnail_of_no_length",
    exif([], second=[(0x0201, 4, lambda at: at)], tail=hidden),
  )
  yield (
    "strips",
    exif(
      [],
      second=[
        (0x0100, 3, SIDE),
        (0x0101, 3, SIDE),
        (0x0111, 4, lambda at: at),
        (0x0117, 4, size),
      ],
      tail=hidden,
      order=order,
    ),
  )
  whole = exif([], tail=hidden)
  link = whole.index(DATE[2]) - len(MAKE[2]) - 5
  yield "bad_link", whole[:link] + struct.pack("<I", 3) + whole[link + 4 :]


def photoshop(number, value, *, alignment=2, name=b"\x00\x00"):
  head = b"8BIM" + struct.pack(">H", number) + name
  head += struct.pack(">I", len(value))
  return head + value + bytes(-len(value) % alignment)


def dataset(record, number, value):
  if len(value) < 0x8000:
    return struct.pack(">BBBH", 0x1C, record, number, len(value)) + value
  head = struct.pack(">BBBHI", 0x1C, record, number, 0x8004, len(value))
  return head + value


def resources(hidden):
  """Photoshop resources that hide a picture."""
  iptc = photoshop(0x0404, dataset(2, 5, b"Title"))
  yield "resource", iptc + photoshop(0x0409, bytes(28) + hidden)
  yield "other_resource", iptc + photoshop(0x0FA0, hidden)
  four = photoshop(0x0FA0, hidden[: len(hidden) // 2 * 2 - 1], alignment=4)
  yield "resource_of_4", four + photoshop(0x0404, b"") + iptc
  yield "behind_resources", iptc + b"rest" + hidden
  yield "iptc", photoshop(0x0404, dataset(2, 202, hidden) + dataset(2, 5, b"A"))
  yield "iptc_object", photoshop(0x0404, dataset(8, 10, hidden))
  yield "exif_resource", photoshop(0x0422, exif([], sub=[(0x927C, 7, hidden)]))


_XMP = (
  b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/'
  b'1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:a="urn:a"'
  b' xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="here"%s>%s'
  b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def packets(text):
  """XMP that hides a picture that is written as text."""
  lines = _pieces(text, 64)
  yield "attribute", _XMP % (b' a:data="' + text + b'"', b"")
  yield "element", _XMP % (b"", b"<a:Data>" + text + b"</a:Data>")
  broken = b"&#xA;".join(lines)
  yield "entities", _XMP % (b' a:data="' + broken + b'"', b"")
  yield (
    "decimal_entities",
    _XMP % (b' a:data="' + b"&#10;".join(lines) + b'"', b""),
  )
  yield "cdata", _XMP % (b"", b"<a:Data><![CDATA[" + text + b"]]></a:Data>")
  items = b"".join(b"<rdf:li>" + line + b"</rdf:li>" for line in lines)
  yield "items", _XMP % (b"", b"<a:B><rdf:Seq>" + items + b"</rdf:Seq></a:B>")
  yield (
    "thumbnails",
    _XMP
    % (
      b"",
      b"<xmp:Thumbnails><rdf:Alt><rdf:li><xmpGImg:image>"
      + text
      + b"</xmpGImg:image></rdf:li></rdf:Alt></xmp:Thumbnails>",
    ),
  )
  yield "no_xml", b"<x:xmpmeta><a:Data>" + text + b"</a:Dat"
  if b"--" not in text:
    yield "comment", _XMP % (b"", b"<!-- " + text + b" -->")


def profile(hidden):
  """A colour profile with a tag of its own."""
  (count,) = struct.unpack_from(">I", ICC, 128)
  table = ICC[132 : 132 + 12 * count]
  moved = b"".join(
    struct.pack(">4sII", name, offset + 12, size)
    for name, offset, size in struct.iter_unpack(">4sII", table)
  )
  whole = ICC[:128] + struct.pack(">I", count + 1) + moved
  value = b"abcd\x00\x00\x00\x00" + hidden
  at = len(ICC) + 12
  whole += struct.pack(">4sII", b"prvw", at, len(value))
  whole += ICC[132 + 12 * count :] + value
  return struct.pack(">I", len(whole)) + whole[4:]


# Files.


def segment(marker, payload):
  return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def jpeg(photo, *parts, trailing=b""):
  data = save(photo, "JPEG", quality=85)
  return data[:2] + b"".join(parts) + data[2:] + trailing


def chunk(name, payload):
  check = struct.pack(">I", zlib.crc32(name + payload))
  return struct.pack(">I", len(payload)) + name + payload + check


def png(photo, *chunks, trailing=b""):
  data = save(photo, "PNG")
  return data[:33] + b"".join(chunks) + data[33:] + trailing


def webp(photo, *chunks, lossless=False, trailing=b""):
  data = save(photo, "WEBP", lossless=lossless, exif=b"Exif\x00\x00II*\x00")
  body = data[12 : data.index(b"EXIF", 12)]
  body += b"".join(
    struct.pack("<4sI", name, len(value)) + value + bytes(len(value) % 2)
    for name, value in chunks
  )
  flags = 0x04 * any(n == b"XMP " for n, _ in chunks)
  flags |= 0x08 * any(n == b"EXIF" for n, _ in chunks)
  flags |= 0x20 * any(n == b"ICCP" for n, _ in chunks)
  body = body[:8] + bytes([flags]) + body[9:]
  return (
    struct.pack("<4sI4s", b"RIFF", len(body) + 4, b"WEBP") + body + trailing
  )


def tiff(photo, entries, *, order="<", sub=None, sub_tag=0x8769, tail=b""):
  """An uncompressed TIFF with tags of any type."""
  pixels = photo.tobytes()

  def whole(place):
    listed = [
      (0x0100, 3, photo.width),
      (0x0101, 3, photo.height),
      (0x0102, 3, struct.pack(order + "3H", 8, 8, 8)),
      (0x0103, 3, 1),
      (0x0106, 3, 2),
      (0x0111, 4, place),
      (0x0115, 3, 3),
      (0x0116, 3, photo.height),
      (0x0117, 4, len(pixels)),
      *entries,
    ]
    return exif(listed, order=order, sub=sub, sub_tag=sub_tag, tail=tail)

  data = whole(0)
  return whole(len(data)) + pixels


def bmp(photo, *, gap=b"", trailing=b""):
  data = save(photo, "BMP")
  start = struct.unpack_from("<I", data, 10)[0]
  head = data[:10] + struct.pack("<I", start + len(gap)) + data[14:start]
  return head + gap + data[start:] + trailing


def raw_profile(kind, data):
  lines = _pieces(data.hex().encode(), 72)
  head = b"Raw profile type " + kind
  return head, b"\n%s\n%8d\n" % (kind, len(data)) + b"\n".join(lines) + b"\n"


def _split(head, data, marker, size):
  return [segment(marker, head + piece) for piece in _pieces(data, size)]


def binary_files(photo, hidden):
  """Files that hide a picture as bytes: name to bytes."""
  for order in "<", ">":
    for name, block in exifs(hidden, order):
      known = b"Exif\x00\x00" + block
      yield f"jpeg_exif_{name}{order}", jpeg(photo, segment(0xE1, known))
      yield f"png_exif_{name}{order}", png(photo, chunk(b"eXIf", block))
      yield f"webp_exif_{name}{order}", webp(photo, (b"EXIF", block))
      text = b"\x00".join(raw_profile(b"exif", known))
      yield f"png_text_exif_{name}{order}", png(photo, chunk(b"tEXt", text))
  block = exif([], sub=[(0x927C, 7, hidden)])
  half = len(block) // 2
  yield (
    "jpeg_exif_in_two",
    jpeg(photo, *_split(b"Exif\x00\x00", block, 0xE1, half)),
  )
  for name, block in resources(hidden):
    yield (
      f"jpeg_{name}",
      jpeg(photo, segment(0xED, b"Photoshop 3.0\x00" + block)),
    )
    parts = _split(b"Photoshop 3.0\x00", block, 0xED, len(block) // 3 + 1)
    yield f"jpeg_{name}_continued", jpeg(photo, *parts)
    yield f"tiff_{name}", tiff(photo, [(0x8649, 1, block)])
    text = b"\x00".join(raw_profile(b"8bim", block))
    yield f"png_{name}", png(photo, chunk(b"tEXt", text))
  for marker in 0xE2, 0xE3, 0xE5, 0xEB, 0xEC, 0xEF, 0xFE:
    name = f"jpeg_{marker:x}"
    yield name, jpeg(photo, segment(marker, b"Preview\x00" + hidden))
    parts = _split(b"Preview\x00", hidden, marker, len(hidden) // 2)
    yield f"{name}_continued", jpeg(photo, *parts)
  yield (
    "jpeg_jfif",
    jpeg(
      photo,
      segment(
        0xE0, b"JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x10\x10" + hidden[:768]
      ),
    ),
  )
  yield "jpeg_jfxx", jpeg(photo, segment(0xE0, b"JFXX\x00\x13" + hidden))
  yield (
    "jpeg_adobe",
    jpeg(photo, segment(0xEE, b"Adobe\x00\x64\x00\x00\x00\x00\x01" + hidden)),
  )
  yield "jpeg_fpxr", jpeg(photo, segment(0xE2, b"FPXR\x00\x00\x02" + hidden))
  yield "jpeg_trailing", jpeg(photo, trailing=hidden)
  yield "jpeg_trailing_late", jpeg(photo, trailing=bytes(500) + hidden)
  coloured = profile(hidden)
  yield (
    "jpeg_icc",
    jpeg(photo, segment(0xE2, b"ICC_PROFILE\x00\x01\x01" + coloured)),
  )
  half = len(coloured) - len(hidden) // 2
  yield (
    "jpeg_icc_in_two",
    jpeg(
      photo,
      segment(0xE2, b"ICC_PROFILE\x00\x01\x02" + coloured[:half]),
      segment(0xE2, b"ICC_PROFILE\x00\x02\x02" + coloured[half:]),
    ),
  )
  yield (
    "png_icc",
    png(photo, chunk(b"iCCP", b"icc\x00\x00" + zlib.compress(coloured))),
  )
  yield "webp_icc", webp(photo, (b"ICCP", coloured))
  yield "tiff_icc", tiff(photo, [(0x8773, 7, coloured)])
  for name in b"prVw", b"prVW", b"caNv", b"pHYs", b"tIME", b"gAMA":
    yield f"png_{name.decode()}", png(photo, chunk(name, hidden))
  yield "png_trailing", png(photo, trailing=hidden)
  for kind in b"iptc", b"icc", b"xmp", b"APP1", b"app12", b"other":
    keyword, text = raw_profile(kind, hidden)
    yield (
      f"png_{kind.decode()}",
      png(photo, chunk(b"tEXt", keyword + b"\x00" + text)),
    )
    deflated = keyword + b"\x00\x00" + zlib.compress(text)
    yield f"png_z_{kind.decode()}", png(photo, chunk(b"zTXt", deflated))
  latin = hidden.replace(b"\x00", b"\x01")
  yield "png_latin", png(photo, chunk(b"tEXt", b"Note\x00" + latin))
  for lossless in False, True:
    kind = f"webp_{lossless}"
    yield f"{kind}_chunk", webp(photo, (b"PRVW", hidden), lossless=lossless)
    yield f"{kind}_trailing", webp(photo, lossless=lossless, trailing=hidden)
  for order in "<", ">":
    for kind in 1, 2, 3, 4, 5, 6, 7, 12:
      data = tiff(photo, [(0xC6F0, kind, hidden)], order=order)
      yield f"tiff_private_{kind}{order}", data
    for tag in 0x010E, 0x501B, 0x83BB, 0x935C, 0xC4A5:
      data = tiff(photo, [(tag, 7, hidden)], order=order)
      yield f"tiff_{tag:x}{order}", data
    note = [(0x927C, 7, hidden)]
    yield f"tiff_note{order}", tiff(photo, [], sub=note, order=order)
    for tag in 0x8825, 0xA005, 0x014A:
      data = tiff(photo, [], sub=[(0xC6F0, 7, hidden)], sub_tag=tag)
      yield f"tiff_sub_{tag:x}{order}", data
  yield "tiff_gap", tiff(photo, [], tail=hidden)
  yield "tiff_trailing", tiff(photo, []) + hidden
  yield "bmp_gap", bmp(photo, gap=hidden)
  yield "bmp_trailing", bmp(photo, trailing=hidden)


def text_files(photo, text):
  """Files that hide a picture as text: name to bytes."""
  for name, packet in packets(text):
    known = b"http://ns.adobe.com/xap/1.0/\x00" + packet
    yield f"jpeg_xmp_{name}", jpeg(photo, segment(0xE1, known))
    international = b"XML:com.adobe.xmp" + bytes(5) + packet
    yield f"png_xmp_{name}", png(photo, chunk(b"iTXt", international))
    yield f"webp_xmp_{name}", webp(photo, (b"XMP ", packet))
    yield f"tiff_xmp_{name}", tiff(photo, [(0x02BC, 1, packet)])
    yield (
      f"jpeg_exif_xmp_{name}",
      jpeg(photo, segment(0xE1, b"Exif\x00\x00" + exif([(0x02BC, 1, packet)]))),
    )
    start = b"http://ns.adobe.com/xmp/extension/\x00" + b"0" * 32
    size = len(packet) // 2 + 1
    parts = [
      segment(0xE1, start + struct.pack(">II", len(packet), size * i) + piece)
      for i, piece in enumerate(_pieces(packet, size))
    ]
    yield f"jpeg_extended_{name}", jpeg(photo, *parts)
    yield f"jpeg_extended_{name}_unordered", jpeg(photo, *parts[::-1])
  for name, block in exifs(text):
    yield (
      f"jpeg_exif_{name}",
      jpeg(photo, segment(0xE1, b"Exif\x00\x00" + block)),
    )
  wide = b"UNICODE\x00" + text.decode().encode("utf-16-le")
  block = exif([], sub=[(0x9286, 7, wide)])
  yield "jpeg_exif_wide", jpeg(photo, segment(0xE1, b"Exif\x00\x00" + block))
  wide = text.decode().encode("utf-16-le") + b"\x00\x00"
  block = exif([(0x9C9C, 1, wide)])
  yield "jpeg_exif_xp", jpeg(photo, segment(0xE1, b"Exif\x00\x00" + block))
  yield "jpeg_comment", jpeg(photo, segment(0xFE, text))
  half = len(text) // 2
  yield (
    "jpeg_comments",
    jpeg(photo, segment(0xFE, text[:half]), segment(0xFE, text[half:])),
  )
  yield "jpeg_app5", jpeg(photo, segment(0xE5, b"Text\x00" + text))
  for name, block in resources(text):
    yield (
      f"jpeg_{name}",
      jpeg(photo, segment(0xED, b"Photoshop 3.0\x00" + block)),
    )
  yield "png_text", png(photo, chunk(b"tEXt", b"Note\x00" + text))
  deflated = zlib.compress(text)
  yield "png_ztxt", png(photo, chunk(b"zTXt", b"Note\x00\x00" + deflated))
  yield "png_itxt", png(photo, chunk(b"iTXt", b"Note" + bytes(5) + text))
  yield (
    "png_itxt_deflated",
    png(photo, chunk(b"iTXt", b"Note\x00\x01\x00\x00\x00" + deflated)),
  )
  yield (
    "png_keyword",
    png(photo, chunk(b"tEXt", text[:79] + b"\x00" + text[79:])),
  )
  yield "tiff_description", tiff(photo, [(0x010E, 2, text + b"\x00")])
  yield "tiff_iptc", tiff(photo, [(0x83BB, 4, dataset(2, 120, text))])
