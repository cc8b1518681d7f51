"""Downloads files over HTTP, to be continued, and checked by their sha256."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from fawkes_jax import types, version

_TIMEOUT = 30.0
"""Seconds without an answer after which a server is given up."""

_CHUNK = 1 << 18


def fetch(
  address: str,
  path: Path,
  *,
  sha256: str,
  report: Callable[[int, int | None], None] = lambda done, total: None,
) -> None:
  """Downloads a file, or the rest of it.

  What has arrived lies beside it, with ".part" behind its name, until all of
  it has and its sha256 is right.

  Args:
    address: the address of the file, http or https; redirects are followed.
    path: where to; missing folders are made, a file is replaced.
    sha256: that the file must have, in hexadecimal.
    report: gets how many bytes there are, and there will be where it is known.

  Raises:
    FawkesError: the server cannot be reached, has no such file or stops too
      early (the part that is there stays, to be continued), the file cannot
      be written, or is another one (and is removed).
  """
  part = path.with_name(f"{path.name}.part")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    _continue(address, part, report)
    with part.open("rb") as file:
      digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
      part.unlink()
      raise types.FawkesError(
        f"{address}: the sha256 must be {sha256}, got {digest}; the file was"
        " removed"
      )
    os.replace(part, path)
  except OSError as error:
    raise types.FawkesError(
      f"{path} cannot be written: {error.strerror or error}"
    ) from error


def _continue(
  address: str, part: Path, report: Callable[[int, int | None], None]
) -> None:
  """Adds to a part what it lacks; OSErrors are those of the disk."""
  start = part.stat().st_size if part.exists() else 0
  with _open(address, start) as answer:
    if answer.status == 416:  # There is nothing behind the part.
      return
    # A server that knows no ranges sends the file from its beginning.
    done = start if _range_start(answer) == start else 0
    length = answer.headers.get("Content-Length")
    total = done + int(length) if length else None
    with part.open("ab" if done else "wb") as file:
      while chunk := _read(answer, address):
        file.write(chunk)
        done += len(chunk)
        report(done, total)
  if total is not None and done < total:
    raise types.FawkesError(
      f"{address}: the connection ended after {done} of {total} bytes; the same"
      " command continues"
    )


def _open(address: str, start: int) -> http.client.HTTPResponse:
  """Asks for a file from one of its bytes on; a status of 416 is no error."""
  request = urllib.request.Request(
    address, headers={"User-Agent": f"fawkes-jax/{version.__version__}"}
  )
  if start:
    request.add_header("Range", f"bytes={start}-")
  try:
    return urllib.request.urlopen(request, timeout=_TIMEOUT)
  except urllib.error.HTTPError as error:
    if error.code == 416 and start:
      return error  # type: ignore[return-value]
    error.close()
    raise types.FawkesError(
      f"{address}: the server must have the file, it says {error.code}"
      f" {error.reason}"
    ) from error
  except (OSError, http.client.HTTPException) as error:
    raise _offline(address, error) from error


def _range_start(answer: http.client.HTTPResponse) -> int:
  """The first byte of the file that an answer holds."""
  # Content-Range: bytes 1000-1999/2000
  content = answer.headers.get("Content-Range", "")
  first = content.removeprefix("bytes").strip().partition("-")[0]
  return int(first) if answer.status == 206 and first.isdecimal() else 0


def _read(answer: http.client.HTTPResponse, address: str) -> bytes:
  try:
    return answer.read(_CHUNK)
  except (OSError, http.client.HTTPException) as error:
    raise _offline(address, error) from error


def _offline(address: str, error: Exception) -> types.FawkesError:
  reason = error.reason if isinstance(error, urllib.error.URLError) else error
  return types.FawkesError(
    f"{address}: {urlsplit(address).hostname} cannot be reached ({reason});"
    " fetching needs the internet, the same command continues"
  )
