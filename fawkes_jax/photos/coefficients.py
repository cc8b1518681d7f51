"""The coefficients of JPEG files, read and written in memory by libjpeg.

jpeglib brings libjpeg, but its own Python classes keep a photo's markers and
the chosen libjpeg in global variables, decode a file four times to read it
once, and convert every array. The two functions below its classes, which read
and write coefficients, share nothing, so that threads can be inside at the same
time; markers are `segments`' business anyway. Other libraries on PyPI have no
access to coefficients (simplejpeg, Pillow), or only through a TurboJPEG that
the system must have (PyTurboJPEG), or are no longer kept (jpegio, torchjpeg).
The functions want the names of files; they get files that are in memory, where
the system has such.
"""

import contextlib
import ctypes
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator

import numpy as np
from jpeglib import _bind

from fawkes_jax import types
from fawkes_jax.photos import segments
from fawkes_jax.photos.blocks import Coefficients
from fawkes_jax.photos.quiet import quiet_natives

# The fastest of jpeglib's, one that every build has, and one that chooses the
# scans of progressive files.
_USUAL, _PLAIN, _PROGRESSIVE = "turbo210", "6b", "mozjpeg300"
_GREY, _YCBCR = 1, 3  # As libjpeg numbers colour spaces.


def read(data: bytes, header: segments.Header) -> Coefficients:
  """Reads the coefficients of a file.

  Args:
    data: a file that has been decoded without complaint, with its end.
    header: its header; greyscale or YCbCr.

  Raises:
    types.PhotoError: libjpeg refuses, or there is no room.
  """
  sampling = header.sampling if len(header.sampling) == 3 else ((1, 1),)
  c = Coefficients(
    height=header.height,
    width=header.width,
    planes=[],
    tables=[],
    sampling=list(sampling),
  )
  c.planes = [np.empty((*shape, 8, 8), np.int16) for shape in _blocks_of(c)]
  tables, numbers = np.zeros((4, 8, 8), np.uint16), np.zeros(4, np.int16)
  with _library_calls(), _file(data) as path:
    _usual().read_jpeg_dct(
      path,
      *_pointers(c.planes),
      _pointer(tables),
      _pointer(numbers),
    )
  c.tables = [tables[n].copy() for n in numbers[: len(c.planes)]]
  return c


def write(c: Coefficients, *, progressive: bool) -> bytes:
  """A file of coefficients, without metadata.

  Args:
    c: the coefficients, which 8-bit coding can hold.
    progressive: whether it gets several scans, where the library can.

  Returns:
    The file, with optimised Huffman tables.

  Raises:
    types.PhotoError: libjpeg refuses, or there is no room.
  """
  room = 2 * sum(plane.nbytes for plane in c.planes)
  with _library_calls(), _file(room=room) as path:
    flags = [] if progressive else ["+OPTIMIZE_CODING"]
    _write(c, path, _usual(), flags=flags)
    if progressive:
      with contextlib.suppress(RuntimeError), _file(room=room) as scans:
        # Not every build of jpeglib has it; one scan does as well.
        _write(c, scans, _library(_PROGRESSIVE), source=path)
        return _content(scans)
      _write(c, path, _usual(), flags=["+OPTIMIZE_CODING"])
    return _content(path)


def _write(
  c: Coefficients,
  path: str,
  library: type[_bind.CJpegLib],
  *,
  source: str | None = None,
  flags: list[str] | None = None,
) -> None:
  planes = [np.ascontiguousarray(p, np.int16) for p in c.planes]
  tables, numbers = _distinct(c.tables)
  shapes = [side for plane in planes for side in plane.shape[:2]]
  factors = [factor for pair in c.sampling for factor in pair]
  colours = _YCBCR if len(planes) == 3 else _GREY
  library.write_jpeg_dct(
    source,
    path,
    *_pointers(planes),
    _numbers([c.height, c.width]),
    _numbers(shapes),
    colours,
    len(planes),
    _numbers(factors),
    _pointer(tables),
    -1,
    _pointer(numbers),
    0,
    None,
    None,
    None,
    flags,
  )


def _blocks_of(c: Coefficients) -> list[tuple[int, int]]:
  """Rows and columns of blocks of each component."""
  rows, columns = c.most
  return [
    (-(-c.height * v // (8 * rows)), -(-c.width * h // (8 * columns)))
    for v, h in c.sampling
  ]


def _distinct(tables: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  """Different tables, and which one each component has."""
  found: list[np.ndarray] = []
  numbers = []
  for table in tables:
    same = [i for i, t in enumerate(found) if np.array_equal(t, table)]
    numbers.append(same[0] if same else len(found))
    if not same:
      found.append(table)
  return np.array(found, np.uint16), np.array(numbers, np.int16)


@functools.cache
def _usual() -> type[_bind.CJpegLib]:
  """The library for all but progressive files."""
  try:
    return _library(_USUAL)
  except RuntimeError:
    return _library(_PLAIN)


@functools.cache
def _library(name: str) -> type[_bind.CJpegLib]:
  """One of jpeglib's libraries, which no other code can exchange.

  Raises:
    RuntimeError: it was not built.
  """

  class Library(_bind.CJpegLib):
    """Its own variables instead of those that all code shares."""

  Library.set_version(name)
  return Library


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
  return ctypes.c_void_p(array.ctypes.data)


def _pointers(planes: list[np.ndarray]) -> list[ctypes.c_void_p | None]:
  """Those of four components; None for what there is not."""
  return [*map(_pointer, planes), *[None] * (4 - len(planes))]


def _numbers(values: list[int]) -> ctypes.Array:
  return (ctypes.c_int * 8)(*values)


@contextlib.contextmanager
def _library_calls() -> Iterator[None]:
  """What goes wrong in the library is the photo's, and it says nothing."""
  try:
    with quiet_natives():
      yield
  except (OSError, ValueError) as error:
    raise types.PhotoError(f"JPEG coefficients: {error}") from error


@contextlib.contextmanager
def _file(content: bytes = b"", *, room: int = 0) -> Iterator[str]:
  """A file that nobody else sees, by its name; in memory where there is such.

  libjpeg ends the process when it cannot write, so that there must be room for
  so many bytes.
  """
  if hasattr(os, "memfd_create"):
    descriptor = os.memfd_create("fawkes-jax")
    try:
      with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
      yield f"/proc/self/fd/{descriptor}"
    finally:
      os.close(descriptor)
    return
  with tempfile.NamedTemporaryFile(prefix="fawkes-jax-") as file:
    folder = os.path.dirname(file.name)
    if shutil.disk_usage(folder).free < room + 2**20:
      raise types.PhotoError(f"no room for temporary files in {folder}")
    file.write(content)
    file.flush()
    yield file.name


def _content(path: str) -> bytes:
  with open(path, "rb") as file:
    return file.read()
