import shutil

import numpy as np
import pytest

from fawkes_jax import types
from fawkes_jax.engine import embedder
from fawkes_jax.faces import cloaker
from fawkes_jax.options import CloakOptions
from fawkes_jax.weights import averages, bank, catalogue


def test_no_face_is_that_of_few_people():
  averaged = averages.load()
  faces, groups = averaged.faces, averaged.groups
  assert faces.dtype == np.uint8
  assert set(groups.tolist()) == set(range(len(faces)))
  assert np.bincount(groups).min() >= 4
  rows = len(bank.load(["dlib_resnet"]).embeddings["dlib_resnet"])
  assert len(groups) == rows


def test_what_the_bank_does_not_cover_sees_the_same_people(tmp_path):
  """A network of the package under another name, for which nothing is known."""
  name = "student_ghostfacenet"
  stranger = tmp_path / "stranger.safetensors"
  shutil.copy(catalogue.students()[name], stranger)
  loaded = cloaker.Cloaker(
    CloakOptions(
      input=tmp_path, output=tmp_path, extractors=("dlib_resnet", str(stranger))
    )
  )
  seen = loaded.candidates["stranger"]
  known = bank.load([name])
  groups = averages.load().groups
  real = embedder.normalised(known.embeddings, known.centres)[name]
  means = np.stack([real[groups == group].mean(axis=0) for group in groups])
  means /= np.linalg.norm(means, axis=1, keepdims=True)
  # 0.5 was measured.
  assert (seen * means).sum(axis=1).mean() > 0.4
  cosines = seen @ means.T
  assert np.mean(groups[cosines.argmax(axis=1)] == groups) > 0.9


def test_another_bank_must_hold_every_extractor(tmp_path):
  file = tmp_path / "bank.safetensors"
  bank.save(bank.load(["dlib_resnet"]), file)
  options = CloakOptions(
    input=tmp_path,
    output=tmp_path,
    extractors=("dlib_resnet", "student_ghostfacenet"),
    bank=file,
  )
  with pytest.raises(types.FawkesError, match=r"lacks student_ghostfacenet"):
    cloaker.Cloaker(options)
