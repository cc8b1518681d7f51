"""Makes checkpoints/averaged_faces.safetensors.

The identities of target_bank.safetensors are put into groups of people who
look alike to its extractors, four or more each, and all faces of a group are
averaged: pictures of nobody. Usage, after `pip install -e .[test]`, with the
folder of identities that the bank was made from:

    python docs/make_averaged_faces.py ../lfw
"""

import contextlib
import pathlib
import sys

import numpy as np
import safetensors.numpy
import sklearn.cluster
import tqdm
from PIL import Image

from fawkes_jax import types
from fawkes_jax.archive import scan
from fawkes_jax.engine import embedder
from fawkes_jax.faces import finder, recognition
from fawkes_jax.options import FaceOptions
from fawkes_jax.weights import averages, bank

GROUPS = 32
LEAST = 4
SIZE = 112
# As `fawkes-jax bank` has chosen them.
IDENTITIES, PHOTOS = 256, (4, 9)


def _picture(face: finder.AlignedFace) -> np.ndarray:
  """The part of a crop that is filled, uint8 [SIZE, SIZE, 3]."""
  side = round(face.alignment.side)
  crop = np.uint8(np.rint(face.crop[:side, :side]))
  return np.asarray(Image.fromarray(crop).resize((SIZE, SIZE)))


def main() -> None:
  """Writes the file."""
  folders = [
    folder
    for folder in sorted(pathlib.Path(sys.argv[1]).iterdir())
    if PHOTOS[0] <= len(list(folder.iterdir())) <= PHOTOS[1]
  ]
  folders = [folders[i * len(folders) // IDENTITIES] for i in range(IDENTITIES)]
  everybody = bank.load(sorted(bank.names()))
  looks = embedder.normalised(everybody.embeddings, everybody.centres)
  groups = sklearn.cluster.KMeans(
    GROUPS, n_init=10, random_state=0
  ).fit_predict(np.concatenate([looks[name] for name in sorted(looks)], axis=1))
  if np.bincount(groups).min() < LEAST:
    raise SystemExit(f"a group has fewer than {LEAST} people")

  options = FaceOptions(extractors=("dlib_resnet",), min_face_pixels=50)
  known = recognition.Recognition(options)
  sums = np.zeros((GROUPS, SIZE, SIZE, 3))
  counts = np.zeros(GROUPS)
  for group, folder in zip(groups, tqdm.tqdm(folders), strict=True):
    for source in scan.scan(folder):
      with contextlib.suppress(types.PhotoError):
        photo = recognition.load_photo(source, options)
        found = known.finder.find([photo.pixels])[0]
        if found:
          face = max(found, key=lambda face: face.alignment.extent)
          sums[group] += _picture(face)
          counts[group] += 1
  faces = np.rint(sums / counts[:, None, None, None]).astype(np.uint8)
  safetensors.numpy.save_file(
    {"faces": faces, "groups": groups.astype(np.int32)}, averages.path()
  )


if __name__ == "__main__":
  main()
