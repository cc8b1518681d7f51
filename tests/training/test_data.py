import dataclasses
import sys
import types as python_types

import numpy as np
import pytest
from PIL import Image

import fawkes_jax.faces.recognition as recognition_module
from fawkes_jax import types
from fawkes_jax.imaging import geometry
from fawkes_jax.options import TrainOptions
from fawkes_jax.training import data
from fawkes_jax.weights import builtin, detectors


@pytest.fixture
def finding(recognition, monkeypatch, tmp_path):
  """Counts how often networks are loaded, and keeps the cache apart."""
  loads = []
  monkeypatch.setenv("FAWKES_JAX_CACHE", str(tmp_path / "cache"))
  monkeypatch.setattr(
    recognition_module,
    "Recognition",
    lambda options: loads.append(options) or recognition,
  )
  return loads


@pytest.fixture
def folder(small_astronaut, tmp_path):
  """Two identities, a photo without a face, and what is no photo."""
  root = tmp_path / "people"
  for name, channels in (("Ann", (0, 1, 2)), ("Zoë", (2, 1, 0))):
    (root / name).mkdir(parents=True)
    for i in range(2):
      photo = np.roll(small_astronaut[..., channels], 8 * i, axis=1)
      Image.fromarray(photo).save(root / name / f"{i}.png")
  Image.new("RGB", (256, 256)).save(root / "Ann" / "empty.png")
  (root / "Zoë" / "notes.txt").write_text("no photo")
  (root / "readme.txt").write_text("of no identity")
  return root


def _options(source, tmp_path, **changes) -> TrainOptions:
  return TrainOptions(
    data=str(source), output=tmp_path / "out", crop_size=96, **changes
  )


HEAD = "file\tlex\tley\trex\trey\tnx\tny\tlmx\tlmy\trmx\trmy\n"


def _table(root, rows) -> None:
  lines = ["\t".join(map(str, row)) for row in rows]
  (root / "faces.tsv").write_text(HEAD + "\n".join(lines) + "\n")


def test_faces_whose_landmarks_are_known_are_not_looked_for(
  finding, tmp_path, astronaut
):
  """A table says where; ArcFace's points come to lie where they belong."""
  root = tmp_path / "faces"
  (root / "Ann").mkdir(parents=True)
  Image.fromarray(astronaut).save(root / "Ann" / "a.png")
  black = np.zeros((200, 200, 3), np.uint8)
  points = geometry.ARCFACE_POINTS + np.array((30, 40))
  for x, y in points.round().astype(int):
    black[y, x] = 255
  Image.fromarray(black).save(root / "dots.png")
  Image.fromarray(astronaut).save(root / "not in the table.png")
  _table(
    root,
    [
      ["Ann/a.png", 201, 112, 245, 106, 226, 135, 208, 158, 246, 153],
      ["dots.png", *points.ravel()],
    ],
  )
  faces = data.load_faces(_options(root, tmp_path))
  assert faces.names == ("Ann", "dots.png")
  assert faces.photos == ("a.png", "dots.png")
  assert not faces.missing
  frame = geometry.ARCFACE_POINTS / 112 * geometry.ARCFACE.side
  frame += (geometry.ARCFACE.left, geometry.ARCFACE.top)
  expected = (frame - (geometry.CROP.left, geometry.CROP.top)) * 96
  expected /= geometry.CROP.side
  for x, y in expected.astype(int):
    around = faces.crops[1, y - 1 : y + 2, x - 1 : x + 2]
    assert around.max() > 20
  assert (faces.crops[1].max(axis=-1) > 20).mean() < 0.01


def test_several_sources_are_one(folder, finding, tmp_path):
  other = tmp_path / "others"
  other.mkdir()
  Image.new("RGB", (150, 150), "grey").save(other / "Bob.png")
  _table(other, [["Bob.png", *geometry.ARCFACE_POINTS.ravel()]])
  faces = data.load_faces(_options(f"{folder},{other}", tmp_path))
  assert faces.names == ("Ann", "Bob.png", "Zoë")
  assert len(faces) == 5


@pytest.mark.parametrize(
  "text",
  ["file\tlex\na.png\t3\n", HEAD + "a.png" + "\tx" * 10, HEAD + "a.png\t1"],
)
def test_a_table_that_is_none(finding, tmp_path, text):
  root = tmp_path / "faces"
  root.mkdir()
  Image.new("RGB", (150, 150)).save(root / "a.png")
  (root / "faces.tsv").write_text(text)
  with pytest.raises(types.FawkesError, match=r"faces.tsv must have the col"):
    data.load_faces(_options(root, tmp_path))


@pytest.mark.slow
def test_a_folder_is_read_once(folder, finding, tmp_path):
  options = _options(folder, tmp_path)
  faces = data.load_faces(options)
  assert faces.names == ("Ann", "Zoë")
  assert faces.photos == ("0.png", "1.png", "0.png", "1.png")
  np.testing.assert_array_equal(faces.identities, [0, 0, 1, 1])
  assert faces.crops.shape == (4, 96, 96, 3)
  assert faces.crops.dtype == np.uint8
  assert [line.split(":")[0] for line in faces.missing] == [
    "Ann/empty.png",
    "Zoë/notes.txt",
  ]
  assert "no face found" in faces.missing[0]

  again = data.load_faces(options)
  assert len(finding) == 1
  np.testing.assert_array_equal(faces.crops, again.crops)
  assert faces.digest == again.digest

  (folder / "Ann" / "1.png").unlink()
  assert len(data.load_faces(options)) == 3
  assert len(finding) == 2


def test_a_small_face_fills_its_crop(recognition, small_astronaut):
  finder = dataclasses.replace(  # Which places both crops alike.
    recognition.finder,
    detector=detectors.load_detector("dlib"),
    landmark_model=builtin.load_landmark_model(),
  )
  large, small = (
    data.largest_face(
      finder,
      np.asarray(Image.fromarray(small_astronaut).resize((side, side))),
      160,
    ).astype(float)
    for side in (256, 160)
  )
  assert large[-40:].mean() > 20  # Not the black around a small crop.
  assert np.corrcoef(large.ravel(), small.ravel())[0, 1] > 0.95


def test_the_crop_is_that_of_the_finder(recognition, small_astronaut):
  [[face]] = recognition.finder.find([small_astronaut])
  side = face.alignment.side
  crop = data.largest_face(recognition.finder, small_astronaut, side)
  difference = np.abs(crop - face.crop[:side, :side])
  assert difference.max() <= 1 or difference.mean() < 0.51


def test_one_identity_is_refused(folder, finding, tmp_path):
  for photo in (folder / "Zoë").iterdir():
    photo.unlink()
  with pytest.raises(types.FawkesError, match="two identities or more, got 1"):
    data.load_faces(_options(folder, tmp_path))


def test_a_source_of_several_without_photos_is_refused(
  folder, finding, tmp_path
):
  linked = tmp_path / "linked"
  linked.mkdir()
  (linked / "Ann").symlink_to(folder / "Ann")
  with pytest.raises(types.FawkesError, match=f"none in {linked}"):
    data.load_faces(_options(f"{folder},{linked}", tmp_path))


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_what_is_no_folder_is_refused(name, tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(types.FawkesError, match="--data must be a folder"):
    data.load_faces(_options(tmp_path / name, tmp_path))


def test_damaged_crops_are_named(folder, finding, tmp_path):
  options = _options(folder, tmp_path)
  data.load_faces(options)
  [index] = (tmp_path / "cache").glob("training/*/index.json")
  index.write_text("{}")
  with pytest.raises(types.FawkesError, match=r"cached crops .* delete it"):
    data.load_faces(options)


class _Builder:
  """A prepared dataset of three photos of two people."""

  def __init__(self, photo, features=("image", "label")):
    self.info = python_types.SimpleNamespace(
      features=dict.fromkeys(features),
      full_name="people/1.0.0",
      splits=("train",),
    )
    self._photo = photo

  def as_data_source(self, split):
    assert split == "train"
    labels = [b"Zoe", b"Ann", b"Ann"]
    return [{"image": self._photo, "label": label} for label in labels]


def _fake_tfds(monkeypatch, builder) -> None:
  fake = python_types.ModuleType("tensorflow_datasets")
  fake.builder = builder
  monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)


def test_a_dataset_is_read(small_astronaut, finding, monkeypatch, tmp_path):
  _fake_tfds(monkeypatch, lambda name, **_: _Builder(small_astronaut))
  faces = data.load_faces(_options("tfds:people", tmp_path))
  assert faces.names == ("Ann", "Zoe")
  np.testing.assert_array_equal(faces.identities, [0, 0, 1])


def test_a_dataset_without_labels_is_refused(monkeypatch, tmp_path):
  _fake_tfds(monkeypatch, lambda name, **_: _Builder(None, features=("image",)))
  with pytest.raises(types.FawkesError, match="features image and label"):
    data.load_faces(_options("tfds:people", tmp_path))


def test_a_dataset_that_is_not_prepared_is_refused(monkeypatch, tmp_path):
  def fail(name, **_):
    raise ModuleNotFoundError("No module named 'tensorflow'")

  _fake_tfds(monkeypatch, fail)
  with pytest.raises(types.FawkesError, match=r"tfds:people.*prepare it"):
    data.load_faces(_options("tfds:people", tmp_path))


def test_identities_never_serve_two_ends(people, tmp_path):
  options = _options("x", tmp_path, validation=0.4, batch_size=4)
  parts = data.split(people, options, frozenset({"a"}))
  ends = [
    set(people.identities[rows])
    for rows in (parts.training, parts.validation, parts.held_out)
  ]
  assert [len(end) for end in ends] == [3, 2, 1]
  assert set.union(*ends) == set(range(6))
  assert ends[2] == {0}
  again = data.split(people, options, frozenset({"a"}))
  np.testing.assert_array_equal(parts.validation, again.validation)


def test_identities_with_many_photos_are_held_out(people, tmp_path):
  rows = np.concatenate([np.arange(0, 40, 2), np.arange(40, 48)])
  fewer = data.Faces(
    **{
      **vars(people),
      "crops": people.crops[rows],
      "identities": people.identities[rows],
    }
  )
  options = _options(
    "x", tmp_path, validation=0, batch_size=4, holdout_min_photos=8
  )
  parts = data.split(fewer, options, frozenset())
  np.testing.assert_array_equal(parts.held_out, np.arange(20, 28))


def test_pairs_of_allowed_crops_are_read(people, tmp_path):
  path = tmp_path / "pairs.tsv"
  path.write_text(
    "1\tx/a/0.jpg\tx/a/1.jpg\n\n0\tb/2.jpg\ta/3.jpg\n0\ta/0.jpg\tf/0.jpg\n"
    "1\tstranger/0.jpg\tstranger/1.jpg\n"
  )
  pairs = data.pairs_of_crops(data.read_pairs(path), people, np.arange(16))
  np.testing.assert_array_equal(pairs, [[1, 0, 1], [0, 10, 3]])


@pytest.mark.parametrize("line", ["2\ta\tb", "1\ta", "1 a b"])
def test_malformed_pairs_are_named(line, tmp_path):
  path = tmp_path / "pairs.tsv"
  path.write_text("1\ta/0.jpg\ta/1.jpg\n" + line)
  with pytest.raises(types.FawkesError, match="line 2 is"):
    data.read_pairs(path)


def test_files_of_names(tmp_path):
  path = tmp_path / "names.txt"
  path.write_text("Ann\n\nZoë\n", encoding="utf-8")
  assert data.read_names(path) == {"Ann", "Zoë"}
  with pytest.raises(types.FawkesError, match="--holdout must be a text file"):
    data.read_names(tmp_path / "none.txt")
