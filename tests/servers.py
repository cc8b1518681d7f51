"""Object stores as people use them, on this machine's loopback."""

import contextlib
import http.client
import http.server
import importlib.util
import os
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping

import pytest

S3_ENVIRONMENT = {
  "AWS_ACCESS_KEY_ID": "testing",
  "AWS_SECRET_ACCESS_KEY": "testing",
  "AWS_DEFAULT_REGION": "us-east-1",
  "AWS_EC2_METADATA_DISABLED": "true",
}


def need(*modules: str) -> None:
  """Skips where a module is missing, without importing it."""
  for module in modules:
    if importlib.util.find_spec(module) is None:
      pytest.skip(f"{module} is not installed", allow_module_level=True)


def free_port() -> int:
  """A port that nothing listens on.

  Systems hand out ports above 32767 for connections, so that nobody takes one
  of these by chance before it is used.
  """
  while True:
    port = random.SystemRandom().randrange(20000, 32768)
    with socket.socket() as probe, contextlib.suppress(OSError):
      probe.bind(("127.0.0.1", port))
      return port


@contextlib.contextmanager
def serving(command: list[str], url: str) -> Iterator[None]:
  """Runs a server until the end of the block."""
  with subprocess.Popen(
    command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
  ) as server:
    try:
      deadline = time.monotonic() + 60
      while True:
        try:
          urllib.request.urlopen(url, timeout=5).close()
          break
        except urllib.error.HTTPError:
          break
        except OSError:
          if server.poll() is not None or time.monotonic() > deadline:
            raise
          time.sleep(0.05)
      yield
    finally:
      server.kill()


@contextlib.contextmanager
def s3() -> Iterator[dict[str, str]]:
  """An S3 server with a bucket "photos"; yields the environment to use it."""
  need("moto", "s3fs")
  port = free_port()
  url = f"http://127.0.0.1:{port}"
  environment = {**S3_ENVIRONMENT, "AWS_ENDPOINT_URL": url}
  command = [
    *(sys.executable, "-c", "from moto.server import main; main()"),
    *("--host", "127.0.0.1", "--port", str(port)),
  ]
  with serving(command, f"{url}/moto-api/"), changed(environment):
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).mkdir("photos")
    yield environment


@contextlib.contextmanager
def gcs() -> Iterator[dict[str, str]]:
  """A server of Google Cloud Storage with a bucket "photos", likewise."""
  need("gcp_storage_emulator", "gcsfs")
  port = free_port()
  url = f"http://127.0.0.1:{port}"
  environment = {
    "STORAGE_EMULATOR_HOST": url,
    # It would ask what kind of bucket it is, with credentials.
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
  }
  command = [
    *(sys.executable, "-c"),
    "from gcp_storage_emulator.__main__ import main; main()",
    *("start", "--host=127.0.0.1", f"--port={port}", "--in-memory"),
    "--default-bucket=photos",
  ]
  with serving(command, f"{url}/storage/v1/b"), changed(environment):
    yield environment


@contextlib.contextmanager
def changed(environment: dict[str, str]) -> Iterator[None]:
  """The environment of this process, with other values for a while.

  What was opened with the former ones is forgotten.
  """
  before = {name: os.environ.get(name) for name in environment}
  os.environ.update(environment)
  forget()
  try:
    yield
  finally:
    forget()
    for name, value in before.items():
      if value is None:
        del os.environ[name]
      else:
        os.environ[name] = value


@contextlib.contextmanager
def unreliable(
  url: str, *, failures: float = 0.0, refused: Mapping[str, int] = {}
) -> Iterator[str]:
  """Another address of a server, where some requests fail.

  Half of them with status 503 before the server has heard of them, the others
  by a lost connection after it has done what was asked.

  Args:
    url: of the server.
    failures: which part of the requests fails.
    refused: statuses of requests, by method and part of the path: "GET /a.jpg".

  Yields:
    The other address.
  """
  host = url.removeprefix("http://")
  chance = random.Random(0)

  class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_request(self) -> None:
      length = int(self.headers.get("Content-Length") or 0)
      body = self.rfile.read(length)
      fate = chance.random()
      status = 503 if fate < failures / 2 else None
      for what, code in refused.items():
        method, _, part = what.partition(" ")
        if method == self.command and part in self.path:
          status = code
      if status is not None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return
      server = http.client.HTTPConnection(host, timeout=60)
      server.request(self.command, self.path, body, dict(self.headers))
      answer = server.getresponse()
      data = answer.read()
      server.close()
      if fate < failures:
        self.close_connection = True
        self.connection.close()
        return
      self.send_response(answer.status)
      dropped = {"transfer-encoding", "connection", "date"}
      if self.command != "HEAD":
        dropped.add("content-length")
        self.send_header("Content-Length", str(len(data)))
      for name, value in answer.getheaders():
        if name.lower() not in dropped:
          self.send_header(name, value)
      self.end_headers()
      self.wfile.write(data)

    def log_message(self, *_: object) -> None:
      pass

  for method in ("GET", "PUT", "POST", "HEAD", "DELETE"):
    setattr(Handler, f"do_{method}", Handler.handle_request)
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  server.handle_error = lambda *_: None  # type: ignore[method-assign]
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    yield f"http://127.0.0.1:{server.server_port}"
  finally:
    server.shutdown()
    server.server_close()
    thread.join()


def forget() -> None:
  """Makes fsspec open its connections anew."""
  for name in ("s3fs", "gcsfs"):
    if name in sys.modules:
      kind = {"s3fs": "S3FileSystem", "gcsfs": "GCSFileSystem"}[name]
      getattr(sys.modules[name], kind).clear_instance_cache()
