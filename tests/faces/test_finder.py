import dataclasses

import numpy as np
import pytest
from PIL import Image

from fawkes_jax import types
from fawkes_jax.imaging import geometry
from fawkes_jax.weights import builtin, detectors


@pytest.fixture(scope="module")
def find(recognition):
  return recognition.finder.find


def test_the_astronaut(find, astronaut):
  [[face]] = find([astronaut])
  assert all(isinstance(value, int) for value in face.box)
  np.testing.assert_allclose(face.box, (176, 66, 276, 166), atol=12)
  assert face.score > 0.5
  # The whole face at its own resolution, or nearly.
  assert face.alignment.side == pytest.approx(147, abs=3)
  assert face.alignment.scale == pytest.approx(1, abs=0.01)
  side = face.alignment.side
  np.testing.assert_array_equal(
    face.crop[:side, :side],
    np.rint(geometry.extract(astronaut, face.alignment)),
  )
  assert face.crop.shape == (160, 160, 3)
  for array in (face.crop, face.coverage, face.weights):
    assert array.dtype == np.float32
    assert not array[side:].any()
    assert not array[:, side:].any()
  # The eyes and the nose are where the template has them.
  nose = geometry.MEAN_FACE[4]
  place = (nose - (geometry.CROP.left, geometry.CROP.top)) / geometry.CROP.side
  z = face.alignment.origin + face.alignment.axis * complex(*(place * side))
  assert abs(z - (226 + 139j)) < 8


@pytest.mark.slow
def test_photos_of_many_sizes_in_one_call(find, astronaut, small_astronaut):
  """Each photo has the faces it has alone; one without has none."""
  wall = np.ascontiguousarray(astronaut[300:400, :100])
  twice = np.concatenate([small_astronaut, small_astronaut], axis=1)
  photos = [wall, small_astronaut, twice, np.zeros((40, 700, 3), np.uint8)]
  found = find(photos)
  assert [len(faces) for faces in found] == [0, 1, 2, 0]
  for photo, faces in zip(photos, found, strict=True):
    [alone] = find([photo])
    assert [face.box for face in alone] == [face.box for face in faces]
  [left, right] = sorted(found[2], key=lambda face: face.box[0])
  assert right.box[0] - left.box[0] == pytest.approx(256, abs=6)


def test_no_photos(find):
  assert find([]) == []


def test_a_face_cut_by_the_border(find, small_astronaut):
  """Its box ends at the border, and it changes nothing beyond it."""
  photo = np.ascontiguousarray(small_astronaut[:, 85:])
  [[face]] = find([photo])
  height, width = photo.shape[:2]
  assert 0 <= face.box[0] < face.box[2] <= width
  assert 0 <= face.box[1] < face.box[3] <= height
  assert face.alignment.origin.real < -5
  assert face.coverage.max() == 1
  assert not face.coverage[:, : int(-face.alignment.origin.real) - 8].any()


def test_a_large_face_is_scaled_down(recognition, small_astronaut):
  finder = dataclasses.replace(recognition.finder, crop_size=96)
  [[face]] = finder.find([small_astronaut])
  assert face.crop.shape == (96, 96, 3)
  assert face.alignment.side == 96
  assert face.alignment.extent == pytest.approx(147.3, abs=3)


@pytest.mark.parametrize(("side", "least"), [(64, None), (48, 16)])
def test_small_faces(recognition, astronaut, side, least):
  """dlib's detector: a face of 24 pixels; one of 18, below its own rule."""
  face = Image.fromarray(astronaut[:256, 100:356]).resize((side, side))
  photo = np.full((120, 160, 3), 90, np.uint8)
  photo[30 : 30 + side, 40 : 40 + side] = np.asarray(face)
  finder = dataclasses.replace(
    recognition.finder,
    detector=detectors.load_detector("dlib"),
    landmark_model=builtin.load_landmark_model(),
  )
  assert bool(finder.find([photo])[0]) == (least is None)
  patient = dataclasses.replace(finder, min_face_pixels=least)
  [[found]] = patient.find([photo])
  assert 40 < found.box[0] < found.box[2] < 40 + side


@pytest.mark.slow
def test_a_small_face_in_a_phones_photo(recognition, small_astronaut):
  """88 of 4000 pixels, as in a group photo of 12 megapixels."""
  side = 256 * 88 // 100
  face = Image.fromarray(small_astronaut).resize((side, side))
  photo = np.full((3000, 4000, 3), 90, np.uint8)
  photo[1200 : 1200 + side, 1700 : 1700 + side] = np.asarray(face)
  [[found]] = recognition.finder.find([photo])
  assert found.box[2] - found.box[0] == pytest.approx(80, abs=12)


def test_where_a_face_is_likely_is_told(recognition, small_astronaut):
  """Of one without nose and mouth the detector is not sure."""
  hidden = small_astronaut.copy()
  hidden[110:] = 90
  finder = dataclasses.replace(recognition.finder, min_face_pixels=60)
  likely, sure, wall = finder.look(
    [hidden, small_astronaut, np.full_like(hidden, 90)]
  )
  assert likely.faces == []
  assert 0.2 < likely.likely.score < 0.43
  np.testing.assert_allclose(likely.likely.box, (76, 62, 175, 157), atol=8)
  assert (len(sure.faces), sure.likely) == (1, None)
  assert (wall.faces, wall.likely) == ([], None)


def test_what_is_not_looked_for_is_told(recognition):
  """Also where the bound on memory prevails over what was asked for."""
  finder = recognition.finder
  phone = np.broadcast_to(np.uint8(0), (3000, 4000, 3))
  assert finder.smallest(phone) == pytest.approx(4000 / 64, rel=1e-3)
  assert finder.smallest(phone[:100, :100]) == pytest.approx(16, abs=0.2)
  finder = dataclasses.replace(finder, detector=detectors.load_detector("dlib"))
  assert finder.smallest(phone) == pytest.approx(4000 / 48, rel=1e-3)
  assert finder.smallest(phone[:100, :100]) == pytest.approx(24, abs=0.2)
  patient = dataclasses.replace(finder, min_face_pixels=100)
  assert patient.smallest(phone) == pytest.approx(100, rel=1e-3)
  greedy = dataclasses.replace(finder, min_face_pixels=10)
  assert 55 < greedy.smallest(phone) < 65


def test_crops_of_another_version(recognition, small_astronaut):
  """The same places, whatever the photo looks like now."""
  finder = recognition.finder
  [faces] = finder.find([small_astronaut])
  crop = faces[0].cut(small_astronaut)
  np.testing.assert_array_equal(np.rint(crop), faces[0].crop)
  assert (crop != faces[0].crop).any()
  blank = np.full_like(small_astronaut, 77)
  side = faces[0].alignment.side
  assert (faces[0].cut(blank)[20 : side - 20, 20:80] == 77).all()


@pytest.fixture
def other(recognition, request, tmp_path, monkeypatch):
  """A finder with another detector than the default, by its name."""
  if request.param == "yunet":
    data = request.getfixturevalue("data_dir")
    (tmp_path / "weights").mkdir()
    source = data / "weights" / "yunet_n_dynamic.onnx"
    (tmp_path / "weights" / "yunet.onnx").write_bytes(source.read_bytes())
    monkeypatch.setenv("FAWKES_JAX_CACHE", str(tmp_path))
  return dataclasses.replace(
    recognition.finder,
    detector=detectors.load_detector(request.param),
    landmark_model=None,
  )


@pytest.mark.parametrize("other", ["own", "yunet"], indirect=True)
def test_others_find_and_align_as_dlib_does(
  recognition, small_astronaut, other
):
  """Within what a single face was off when both were compared."""
  dlib = dataclasses.replace(
    recognition.finder,
    detector=detectors.load_detector("dlib"),
    landmark_model=builtin.load_landmark_model(),
  )
  [[theirs]], [[ours]] = (
    finder.find([small_astronaut]) for finder in (dlib, other)
  )
  assert ours.box == pytest.approx(theirs.box, abs=16)
  assert ours.alignment.extent == pytest.approx(
    theirs.alignment.extent, rel=0.15
  )
  middles = [
    face.alignment.origin
    + face.alignment.axis * (1 + 1j) * face.crop.shape[0] * 0.5
    for face in (ours, theirs)
  ]
  assert abs(middles[0] - middles[1]) < 0.06 * theirs.alignment.extent


@pytest.mark.parametrize("other", ["own", "yunet"], indirect=True)
def test_a_face_that_fills_a_large_photo_is_found_whole(small_astronaut, other):
  """Of 450 pixels, where most that were learned from had less than 200."""
  [[small]] = other.find([small_astronaut])
  large = Image.fromarray(small_astronaut).resize((1024, 1024))
  [[face]] = other.find([np.asarray(large)])
  np.testing.assert_allclose(face.box, 4 * np.array(small.box), atol=40)
  ratio = face.alignment.extent / small.alignment.extent
  assert ratio == pytest.approx(4, rel=0.1)


def test_a_detector_that_is_not_there_says_how_to_get_it(tmp_path, monkeypatch):
  monkeypatch.setenv("FAWKES_JAX_CACHE", str(tmp_path))
  with pytest.raises(types.FawkesError, match="fawkes-jax weights fetch yunet"):
    detectors.load_detector("yunet")
