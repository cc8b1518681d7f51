"""What people of an archive are called: `.manifest/people/names.json`.

A name is that of faces, by the sha256 of their photo's file and their place on
it, and not that of a group of faces: groups change when photos come and go. So
a name outlives the index, of which it has no embedding.
"""

import json
import unicodedata
from collections.abc import Iterable

from fawkes_jax import types
from fawkes_jax.archive import files, manifest, storage

# Not the folder of the manifest: a .json there is a process of a run.
FOLDER = f"{manifest.FOLDER}/people"
_NAME = f"{FOLDER}/names.json"
_FORMAT = 1

Box = tuple[int, int, int, int]
Face = tuple[str, Box]
"""The sha256 of a photo's file, and where in the photo the face is."""
Names = dict[str, frozenset[Face]]


def plain(name: str) -> str:
  """A name as it is compared, however it was typed."""
  return unicodedata.normalize("NFC", name.strip())


def read(store: storage.Store) -> Names:
  """The names of an output folder, and the faces that have them.

  Args:
    store: the output folder.

  Raises:
    types.FawkesError: they cannot be read.
  """
  try:
    data = store.read(_NAME)
  except FileNotFoundError:
    return {}
  except OSError as error:
    raise _failure(store, "read", files.reason(error)) from error
  try:
    said = json.loads(data)
    if said["format"] != _FORMAT:
      why = "it is of another version of this program"
      raise _failure(store, "read", why)
    return {
      name: frozenset((sha256, tuple(box)) for sha256, box in faces)
      for name, faces in said["names"].items()
    }
  except (KeyError, ValueError, TypeError, AttributeError) as error:
    raise _failure(store, "read", "it is damaged") from error


def write(store: storage.Store, names: Names) -> None:
  """Replaces the names of an output folder.

  Raises:
    types.FawkesError: they cannot be written.
  """
  said = {name: sorted(faces) for name, faces in sorted(names.items())}
  text = json.dumps({"format": _FORMAT, "names": said}, ensure_ascii=False)
  try:
    if names:
      store.write(_NAME, text.encode())
    else:
      store.remove(_NAME)
  except OSError as error:
    raise _failure(store, "written", files.reason(error)) from error


def shown(names: Iterable[str]) -> str:
  """Names for a message."""
  return ", ".join(map(files.printable, sorted(names)))


def _failure(store: storage.Store, what: str, why: str) -> types.FawkesError:
  return types.FawkesError(f"{store.address}/{_NAME} cannot be {what}: {why}")
