"""Students from files: shipped with the package, or one's own."""

import flax.traverse_util
import jax
import numpy as np
import pytest
import safetensors.numpy

from fawkes_jax import types
from fawkes_jax.models import architectures, students
from fawkes_jax.weights import builtin, catalogue, extractors, variables


@pytest.fixture(scope="module")
def student():
  """Random variables of a small network."""
  rng = np.random.default_rng(0)
  images = jax.ShapeDtypeStruct((1, 112, 112, 3), np.float32)
  shapes = jax.eval_shape(
    students.StudentResNet().init, jax.random.key(0), images
  )
  return jax.tree.map(
    lambda leaf: rng.normal(0, 1, leaf.shape).astype(np.float32), dict(shapes)
  )


@pytest.fixture
def file(student, tmp_path):
  """A student of one's own, as training leaves it."""
  path = tmp_path / "student_of_mine.safetensors"
  variables.save(student, path, name="student_resnet")
  return path


def edited(file, **changes):
  """Writes the file again with some tensors replaced, or taken out."""
  tensors = safetensors.numpy.load_file(file)
  for key, change in changes.items():
    before = tensors.pop(key)
    if change is not None:
      tensors[key] = change(before)
  safetensors.numpy.save_file(
    tensors, file, metadata={"architecture": "student_resnet"}
  )


def test_a_file_says_who_taught_it(student, tmp_path):
  path = tmp_path / "taught.safetensors"
  variables.save(
    student, path, name="student_resnet", teachers=["one", "other"]
  )
  assert variables.teachers(path) == ("one", "other")
  assert catalogue.teachers(str(path)) == ("one", "other")
  # The same bytes again.
  first = path.read_bytes()
  variables.save(
    student, path, name="student_resnet", teachers=["one", "other"]
  )
  assert path.read_bytes() == first


def test_older_files_do_not_say_who_taught_them(file):
  edited(file)  # With the metadata of older files.
  assert variables.architecture(file) == "student_resnet"
  assert variables.teachers(file) == ()


def test_a_student_of_ones_own(file, student):
  loaded = extractors.load_extractor(str(file))
  assert loaded.name == "student_of_mine"
  assert loaded.input_size == students.INPUT_SIZE
  assert loaded.template == students.TEMPLATE
  assert isinstance(loaded.module, students.StudentResNet)

  def compare(array, expected):
    assert array.dtype == np.float32
    # Half precision has 11 bits.
    np.testing.assert_allclose(array, expected, rtol=2**-11, atol=1e-7)

  jax.tree.map(compare, loaded.variables, student)


def test_a_shipped_student_goes_by_its_files_name(file, tmp_path, monkeypatch):
  folder = tmp_path / "shipped"
  folder.mkdir()
  file.rename(folder / "student_resnet_robust.safetensors")
  # Without the metadata it is something else, such as the bank of targets.
  safetensors.numpy.save_file(
    {"dlib_resnet": np.zeros((2, 2))}, folder / "other.safetensors"
  )
  monkeypatch.setattr(builtin, "checkpoint", lambda name: folder / name)
  dlib = {"dlib_resnet": catalogue.public()["dlib_resnet"]}
  monkeypatch.setattr(catalogue, "public", lambda: dlib)
  loaded = extractors.load_extractor("student_resnet_robust")
  assert loaded.name == "student_resnet_robust"
  assert list(catalogue.students()) == ["student_resnet_robust"]
  with pytest.raises(types.FawkesError, match="of dlib_resnet, student_res"):
    extractors.load_extractor("other")


@pytest.mark.parametrize("name", list(catalogue.students()))
def test_every_shipped_student_embeds(name):
  loaded = extractors.load_extractor(name)
  assert loaded.name == name
  size = loaded.input_size
  embeddings = loaded.embed(np.full((1, size, size, 3), 128, np.uint8))
  assert np.isfinite(embeddings).all()


@pytest.mark.parametrize("name", students.STUDENTS)
def test_every_student_is_in_the_registry(name):
  """What training writes can be loaded, at the size it was trained at."""
  architecture = architectures.ARCHITECTURES[name]
  assert architecture.input_size == students.INPUT_SIZE
  assert architecture.template == students.TEMPLATE


@pytest.mark.parametrize(
  ("damage", "rule"),
  [
    ("missing", "must be a complete safetensors file"),
    ("empty", "must be a complete safetensors file"),
    ("truncated", "must be a complete safetensors file"),
    ("folder", "must be a complete safetensors file"),
    ("text", "must be a complete safetensors file"),
    ("no metadata", "must name its architecture in its metadata, or its te"),
    ("other metadata", "must be one of dlib_resnet, .*, got resnet"),
    ("other network", "the student_vit weight .* must be"),
  ],
)
def test_damaged_files(file, damage, rule):
  data = file.read_bytes()
  tensors = safetensors.numpy.load_file(file)
  file.unlink()
  if damage == "folder":
    file.mkdir()
  elif damage == "empty":
    file.write_bytes(b"")
  elif damage == "truncated":
    file.write_bytes(data[: len(data) - 1000])
  elif damage == "text":
    file.write_text("<!DOCTYPE html> Not found " * 100)
  elif damage == "no metadata":
    safetensors.numpy.save_file(tensors, file)
  elif damage.startswith("other"):
    name = "resnet" if damage == "other metadata" else "student_vit"
    safetensors.numpy.save_file(tensors, file, {"architecture": name})
  with pytest.raises(types.FawkesError, match=rule) as error:
    extractors.load_extractor(str(file))
  assert str(file) in str(error.value)


@pytest.mark.parametrize(
  ("change", "rule"),
  [
    (None, "must be [256, 256], got nothing"),
    (lambda array: array[:-1], "must be [256, 256], got [255, 256]"),
    (lambda array: array.reshape(-1), "must be [256, 256], got [65536]"),
    (lambda array: np.full_like(array, np.inf), "must be finite numbers"),
  ],
)
def test_wrong_tensors(file, change, rule):
  key = "params/pool/embedding/kernel"
  edited(file, **{key: change})
  with pytest.raises(types.FawkesError) as error:
    variables.load(file)
  said = str(error.value)
  assert said.startswith(f"{file}: the student_resnet weight {key}")
  assert said.endswith(rule)


def test_a_tensor_too_many(file, student):
  more = flax.traverse_util.unflatten_dict({("params", "more"): np.ones(3)})
  variables.save(
    {**student, "params": student["params"] | more["params"]},
    file,
    name="student_resnet",
  )
  with pytest.raises(types.FawkesError, match="must be nothing, got \\[3\\]"):
    variables.load(file)
