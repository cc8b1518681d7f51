import numpy as np
import pytest
import safetensors.numpy

from fawkes_jax import types
from fawkes_jax.models import architectures
from fawkes_jax.training import teachers, views
from fawkes_jax.weights import extractors


def test_targets_are_centred_on_the_training_and_of_length_one(
  people, embeddings
):
  teacher = teachers.load_teacher(embeddings, people)
  assert teacher.name == "projection"
  rows = np.arange(20)
  targets, centre = teacher.targets(rows)
  np.testing.assert_allclose(np.linalg.norm(targets, axis=-1), 1, atol=1e-5)
  expected = teacher.embeddings[:, rows].mean(axis=(0, 1))
  np.testing.assert_allclose(centre, expected, atol=1e-6)


def test_safetensors_and_npz_are_the_same(people, embeddings, tmp_path):
  with np.load(embeddings) as arrays:
    array = arrays["embeddings"]
  path = tmp_path / "same.safetensors"
  safetensors.numpy.save_file({"embeddings": array}, path)
  one = teachers.load_teacher(embeddings, people).embeddings
  other = teachers.load_teacher(str(path), people).embeddings
  np.testing.assert_array_equal(one, other)
  np.testing.assert_array_equal(one[0], array[:48])


def test_embeddings_of_other_crops_are_refused(people, tmp_path):
  np.savez(tmp_path / "few.npz", embeddings=np.zeros((7, 3)))
  with pytest.raises(types.FawkesError, match=r"must hold 96 rows.*\[7, 3\]"):
    teachers.load_teacher(str(tmp_path / "few.npz"), people)


def test_embeddings_that_are_not_finite_are_refused(people, tmp_path):
  np.savez(tmp_path / "nan.npz", embeddings=np.full((96, 3), np.nan))
  with pytest.raises(types.FawkesError, match="finite"):
    teachers.load_teacher(str(tmp_path / "nan.npz"), people)


def test_an_extractor_sees_the_crops_plain_and_mirrored_and_once(
  people, tiny, monkeypatch, tmp_path
):
  from fawkes_jax.models import students

  monkeypatch.setenv("FAWKES_JAX_CACHE", str(tmp_path / "cache"))
  module = students.STUDENTS["tiny"]()
  extractor = architectures.Extractor(
    name="some",
    module=module,
    variables=students.initialise(module, 0),
    input_size=students.INPUT_SIZE,
    template=students.TEMPLATE,
  )
  monkeypatch.setattr(extractors, "load_extractor", lambda _: extractor)
  teacher = teachers.load_teacher("some", people)
  assert teacher.embeddings.shape == (2, 48, students.EMBEDDING_SIZE)
  view = views.still(people.crops[40], students.TEMPLATE, 112)
  expected = extractor.embed(np.stack([view, view[:, ::-1]]))
  np.testing.assert_allclose(teacher.embeddings[:, 40], expected, atol=1e-4)
  monkeypatch.setattr(architectures.Extractor, "embed", None)  # It is cached.
  again = teachers.load_teacher("some", people)
  np.testing.assert_array_equal(teacher.embeddings, again.embeddings)


@pytest.mark.parametrize(
  ("identity", "licence", "source"),
  [
    ("mobilefacenet", "Apache-2.0", "github.com/foamliu/MobileFaceNet"),
    ("projection", "not stated", "not stated"),
  ],
)
def test_cards_state_what_is_known_of_a_teacher(identity, licence, source):
  teacher = teachers.Teacher(
    name="some_file", embeddings=np.zeros((2, 1, 3)), identity=identity
  )
  assert teacher.licence == licence
  assert source in teacher.source
