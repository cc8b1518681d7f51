"""Object stores as people use them, on this machine's loopback."""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

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
      pytest.skip(f"{module} is not installed")


def free_port() -> int:
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    return probe.getsockname()[1]


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
  """An S3 server with a bucket "photos"; yields the environment to use it with."""
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
  """The environment of this process, with other values for a while."""
  before = {name: os.environ.get(name) for name in environment}
  os.environ.update(environment)
  try:
    yield
  finally:
    for name, value in before.items():
      if value is None:
        del os.environ[name]
      else:
        os.environ[name] = value
