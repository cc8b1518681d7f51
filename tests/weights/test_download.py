"""Downloads from a server on this machine, whole, continued and broken off."""

import hashlib
import http.server
import re
import socket
import threading

import numpy as np
import pytest

from fawkes_jax import types
from fawkes_jax.weights import download

DATA = np.random.default_rng(0).bytes(700_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
  """Serves DATA; the server's attributes say how well."""

  def do_GET(self):
    server = self.server
    start = self.headers.get("Range", "")
    server.asked.append((self.path, start))
    if self.path == "/moved":
      self.send_response(302)
      self.send_header("Location", "/file")
      self.end_headers()
      return
    if self.path != "/file":
      self.send_error(404)
      return
    found = re.fullmatch(r"bytes=(\d+)-", start) if server.ranges else None
    first = int(found[1]) if found else 0
    if found and first >= len(DATA):
      self.send_error(416)
      return
    self.send_response(206 if found else 200)
    if found:
      self.send_header(
        "Content-Range", f"bytes {first}-{len(DATA) - 1}/{len(DATA)}"
      )
    self.send_header("Content-Length", str(len(DATA) - first))
    self.end_headers()
    body = DATA[first:]
    self.wfile.write(body[: len(body) // 2] if server.breaks else body)

  def log_message(self, *_):
    pass


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv("no_proxy", "127.0.0.1")
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    server.asked, server.ranges, server.breaks = [], True, False
    server.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()


def fetch(server, path, *, where="/file", sha256=SHA256):
  """Fetches the file; how many bytes there were each time it was reported."""
  reports = []
  download.fetch(
    server.address + where,
    path,
    sha256=sha256,
    report=lambda *numbers: reports.append(numbers),
  )
  return reports


@pytest.mark.parametrize("where", ["/file", "/moved"])
def test_a_whole_file(server, tmp_path, where):
  path = tmp_path / "new" / "folder" / "file"
  reports = fetch(server, path, where=where)
  assert path.read_bytes() == DATA
  assert list(path.parent.iterdir()) == [path]
  assert reports[-1] == (len(DATA), len(DATA))
  assert all(start == "" for _, start in server.asked)


@pytest.mark.parametrize("ranges", [True, False])
def test_the_rest_of_a_file(server, tmp_path, ranges):
  """A server without ranges sends all of it again."""
  server.ranges = ranges
  part = tmp_path / "file.part"
  part.write_bytes(DATA[:300_000])
  reports = fetch(server, tmp_path / "file")
  assert (tmp_path / "file").read_bytes() == DATA
  assert server.asked == [("/file", "bytes=300000-")]
  assert (reports[0][0] > 300_000) == ranges
  assert {total for _, total in reports} == {len(DATA)}
  assert not part.exists()


def test_a_part_that_is_complete(server, tmp_path):
  (tmp_path / "file.part").write_bytes(DATA)
  assert fetch(server, tmp_path / "file") == []
  assert (tmp_path / "file").read_bytes() == DATA


def test_a_broken_connection_is_continued(server, tmp_path):
  path = tmp_path / "file"
  server.breaks = True
  with pytest.raises(types.FawkesError, match="350000 of 700000 bytes; the sa"):
    fetch(server, path)
  assert not path.exists()
  assert path.with_name("file.part").stat().st_size == 350_000
  server.breaks = False
  fetch(server, path)
  assert path.read_bytes() == DATA
  assert server.asked[-1] == ("/file", "bytes=350000-")


@pytest.mark.parametrize("part", [None, b"of another file", DATA + b"more"])
def test_another_file_is_removed(server, tmp_path, part):
  """Whether the server has another one, or a wrong part was here."""
  path = tmp_path / "file"
  path.write_bytes(b"the old one")
  if part:
    path.with_name("file.part").write_bytes(part)
  wrong = SHA256 if part else "0" * 64
  with pytest.raises(types.FawkesError, match=r"sha256 must be .* removed"):
    fetch(server, path, sha256=wrong)
  assert list(tmp_path.iterdir()) == [path]
  assert path.read_bytes() == b"the old one"


def test_a_missing_file(server, tmp_path):
  with pytest.raises(types.FawkesError, match="have the file, it says 404 Not"):
    fetch(server, tmp_path / "file", where="/other")
  assert list(tmp_path.iterdir()) == []


def test_offline(tmp_path):
  """Nobody listens there; the part that is here stays."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  (tmp_path / "file.part").write_bytes(DATA[:1000])
  with pytest.raises(types.FawkesError) as error:
    download.fetch(
      f"http://127.0.0.1:{port}/file", tmp_path / "file", sha256=SHA256
    )
  assert "127.0.0.1 cannot be reached (" in str(error.value)
  assert "fetching needs the internet" in str(error.value)
  assert (tmp_path / "file.part").read_bytes() == DATA[:1000]


def test_a_folder_that_cannot_be_written(server, tmp_path):
  (tmp_path / "folder").write_text("a file")
  with pytest.raises(types.FawkesError, match="cannot be written"):
    fetch(server, tmp_path / "folder" / "file")
