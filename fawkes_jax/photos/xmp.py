"""Edits of XMP packets (ISO 16684-1), whatever prefixes they use.

A packet that needs no edit stays as it is, byte for byte.
"""

import re
from collections.abc import Callable, Iterator
from typing import TypeAlias
from xml.dom import expatbuilder, minidom
from xml.parsers import expat

from fawkes_jax.photos import pictures
from fawkes_jax.photos.edits import Edits, is_located
from fawkes_jax.photos.orientation import Orientation

# People and their faces: of the Metadata Working Group, Microsoft, IPTC,
# ACDSee, Apple, Getty and others.
_PEOPLE = re.compile(
  r":(?:Regions?|RegionInfo|RegionList|ImageRegion|PersonInImage\w*|People"
  r"|Person\w*Name|PersonEmailDigest|FaceName|Personality)$"
  r"|^(?:mwg-rs|MPRI|MPReg|MP|apple-fi|acdsee-rs):",
  re.IGNORECASE,
)
_NAMES = re.compile(
  r"^(?:mwg-rs|acdsee-rs):Name$"
  r"|:(?:PersonDisplayName|PersonInImage|PersonName|FaceName|Personality)$"
)
_REGIONS = re.compile(r":(?:Regions|RegionList)$")
# Where programs put the names of people among other words.
_KEYWORDS = re.compile(
  r"^dc:subject$|:(?:hierarchicalSubject|weightedFlatSubject|TagsList"
  r"|LastKeyword\w+|CatalogSets|categories|keywords)$",
  re.IGNORECASE,
)
# What promises pictures and clips behind the first picture.
_PROMISES = re.compile(
  r"^(?:hdrgm|HDRGainMap|G?Container|Item):|^xmlns:(?:hdrgm|HDRGainMap)$"
  r"|:(?:MotionPhoto\w*|MicroVideo\w*)$"
)
_EXTENDED = re.compile(r":HasExtendedXMP$")
_THUMBNAILS = re.compile(r":(?:Thumbnails|PageImage)$")
_SIZES = (
  ("tiff:ImageWidth", "tiff:ImageLength"),
  ("exif:PixelXDimension", "exif:PixelYDimension"),
)
_LEAST = 48
_DIGITS = 6

_Parent: TypeAlias = minidom.Element | minidom.Document
_Value: TypeAlias = tuple[str, minidom.Element, minidom.Attr | None]


def names_in(packet: bytes) -> frozenset[str]:
  """The names of people in a packet, in lower case."""
  document = _parse(packet)
  if document is None:
    return frozenset()
  found = {
    _text(element, attribute).strip().lower()
    for name, element, attribute in _values(document)
    if _NAMES.search(name)
    or (attribute is None and _is_person(element))
    or (name.endswith(":Name") and _is_in_regions(element))
  }
  return frozenset(name for name in found if len(name) > 1)


def has_people(packet: bytes) -> bool:
  """Whether a packet has names of people, or regions of their faces."""
  document = _parse(packet)
  if document is None:
    return re.search(rb"PersonInImage|mwg-rs:|MPReg:", packet) is not None
  return any(_PEOPLE.search(name) for name, _, _ in _values(document))


def clean_xmp(packet: bytes, edits: Edits, lost: set[str]) -> bytes:
  """The packet that a result carries; empty when it has to go.

  Args:
    packet: XML in UTF-8, or what should be.
    edits: what is done.
    lost: gets the names of what has to go.
  """
  document = _parse(packet)
  if document is None:
    return _clean_unreadable(packet, edits, lost)
  changed = False
  if edits.strip_location:
    changed |= _remove(document, is_located)
    changed |= _remove_values(document, is_located)
    changed |= _remove_remarks(document, is_located)
  if edits.strip_names:
    changed |= _remove(document, _PEOPLE.search)
    changed |= _remove(document, _KEYWORDS.search)
    changed |= _remove_values(document, edits.is_named_in)
    changed |= _remove_remarks(document, edits.is_named_in)
  if edits.cloaked or edits.alone:
    changed |= _remove(document, _PROMISES.search)
  if not edits.extended:
    changed |= _remove(document, _EXTENDED.search)
  if edits.how is not None:
    changed |= _turn(document, edits)
  if edits.cloaked:
    if _remove(document, _THUMBNAILS.search):
      changed = True
      lost.add("preview")
    if pictures.holds(_source(document)):
      changed = True
      lost.add("preview")
      _remove_pictures(document)
  cleaned = _source(document) if changed else packet
  if edits.cloaked and pictures.holds(cleaned):
    lost.add("XMP")
    return b""
  return cleaned


def _clean_unreadable(packet: bytes, edits: Edits, lost: set[str]) -> bytes:
  """A packet that is no XML: a cloaked photo does without it."""
  words = re.findall(r"[\w-]+(?::[\w-]+)?", packet.decode("latin-1"))
  unwanted = (
    edits.cloaked
    or (edits.strip_location and is_located(packet))
    or (
      edits.strip_names
      and any(_PEOPLE.search(w) or _KEYWORDS.search(w) for w in words)
    )
    or (edits.strip_names and edits.is_named_in(packet))
  )
  if unwanted:
    lost.add("XMP")
  return b"" if unwanted else packet


def _parse(packet: bytes) -> minidom.Document | None:
  """The packet as XML with its prefixes; None if it is none."""
  text = packet
  if b"\x00" in packet[:2]:
    order = "be" if packet[:1] == b"\x00" else "le"
    text = packet.decode(f"utf-16-{order}", "replace").encode()
  text = text.strip(b"\x00 \t\r\n")
  if not text or b"<!DOCTYPE" in text or b"<!ENTITY" in text:
    return None
  try:
    return expatbuilder.parseString(text, namespaces=False)
  except (expat.ExpatError, ValueError, LookupError):
    return None


def _source(document: minidom.Document) -> bytes:
  text = "".join(node.toxml() for node in document.childNodes)
  return text.encode()


def _elements(parent: _Parent) -> Iterator[minidom.Element]:
  """All elements below a node; the outer ones first."""
  waiting = list(parent.childNodes)[::-1]
  while waiting:
    node = waiting.pop()
    if node.nodeType == node.ELEMENT_NODE:
      yield node
      waiting += node.childNodes[::-1]


def _values(document: minidom.Document) -> Iterator[_Value]:
  """All attributes, and all elements; by name."""
  for element in _elements(document):
    yield element.tagName, element, None
    for attribute in list((element.attributes or {}).values()):
      yield attribute.name, element, attribute


def _text(element: minidom.Element, attribute: minidom.Attr | None) -> str:
  if attribute is not None:
    return attribute.value
  nodes = list(element.childNodes)
  parts = []
  while nodes:
    node = nodes.pop(0)
    if node.nodeType in (node.TEXT_NODE, node.CDATA_SECTION_NODE):
      parts.append(node.data)
    nodes[:0] = node.childNodes
  return "".join(parts)


def _is_person(element: minidom.Element) -> bool:
  """Whether an element is one of several names of people."""
  parents = element.parentNode, getattr(element.parentNode, "parentNode", None)
  return element.tagName.endswith(":li") and any(
    parent is not None and _NAMES.search(getattr(parent, "tagName", ""))
    for parent in parents
  )


def _is_in_regions(element: minidom.Element) -> bool:
  """Whether an element describes a region, whatever the prefixes are."""
  node: minidom.Element | None = element
  while node is not None:
    if _REGIONS.search(getattr(node, "tagName", "")):
      return True
    node = node.parentNode  # type: ignore[assignment]
  return False


def _remove_node(
  element: minidom.Element, attribute: minidom.Attr | None
) -> None:
  if attribute is not None:
    element.removeAttributeNode(attribute)
  elif element.parentNode is not None:
    element.parentNode.removeChild(element)


def _remove(document: minidom.Document, named: Callable[[str], object]) -> bool:
  """Removes attributes and elements by their names; whether any were there."""
  found = [value for value in _values(document) if named(value[0])]
  for _, element, attribute in found:
    if attribute is None and element is document.documentElement:
      continue
    if attribute is None or attribute.ownerElement is not None:
      _remove_node(element, attribute)
  return bool(found)


def _remove_values(
  document: minidom.Document, unwanted: Callable[[str], bool]
) -> bool:
  """Removes attributes and innermost elements by what they say."""
  found = [
    (element, attribute)
    for _, element, attribute in _values(document)
    if (attribute is not None or not any(_elements(element)))
    and not (attribute is not None and attribute.name.startswith("xmlns"))
    and unwanted(_text(element, attribute))
  ]
  for element, attribute in found:
    _remove_node(element, attribute)
  return bool(found)


def _remove_pictures(document: minidom.Document) -> None:
  """Removes what holds pictures: values, then what they make together."""

  def shows(text: str) -> bool:
    return len(text) >= _LEAST and pictures.holds(text.encode())

  # Of items that continue each other, the first may be all that shows it.
  for element in list(_elements(document)):
    items = [e for e in _elements(element) if e.parentNode is element]
    if len(items) > 1 and all(item.tagName == "rdf:li" for item in items):
      texts = [_text(item, None) for item in items]
      if any(map(shows, [*texts, "".join(texts)])):
        _remove_node(element, None)
  _remove_values(document, shows)
  for element in reversed(list(_elements(document))):
    if element is not document.documentElement and shows(_text(element, None)):
      _remove_node(element, None)
  _remove_remarks(document, shows)


def _remove_remarks(
  document: minidom.Document, unwanted: Callable[[str], bool]
) -> bool:
  """Removes comments and instructions by what they say."""
  changed = False
  parents: list[_Parent] = [document, *_elements(document)]
  for parent in parents:
    for node in list(parent.childNodes):
      if isinstance(
        node, minidom.Comment | minidom.ProcessingInstruction
      ) and unwanted(node.data):
        parent.removeChild(node)
        changed = True
  return changed


def _turn(document: minidom.Document, edits: Edits) -> bool:
  """Makes the orientation 1, and turns sizes and regions."""
  changed = False
  values: dict[str, list[_Value]] = {}
  for value in _values(document):
    values.setdefault(value[0], []).append(value)
  for value in values.get("tiff:Orientation", []):
    changed |= _write(value, "1")
  if edits.how == Orientation():
    return changed
  if edits.transposes:
    for width, height in _SIZES:
      for one, other in zip(
        values.get(width, []), values.get(height, []), strict=False
      ):
        changed |= _swap(one, other)
  for element in list(_elements(document)):
    fields = _fields(element)
    if edits.transposes:
      w, h = fields.get("stdim:w"), fields.get("stdim:h")
      if w is not None and h is not None:
        changed |= _swap(w, h)
    changed |= _turn_area(fields, edits)
    for name, _, _ in fields.values():
      if name.endswith(":Rectangle"):
        changed |= _turn_rectangle(fields[name.lower()], edits)
    if element.tagName == "exif:SubjectArea":
      changed |= _turn_subject(element, edits)
  return changed


def _fields(element: minidom.Element) -> dict[str, _Value]:
  """The simple fields of a structure: attributes, and elements in it."""
  fields: dict[str, _Value] = {}
  for attribute in list((element.attributes or {}).values()):
    fields[attribute.name.lower()] = attribute.name, element, attribute
  for child in element.childNodes:
    if child.nodeType == child.ELEMENT_NODE and not any(_elements(child)):
      fields[child.tagName.lower()] = child.tagName, child, None
  return fields


def _number(value: _Value) -> float:
  return float(_text(value[1], value[2]).strip())


def _write(value: _Value, text: str) -> bool:
  """Gives a value another text; whether it had one before."""
  _, element, attribute = value
  if _text(element, attribute) == text:
    return False
  if attribute is not None:
    attribute.value = text
    return True
  for node in list(element.childNodes):
    element.removeChild(node)
  assert element.ownerDocument is not None
  element.appendChild(element.ownerDocument.createTextNode(text))
  return True


def _swap(one: _Value, other: _Value) -> bool:
  texts = _text(*one[1:]), _text(*other[1:])
  return _write(one, texts[1]) | _write(other, texts[0])


def _turn_area(fields: dict[str, _Value], edits: Edits) -> bool:
  """Turns an area of a structure with fields such as `stArea:x`."""
  prefixes = {
    name.rpartition(":")[0]
    for name in fields
    if name.endswith("area:x") and f"{name[:-1]}y" in fields
  }
  for prefix in prefixes:
    x, y = fields[f"{prefix}:x"], fields[f"{prefix}:y"]
    unit = fields.get(f"{prefix}:unit")
    in_pixels = unit is not None and _text(*unit[1:]).strip() == "pixel"
    width, height = (edits.width, edits.height) if in_pixels else (1, 1)
    try:
      place = edits.turn_point(
        _number(x), _number(y), width=width, height=height
      )
    except ValueError:
      continue
    for value, number in zip((x, y), place, strict=True):
      _write(value, _plain(number))
    w, h = fields.get(f"{prefix}:w"), fields.get(f"{prefix}:h")
    if edits.transposes and w is not None and h is not None:
      _swap(w, h)
  return bool(prefixes)


def _turn_rectangle(value: _Value, edits: Edits) -> bool:
  """Turns Microsoft's rectangle: left, top, width, height, as fractions."""
  try:
    numbers = [float(part) for part in _text(*value[1:]).split(",")]
    left, top, width, height = numbers
  except ValueError:
    return False
  corners = (left, top), (left + width, top + height)
  turned = [edits.turn_point(x, y, width=1, height=1) for x, y in corners]
  xs, ys = zip(*turned, strict=True)
  box = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
  return _write(value, ", ".join(map(_plain, box)))


def _turn_subject(element: minidom.Element, edits: Edits) -> bool:
  items = [e for e in _elements(element) if e.tagName == "rdf:li"]
  try:
    numbers = tuple(int(_text(item, None)) for item in items)
  except ValueError:
    return False
  if len(numbers) < 2:
    return False
  turned = edits.turn_area(numbers)
  for item, number in zip(items, turned, strict=True):
    _write(("", item, None), str(number))
  return True


def _plain(number: float) -> str:
  return f"{number:.{_DIGITS}f}".rstrip("0").rstrip(".")
