"""How soon a run over very many names begins, and how much memory it takes.

  python tests/benchmarks/listing.py --files=1000000

The archive is synthetic: a file system of so many names in folders of a
thousand, whose files are no photos. So all that is measured is what a name
costs: listing, reading, recording, merging.
"""

import argparse
import pathlib
import tempfile
import threading
import time

import fsspec

from fawkes_jax import cli

_FOLDER = 1000


class Many(fsspec.AbstractFileSystem):
  """The host's number of files; a folder is made up when it is listed."""

  protocol = "many"
  cachable = False

  @classmethod
  def _strip_protocol(cls, path: str) -> str:
    return path.removeprefix("many://").rstrip("/")

  def ls(self, path: str, detail: bool = True, **_: object) -> list:
    count, _, folder = self._strip_protocol(path).partition("/")
    left = int(count)
    if not folder:
      return [
        {"name": f"{path}/{i:06}", "type": "directory", "size": 0}
        for i in range(-(-left // _FOLDER))
      ]
    left = min(_FOLDER, left - int(folder) * _FOLDER)
    return [
      {"name": f"{path}/{i:03}.txt", "type": "file", "size": 5}
      for i in range(left)
    ]

  def info(self, path: str, **_: object) -> dict:
    return {"name": path, "type": "directory", "size": 0}

  def cat_file(self, path: str, *_: object, **__: object) -> bytes:
    return b"photo"


def _resident() -> int:
  """MiB of memory that this process has now."""
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith("VmRSS"):
      return int(line.split()[1]) >> 10
  return 0


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--files", type=int, default=1_000_000)
  arguments = parser.parse_args()
  fsspec.register_implementation("many", Many)
  began = time.monotonic()
  ended = threading.Event()
  with tempfile.TemporaryDirectory() as folder:
    parts = pathlib.Path(folder) / "out" / ".manifest"

    def watch() -> None:
      first = None
      while not ended.wait(0.05 if first is None else 20):
        if first is None and any(parts.glob("*.jsonl")):
          first = time.monotonic() - began
          print(f"first outcome after {first:.1f} s", flush=True)
        if first is not None:
          now = time.monotonic() - began
          print(f"{now:.0f} s: {_resident()} MiB", flush=True)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
      cli.entry(
        [
          *("cloak", f"--input=many://{arguments.files}"),
          *(f"--output={folder}/out", "--surrogates=dlib_resnet"),
        ]
      )
    except SystemExit as end:
      print(f"exit code {end.code}")
    ended.set()
    thread.join()
    print(f"{time.monotonic() - began:.0f} s in all, {_resident()} MiB")


if __name__ == "__main__":
  main()
