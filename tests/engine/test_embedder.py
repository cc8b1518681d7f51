import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fawkes_jax.engine import embedder, mesh
from fawkes_jax.imaging import views


@pytest.fixture(scope="module")
def inputs(faces):
  """Five crops of several sizes."""
  chosen = [faces[i] for i in (0, 1, 2, 0, 2)]
  crops = np.stack([face.crop for face in chosen])
  crops[3:] = np.round(crops[3:] * 0.7)
  sides = np.array([face.alignment.side for face in chosen], np.float32)
  return crops, sides


@pytest.fixture(scope="module")
def expected(recognition, inputs):
  """One face at a time, without the embedder."""
  [extractor] = recognition.extractors
  look = jax.vmap(views.still_view, (0, 0, None, None))
  crops, sides = (jnp.asarray(x) for x in inputs)
  seen = look(crops, sides, extractor.template, extractor.input_size)
  return np.concatenate(
    [extractor.embed(np.asarray(view)[None]) for view in seen]
  )


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_equals_the_extractor(recognition, inputs, expected, count):
  """Relative errors of 1e-6 were measured."""
  crops, sides = inputs
  found = recognition.embedder.embed(crops[:count], sides[:count])
  assert list(found) == ["dlib_resnet"]
  assert found["dlib_resnet"].dtype == np.float32
  np.testing.assert_allclose(
    found["dlib_resnet"], expected[:count], rtol=0, atol=1e-5
  )


def test_batch_size_does_not_matter(recognition, inputs, expected):
  large = embedder.Embedder(
    recognition.extractors, batch_size=4, mesh=mesh.local_mesh()
  )
  found = large.embed(*inputs)["dlib_resnet"]
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_no_faces(recognition, inputs):
  crops, sides = inputs
  found = recognition.embedder.embed(crops[:0], sides[:0])["dlib_resnet"]
  assert found.shape == (0, 128)
  assert found.dtype == np.float32


def test_a_face_does_not_depend_on_the_others(recognition, inputs, cloaker):
  """To the last bit: cloaks follow from embeddings, step by step."""
  crops, sides = inputs
  together = recognition.embedder.embed(crops, sides)
  unit = embedder.normalised(together, cloaker.centres)["dlib_resnet"]
  for count in (1, 2, 3):
    part = recognition.embedder.embed(
      crops[2 : 2 + count], sides[2 : 2 + count]
    )
    np.testing.assert_array_equal(
      part["dlib_resnet"], together["dlib_resnet"][2 : 2 + count]
    )
    np.testing.assert_array_equal(
      embedder.normalised(part, cloaker.centres)["dlib_resnet"],
      unit[2 : 2 + count],
    )
  assert recognition.embedder._program._cache_size() == 1


def test_normalised(cloaker, expected):
  found = embedder.normalised({"dlib_resnet": expected}, cloaker.centres)
  centred = expected - cloaker.centres["dlib_resnet"]
  length = np.linalg.norm(centred, axis=1, keepdims=True)
  np.testing.assert_allclose(found["dlib_resnet"], centred / length, atol=1e-6)
