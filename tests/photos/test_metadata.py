"""What of a photo's metadata stays, turns and goes."""

import io
import re
import struct
import zlib

import hiding
import numpy as np
import pytest
from PIL import Image

from fawkes_jax import types
from fawkes_jax.photos import codec, pictures

CHANGE = types.Patch(left=8, top=8, change=np.full((16, 16, 3), 9, np.float32))
XMP = b"http://ns.adobe.com/xap/1.0/\x00"
EXIF = b"Exif\x00\x00"
THUMBNAIL = hiding.save(hiding.astronaut(48), "JPEG")


@pytest.fixture(scope="module")
def photo():
  return hiding.astronaut(96, (0, 200, 200, 400))


def decode(data):
  return codec.decode(data, max_pixels=10**7)


def cloak(data, **options):
  """A cloaked photo, and what it has lost."""
  lost = set()
  encoded = codec.encode(decode(data), [CHANGE], lost=lost, **options)
  decode(encoded)
  return encoded, lost


def copy(data, **options):
  lost = set()
  return codec.encode(decode(data), [], lost=lost, **options), lost


def opened(data):
  return Image.open(io.BytesIO(data))


def rdf(attributes="", inside=""):
  return (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description'
    f' rdf:about="" {attributes}>{inside}</rdf:Description></rdf:RDF>'
    "</x:xmpmeta>"
  ).encode()


def with_xmp(photo, *packets, trailing=b""):
  parts = [hiding.segment(0xE1, XMP + packet) for packet in packets]
  return hiding.jpeg(photo, *parts, trailing=trailing)


def with_exif(photo, block, **options):
  return hiding.jpeg(photo, hiding.segment(0xE1, EXIF + block), **options)


# What is kept, and what is lost.


def assert_exif_is_kept(data):
  tags = opened(data).getexif()
  assert tags[271] == "Abcdef"
  assert tags[306] == "2026:01:02 03:04:05"


@pytest.mark.parametrize("ending", [b"", b"8BI", b"8BIM", b"8BIM\x04\x04\x05"])
def test_photoshop_data_that_end_early_cost_nothing(photo, ending):
  block = hiding.photoshop(0x0404, hiding.dataset(2, 5, b"Title")) + ending
  part = hiding.segment(0xED, b"Photoshop 3.0\x00" + block)
  encoded, lost = cloak(hiding.jpeg(photo, part))
  assert b"Title" in encoded
  assert not lost


def test_exif_is_kept_without_a_preview_in_a_gap(photo):
  encoded, lost = cloak(with_exif(photo, hiding.exif([], tail=THUMBNAIL)))
  assert_exif_is_kept(encoded)
  assert encoded.count(pictures.JPEG_START) == 1
  assert lost == {"preview"}


def test_a_maker_note_is_kept_without_its_preview(photo):
  note = b"Maker\x00\x01\x02" + THUMBNAIL + b"Serial 4711"
  block = hiding.exif([], sub=[(0x927C, 7, note)])
  encoded, lost = cloak(with_exif(photo, block))
  kept = opened(encoded).getexif().get_ifd(0x8769)[0x927C]
  assert len(kept) == len(note)
  assert kept.startswith(b"Maker\x00\x01\x02")
  assert kept.endswith(b"Serial 4711")
  assert lost == {"preview"}
  assert_exif_is_kept(encoded)


def test_a_harmless_maker_note_is_kept(photo):
  note = b"Maker\x00" + struct.pack("<200H", *range(200)) + b"Lens 50 mm"
  block = hiding.exif([], sub=[(0x927C, 7, note)])
  encoded, lost = cloak(with_exif(photo, block))
  assert opened(encoded).getexif().get_ifd(0x8769)[0x927C] == note
  assert not lost


@pytest.mark.parametrize("offset", [1, 4, 8, 10, 60000, 2**32 - 1])
@pytest.mark.parametrize("link", ["next", "exif", "gps"])
def test_a_link_to_garbage_costs_that_directory_alone(photo, link, offset):
  gps = [(1, 2, b"N\x00"), (2, 5, struct.pack("<6I", 52, 1, 31, 1, 4, 1))]
  tag = {"exif": 0x8769, "gps": 0x8825, "next": 0x8825}[link]
  block = bytearray(hiding.exif([], sub=gps, sub_tag=tag))
  entries = struct.unpack_from("<H", block, 8)[0]
  place = 10 + 12 * entries
  if link != "next":
    place -= 4  # The link is the last entry's value.
  struct.pack_into("<I", block, place, offset)
  for strip in False, True:
    encoded, lost = cloak(with_exif(photo, bytes(block)), strip_location=strip)
    assert_exif_is_kept(encoded)
    assert lost == {"EXIF directory"}
    has_gps = bool(opened(encoded).getexif().get_ifd(0x8825))
    assert has_gps == (link == "next" and not strip)


def test_a_thumbnail_at_the_header_leaves_the_header(photo):
  block = hiding.exif([], second=[(0x0201, 4, 0), (0x0202, 4, 5000)])
  encoded, _ = cloak(with_exif(photo, block))
  assert_exif_is_kept(encoded)


def test_exif_over_two_segments_is_kept(photo):
  block = hiding.exif([], sub=[(0x9286, 7, b"ASCII\0\0\0" + b"hello " * 50)])
  parts = [
    hiding.segment(0xE1, EXIF + part) for part in (block[:60], block[60:])
  ]
  encoded, lost = cloak(hiding.jpeg(photo, *parts))
  assert_exif_is_kept(encoded)
  assert opened(encoded).getexif().get_ifd(0x8769)[0x9286].endswith(b"hello ")
  assert not lost


def test_unreadable_exif_stays_where_it_shows_nothing(photo):
  broken = b"II*\x00" + struct.pack("<I", 10**6)
  encoded, lost = cloak(with_exif(photo, broken))
  assert broken in encoded
  assert not lost
  encoded, lost = cloak(with_exif(photo, broken), strip_location=True)
  assert broken not in encoded
  assert lost == {"EXIF"}


def test_harmless_segments_stay_as_they_are(photo):
  packet = rdf('dc:source="here"')
  digest = b"0" * 32
  extended = b"http://ns.adobe.com/xmp/extension/\x00" + digest
  extended += struct.pack(">II", len(packet), 0) + packet
  noted = rdf(f'xmpNote:HasExtendedXMP="{digest.decode()}"')
  parts = [
    hiding.segment(0xE1, XMP + noted),
    hiding.segment(0xE1, extended),
    hiding.segment(0xE5, b"Vendor\x00some settings"),
    hiding.segment(0xFE, b"a comment"),
    hiding.segment(0xE2, b"ICC_PROFILE\x00\x01\x01" + hiding.ICC),
  ]
  encoded, lost = cloak(hiding.jpeg(photo, *parts))
  for part in parts:
    assert part in encoded
  assert not lost


def test_samples_over_two_segments_are_put_together(photo):
  samples = hiding.BINARY["in_longs"](hiding.pictures()["grey"])
  half = len(samples) // 2
  parts = [
    hiding.segment(0xE5, b"Preview\x00" + part)
    for part in (samples[:half], samples[half:])
  ]
  encoded, lost = cloak(hiding.jpeg(photo, *parts))
  assert b"Preview" not in encoded
  assert lost == {"APP5 segment"}


def test_extended_xmp_goes_with_what_refers_to_it(photo):
  packet = rdf(inside=f"<a:Data>{THUMBNAIL.hex()}</a:Data>")
  digest = b"0" * 32
  extended = b"http://ns.adobe.com/xmp/extension/\x00" + digest
  extended += struct.pack(">II", len(packet), 0) + packet
  noted = rdf(f'dc:a="b" xmpNote:HasExtendedXMP="{digest.decode()}"')
  data = hiding.jpeg(
    photo,
    hiding.segment(0xE1, extended),
    hiding.segment(0xE1, XMP + noted),
  )
  encoded, lost = cloak(data)
  assert b"HasExtendedXMP" not in encoded
  assert b'dc:a="b"' in encoded
  assert lost == {"extended XMP"}


def second_picture(*packets, block=b""):
  small = hiding.astronaut(64)
  parts = [hiding.segment(0xE1, XMP + packet) for packet in packets]
  if block:
    parts.append(hiding.segment(0xE1, EXIF + block))
  return hiding.jpeg(small, *parts)


CLIP = struct.pack(">I", 24) + b"ftypisom" + bytes(12)
CLIP += struct.pack(">I", 60) + b"moov" + b"\xa9xyz+52.5200+013.4050/".ljust(52)
MAP = second_picture(rdf('hdrgm:Version="1.0" hdrgm:GainMapMax="2"'))
PROMISES = rdf(
  'hdrgm:Version="1.0" GCamera:MotionPhoto="1" GCamera:MicroVideo="1"'
  ' dc:source="here"',
  "<Container:Directory><rdf:Seq><rdf:li><Container:Item"
  ' Item:Semantic="GainMap"/></rdf:li></rdf:Seq></Container:Directory>',
)


@pytest.mark.parametrize(
  ("trailing", "names"),
  [
    (MAP, {"gain map"}),
    (second_picture(), {"second picture"}),
    (CLIP, {"motion clip"}),
    (MAP + CLIP, {"gain map", "motion clip"}),
    (b"something else", {"trailing data"}),
    (bytes(500), set()),
  ],
)
def test_what_is_behind_the_first_picture_is_named(photo, trailing, names):
  data = with_xmp(photo, PROMISES, trailing=trailing)
  encoded, lost = cloak(data)
  assert lost == names
  assert b'dc:source="here"' in encoded
  for promise in b"hdrgm", b"MotionPhoto", b"MicroVideo", b"Container", b"MPF":
    assert promise not in encoded
  assert encoded.endswith(b"\xff\xd9")


def test_iptc_of_numbers_in_a_compressed_tiff_is_kept(photo):
  value = hiding.dataset(2, 5, b"A title in IPTC")
  value += bytes(-len(value) % 4)
  raw = hiding.tiff(photo, [(0x83BB, 4, value), (0xC6F0, 12, bytes(16))])
  image = opened(raw)
  image.tag_v2.tagtype.pop(0x83BB)
  buffer = io.BytesIO()
  Image.fromarray(np.asarray(image)).save(
    buffer, "TIFF", compression="tiff_lzw"
  )
  plain = buffer.getvalue()
  # The compressed pixels with one tag more, as others write it.
  first = struct.unpack_from("<I", plain, 4)[0]
  count = struct.unpack_from("<H", plain, first)[0]
  entries = [plain[first + 2 + 12 * i :][:12] for i in range(count)]
  place = len(plain) + len(plain) % 2
  entries.append(struct.pack("<HHII", 0x83BB, 4, len(value) // 4, place))
  entries.sort(key=lambda entry: struct.unpack_from("<H", entry))
  data = bytearray(plain + bytes(len(plain) % 2) + value)
  struct.pack_into("<I", data, 4, len(data))
  data += struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
  encoded, lost = cloak(bytes(data))
  assert opened(encoded).info["compression"] == "tiff_lzw"
  assert b"A title in IPTC" in encoded
  assert opened(encoded).tag_v2.tagtype[0x83BB] == 4
  assert not lost


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_tags_keep_their_types_and_values(photo, order):
  numbers = struct.pack(order + "3H", 1, 2, 515)
  entries = [
    (0xC6F0, 3, numbers),
    (0xC6F1, 12, struct.pack(order + "d", 0.1)),
    (0xC6F2, 5, struct.pack(order + "2I", 1, 3)),
  ]
  sub = [(0x9003, 2, b"2026:01:02 03:04:05\x00")]
  encoded, lost = cloak(hiding.tiff(photo, entries, order=order, sub=sub))
  tags = opened(encoded).tag_v2
  assert tags[0xC6F0] == (1, 2, 515)
  assert tags[0xC6F1] == 0.1
  assert float(tags[0xC6F2]) == pytest.approx(1 / 3)
  assert opened(encoded).getexif().get_ifd(0x8769)[0x9003].startswith("2026")
  assert_exif_is_kept(encoded)
  assert not lost


@pytest.mark.slow
def test_much_text_in_a_png_is_kept(photo):
  text = b"It was a dark and stormy night; the rain fell in torrents. " * 40000
  payload = b"Story\x00\x00" + zlib.compress(text)
  encoded, lost = cloak(hiding.png(photo, hiding.chunk(b"zTXt", payload)))
  assert payload in encoded
  assert not lost


@pytest.mark.parametrize("text", [b"", b"\nexif\n 3\nxyz", b"\n\n\n0"])
def test_a_damaged_raw_profile_costs_no_photo(photo, text):
  payload = b"Raw profile type exif\x00" + text
  cloak(hiding.png(photo, hiding.chunk(b"tEXt", payload)))


# Places of faces.

POINT = 70, 20
"""Where a white dot is in the stored picture of 96 x 64, and the face."""


@pytest.mark.parametrize("orientation", range(1, 9))
def test_faces_in_metadata_turn_with_the_picture(orientation):
  pixels = np.zeros((64, 96, 3), np.uint8)
  x, y = POINT
  pixels[y - 1 : y + 2, x - 1 : x + 2] = 255
  area = struct.pack("<4H", x, y, 20, 10)
  block = hiding.exif(
    [(0x0112, 3, orientation), (0x9214, 3, area)],
    sub=[(0xA002, 4, 96), (0xA003, 4, 64), (0x9214, 3, area)],
  )
  fraction = (x + 0.5) / 96, (y + 0.5) / 64
  packet = rdf(
    f'tiff:Orientation="{orientation}"',
    '<mwg-rs:Regions><mwg-rs:AppliedToDimensions stDim:w="96" stDim:h="64"/>'
    "<mwg-rs:RegionList><rdf:Bag><rdf:li><mwg-rs:Area"
    f' stArea:x="{fraction[0]}" stArea:y="{fraction[1]}" stArea:w="0.2"'
    ' stArea:h="0.1" stArea:unit="normalized"/></rdf:li></rdf:Bag>'
    "</mwg-rs:RegionList></mwg-rs:Regions><exif:SubjectArea><rdf:Seq>"
    f"<rdf:li>{x}</rdf:li><rdf:li>{y}</rdf:li></rdf:Seq></exif:SubjectArea>"
    f'<MPRI:Regions><rdf:li MPReg:Rectangle="{fraction[0] - 0.1},'
    f' {fraction[1] - 0.05}, 0.2, 0.1"/></MPRI:Regions>',
  )
  png = hiding.png(
    Image.fromarray(pixels),
    hiding.chunk(b"eXIf", block),
    hiding.chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + packet),
  )
  encoded, lost = cloak(png)
  assert not lost
  after = decode(encoded).pixels
  height, width = after.shape[:2]
  rows, columns = np.nonzero(after[..., 0] > 200)
  column, row = columns.mean(), rows.mean()
  image = opened(encoded)
  tags = image.getexif()
  assert tags[0x0112] == 1
  sub = tags.get_ifd(0x8769)
  assert (sub[0xA002], sub[0xA003]) == (width, height)
  wide, high = (20, 10) if width == 96 else (10, 20)
  for found in tags[0x9214], sub[0x9214]:
    assert found == (column, row, wide, high)
  text = image.info["xmp"].decode()
  values = dict(re.findall(r'([\w:-]+)="([^"]*)"', text))
  assert values["tiff:Orientation"] == "1"
  assert float(values["stArea:x"]) * width == pytest.approx(
    column + 0.5, abs=0.1
  )
  assert float(values["stArea:y"]) * height == pytest.approx(row + 0.5, abs=0.1)
  assert float(values["stArea:w"]) == (0.2 if width == 96 else 0.1)
  assert (int(values["stDim:w"]), int(values["stDim:h"])) == (width, height)
  left, top, w, h = map(float, values["MPReg:Rectangle"].split(","))
  assert (left + w / 2) * width == pytest.approx(column + 0.5, abs=0.1)
  assert (top + h / 2) * height == pytest.approx(row + 0.5, abs=0.1)
  items = re.findall(r"<rdf:li>(\d+)</rdf:li>", text)
  assert items == [f"{column:.0f}", f"{row:.0f}"]


# Location.

LOCATED = (
  rdf('drone-dji:GpsLatitude="+52.5163" drone-dji:GpsLongtitude="13.3777"'),
  rdf(inside="<exif:GPSLatitude>52,31N</exif:GPSLatitude>"),
  rdf('geo:lat="52.5163" geo:long="13.3777"'),
  rdf('Camera:Latitude="52.5163" drone:AbsoluteAltitude="+52.5163"'),
  rdf(inside="<a:Where><rdf:li a:longitude='52.5163'/></a:Where>"),
  b'<x:xmpmeta><broken exif:GPSLatitude="52.5163">',
)
PLACE = re.compile(rb"52.5163|52,31N|52.5200|Gps|GPS|atitude")


def gps_block():
  gps = [(1, 2, b"N\x00"), (2, 5, b"52.5163 is here\x00")]
  return hiding.exif([], sub=gps, sub_tag=0x8825)


@pytest.mark.parametrize("cloaked", [False, True])
@pytest.mark.parametrize("packet", LOCATED)
def test_no_location_is_left_in_any_namespace(photo, packet, cloaked):
  international = b"XML:com.adobe.xmp" + bytes(5) + packet
  for data in (
    with_xmp(photo, packet),
    hiding.png(photo, hiding.chunk(b"iTXt", international)),
    hiding.webp(photo, (b"XMP ", packet), lossless=True),
    hiding.tiff(photo, [(0x02BC, 1, packet)]),
  ):
    assert PLACE.search(data)
    encoded, _ = (cloak if cloaked else copy)(data, strip_location=True)
    assert not PLACE.search(encoded)
    pixels = decode(encoded).pixels, decode(data).pixels
    assert cloaked or np.array_equal(*pixels)


@pytest.mark.parametrize("packet", LOCATED)
def test_no_location_is_left_behind_the_first_picture(photo, packet):
  behind = second_picture(packet, block=gps_block())
  data = with_exif(photo, gps_block(), trailing=behind)
  encoded, lost = copy(data, strip_location=True)
  assert not PLACE.search(encoded)
  assert lost == ({"XMP"} if b"<broken" in packet else set())
  # All is where it was, so that what counts bytes finds it.
  assert len(encoded) == len(data)
  at = data.index(pictures.JPEG_START, 100)
  assert np.array_equal(
    np.asarray(opened(encoded[at:])), np.asarray(opened(data[at:]))
  )
  assert_exif_is_kept(encoded)
  assert_exif_is_kept(encoded[at:])


def test_xmp_that_grows_moves_nothing_behind_it(photo):
  packet = rdf('a:lat="GPS"', "<a:b>" + ">" * 500 + "</a:b>")
  data = with_xmp(photo, packet, trailing=MAP)
  encoded, lost = copy(data, strip_location=True)
  assert len(encoded) == len(data)
  assert encoded.endswith(MAP)
  assert lost == {"XMP"}
  assert not PLACE.search(encoded)


def test_a_clip_with_a_location_goes_with_its_promise(photo):
  data = with_xmp(photo, PROMISES, trailing=MAP + CLIP)
  encoded, lost = copy(data, strip_location=True)
  assert not PLACE.search(encoded)
  assert lost == {"motion clip"}
  assert b"MotionPhoto" not in encoded
  assert MAP in encoded


def test_a_photo_without_location_keeps_its_bytes(photo):
  data = with_xmp(photo, rdf('dc:source="here"'))
  assert copy(data, strip_location=True) == (data, set())


def test_geographic_tags_of_a_tiff_go(photo):
  place = struct.pack("<6d", 0, 0, 0, 13.3777, 52.5163, 0)
  data = hiding.tiff(photo, [(33922, 12, place)])
  assert 33922 in opened(cloak(data)[0]).tag_v2
  for act in cloak, copy:
    assert 33922 not in opened(act(data, strip_location=True)[0]).tag_v2


# Names.

PEOPLE = (
  rdf(
    inside='<mwg-rs:Regions><rdf:li mwg-rs:Name="Jane Doe"/></mwg-rs:Regions>'
  ),
  rdf(
    inside="<Iptc4xmpExt:PersonInImage><rdf:Bag><rdf:li>Jane Doe</rdf:li>"
    "</rdf:Bag></Iptc4xmpExt:PersonInImage>"
  ),
  rdf(inside="<n:Regions><n:L><rdf:li n:Name='Jane Doe'/></n:L></n:Regions>"),
  rdf(
    inside="<MP:RegionInfo><MPRI:Regions><rdf:li MPReg:PersonDisplayName='Jane"
    " Doe'/></MPRI:Regions></MP:RegionInfo>"
  ),
)


@pytest.mark.parametrize("cloaked", [False, True])
@pytest.mark.parametrize("packet", PEOPLE)
def test_no_name_is_left(photo, packet, cloaked):
  """Nor where it is one among other words."""
  keywords = rdf(
    inside="<dc:subject><rdf:Bag><rdf:li>Jane Doe</rdf:li></rdf:Bag>"
    "</dc:subject><dc:title>Jane Doe at sea</dc:title><dc:type>sea</dc:type>"
  )
  iptc = hiding.dataset(2, 25, b"someone") + hiding.dataset(2, 120, b"JANE DOE")
  iptc += hiding.dataset(2, 5, b"a title")
  block = hiding.exif([(0x010E, 2, b"with Jane Doe, 2026\x00")])
  resources = hiding.photoshop(0x0404, iptc)
  data = hiding.jpeg(
    photo,
    hiding.segment(0xE1, EXIF + block),
    hiding.segment(0xE1, XMP + packet),
    hiding.segment(0xED, b"Photoshop 3.0\x00" + resources),
    hiding.segment(0xFE, b"Jane Doe"),
    trailing=second_picture(packet, keywords),
  )
  photo = decode(data)
  assert codec.names_people(photo)
  assert b"Jane Doe" in codec.encode(photo, [CHANGE])
  encoded, _ = (cloak if cloaked else copy)(data, strip_names=True)
  assert not re.search(
    rb"jane|doe|someone|mwg-rs|MPReg", encoded, re.IGNORECASE
  )
  assert b"a title" in encoded
  assert_exif_is_kept(encoded)
  assert not codec.names_people(decode(encoded))


def test_names_go_from_other_formats(photo):
  packet = PEOPLE[0]
  international = b"XML:com.adobe.xmp" + bytes(5) + packet
  for data in (
    hiding.png(photo, hiding.chunk(b"iTXt", international)),
    hiding.webp(photo, (b"XMP ", packet)),
    hiding.tiff(photo, [(0x02BC, 1, packet), (0x010E, 2, b"Jane Doe\x00")]),
  ):
    assert codec.names_people(decode(data))
    for act in cloak, copy:
      encoded, _ = act(data, strip_names=True)
      assert b"Jane" not in encoded
      assert not codec.names_people(decode(encoded))


def test_a_photo_of_nobody_names_nobody(photo):
  assert not codec.names_people(decode(with_xmp(photo, rdf('dc:a="b"'))))


def test_heic_is_stripped_and_says_what_it_loses(photo):
  pillow_heif = pytest.importorskip("pillow_heif")
  pillow_heif.register_heif_opener()
  located, named = LOCATED[0], PEOPLE[0]
  for packet in located, named:
    data = hiding.save(photo, "HEIF", xmp=packet, exif=EXIF + gps_block())
    encoded, lost = cloak(data, strip_location=True, strip_names=True)
    assert not PLACE.search(encoded)
    assert b"Jane" not in encoded
    assert_exif_is_kept(encoded)
    assert not lost
  packet = rdf(inside=f"<a:B>{THUMBNAIL.hex()}</a:B>")
  clip = struct.pack(">I", len(CLIP) + 8) + b"mpvd" + CLIP
  data = hiding.save(photo, "HEIF", xmp=packet) + clip
  encoded, lost = cloak(data)
  assert lost == {"preview", "motion clip"}
  assert THUMBNAIL.hex().encode() not in encoded
  assert CLIP not in encoded


def test_no_location_is_left_in_texts_and_notes(photo):
  note = b"DEVC\x00GPS5\x00\x01 52.5163"
  comment = b"ASCII\x00\x00\x00" + b'{"latitude": 52.5163, "more": 1}'
  block = hiding.exif([], sub=[(0x9286, 7, comment), (0x927C, 7, note)])
  jpeg = hiding.jpeg(
    photo,
    hiding.segment(0xE1, EXIF + block),
    hiding.segment(0xE6, b"GoPro\x00" + note),
    hiding.segment(0xE1, b"Exif\x00\xff" + gps_block()),
    hiding.segment(0xE3, b"Meta\x00\x00" + gps_block()),
    hiding.segment(0xFE, b"Latitude 52.5163"),
  )
  text = b"exif:GPSLatitude\x0052.5163"
  png = hiding.png(photo, hiding.chunk(b"tEXt", text))
  for data in jpeg, png:
    for act in cloak, copy:
      encoded, _ = act(data, strip_location=True)
      assert not PLACE.search(encoded)
    assert b"52.5163" in cloak(data)[0]


def test_stripping_leaves_all_but_the_metadata_as_it_was(photo):
  packet, palette = LOCATED[0], photo.quantize(16)
  international = b"XML:com.adobe.xmp" + bytes(5) + packet
  lossy = hiding.webp(photo, (b"XMP ", packet))
  for data in (
    hiding.png(palette, hiding.chunk(b"iTXt", international)),
    lossy,
    hiding.webp(photo, (b"XMP ", packet), lossless=True),
  ):
    encoded, lost = copy(data, strip_location=True)
    before, after = opened(data), opened(encoded)
    assert after.mode == before.mode
    assert after.tobytes() == before.tobytes()
    assert not lost
