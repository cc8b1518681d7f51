"""YuNet's port against ONNX Runtime, and what the detector promises."""

import csv
import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from fawkes_jax.models import search, yunet
from fawkes_jax.weights import detectors
from fawkes_jax.weights.formats import onnx

TRACED = (320, 320)


@pytest.fixture(scope="module")
def file(data_dir):
  return data_dir / "weights" / "yunet_n_dynamic.onnx"


@pytest.fixture(scope="module")
def variables(file):
  return yunet.convert(onnx.read(file, size=TRACED).layers)


@pytest.fixture(scope="module")
def detector(variables):
  return search.Detector(name="yunet", variables=variables)


def test_the_port_says_what_the_file_says(file, variables, small_astronaut):
  """Also of images that are not square."""
  runtime = pytest.importorskip("onnxruntime")
  session = runtime.InferenceSession(str(file))
  image = small_astronaut[None, :192].astype(np.float32)
  names = [output.name for output in session.get_outputs()]
  blue_first = image[..., ::-1].transpose(0, 3, 1, 2)
  results = session.run(None, {"input": np.ascontiguousarray(blue_first)})
  expected = dict(zip(names, results, strict=True))
  grids = jax.jit(yunet.YuNet().apply)(variables, image)
  for grid, stride in zip(grids, yunet.STRIDES, strict=True):
    scores = jax.nn.sigmoid(grid.scores).reshape(1, -1, 2)
    for actual, name in (
      (scores[..., :1], "cls"),
      (scores[..., 1:], "obj"),
      (grid.boxes.reshape(1, -1, 4), "bbox"),
      (grid.points.reshape(1, -1, 10), "kps"),
    ):
      np.testing.assert_allclose(
        actual, expected[f"{name}_{stride}"], atol=2e-4, rtol=1e-4
      )


def test_a_face_and_its_landmarks_are_found(detector, astronaut):
  [[face]] = detector.detect([astronaut])
  np.testing.assert_allclose(face.box, (178, 65, 268, 175), atol=8)
  assert face.score > 0.8
  points = [(203, 103), (247, 104), (224, 127), (203, 143), (242, 143)]
  np.testing.assert_allclose(face.points, points, atol=5)


def test_a_photo_without_faces_has_none(detector):
  assert detector.detect([np.zeros((100, 140, 3), np.uint8)]) == [[]]
  assert detector.detect([]) == []


def test_of_faces_that_are_not_sure_the_likeliest_is_told(small_astronaut):
  detector = detectors.load_detector(detectors.OWN)
  [[face]] = detector.detect([small_astronaut])
  strict = dataclasses.replace(detector, threshold=0.99)
  [look] = strict.look([small_astronaut])
  assert (look.faces, look.likely.score) == ([], face.score)
  np.testing.assert_array_equal(look.likely.box, face.box)
  doubtless = dataclasses.replace(strict, doubt=0.98)
  assert doubtless.look([small_astronaut])[0].likely is None


def test_a_photo_on_its_side_shows_the_faces_of_the_upright_one(astronaut):
  detector = detectors.load_detector(detectors.OWN)
  photo = astronaut[:400]  # So that its sides differ.
  [[face]] = detector.detect([photo])
  height, width = photo.shape[:2]
  turned = [np.rot90(photo, quarters) for quarters in (1, 2, 3)]
  looks = [[face], *detector.detect(turned)]
  assert [len(faces) for faces in looks] == [1, 1, 1, 1]
  [[quarter], [half], [last]] = looks[1:]
  x, y = face.points.T
  np.testing.assert_allclose(quarter.points.T, (y, width - 1 - x), atol=0.01)
  np.testing.assert_allclose(
    half.points.T, (width - 1 - x, height - 1 - y), atol=0.01
  )
  np.testing.assert_allclose(last.points.T, (height - 1 - y, x), atol=0.01)
  left, top, right, bottom = face.box
  np.testing.assert_allclose(
    quarter.box, (top, width - 1 - right, bottom, width - 1 - left), atol=0.01
  )


@pytest.mark.parametrize("degrees", [-60, -45, 30, 60])
def test_the_landmarks_of_a_tilted_face_are_where_they_are(astronaut, degrees):
  """To 12 % of the distance of the eyes; without a second look 24 to 87 %."""
  detector = detectors.load_detector(detectors.OWN)
  [[upright]] = detector.detect([astronaut])
  turned = Image.fromarray(astronaut).rotate(
    -degrees, Image.Resampling.BILINEAR, center=(223, 120)
  )
  faces = detector.detect([np.asarray(turned)])[0]
  centre = np.array([223, 120]) - 0.5
  angle = np.radians(degrees)
  turn = np.array(
    [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
  )
  expected = (upright.points - centre) @ turn + centre
  error = np.linalg.norm(faces[0].points - expected, axis=1).max()
  assert error < 0.12 * np.linalg.norm(expected[0] - expected[1])


@pytest.mark.data
def test_faces_are_likely_in_photos_with_faces(data_dir):
  """Faces of group photos that are missed, and parts without a face."""
  folder = data_dir / "groups"
  with (folder / "annotations.tsv").open() as file:
    known = list(csv.DictReader(file, delimiter="\t"))
  random = np.random.default_rng(0)
  shown, empty = [], []
  for name in sorted({row["file"] for row in known}):
    photo = Image.open(folder / name).convert("RGB")
    boxes = np.array(
      [
        [float(row[side]) for side in ("left", "top", "right", "bottom")]
        for row in known
        if row["file"] == name
      ]
    )
    for box in boxes[(boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= 28][:4]:
      middle, half = (box[:2] + box[2:]) / 2, 2 * (box[2:] - box[:2]).max()
      shown.append((photo, (*(middle - half), *(middle + half))))
    for _ in range(20):
      corner = random.integers(0, np.array(photo.size) - 200)
      inside = (boxes[:, 2:] + 8 > corner) & (boxes[:, :2] - 8 < corner + 200)
      if not inside.all(axis=1).any():
        empty.append((photo, (*corner, *(corner + 200))))
        break
  detector = detectors.load_detector(detectors.OWN)

  def share(parts):
    """In how many of those without a face found one is likely."""
    cut = [
      np.asarray(photo.crop([int(x) for x in box]).resize((224, 224)))
      for photo, box in parts
    ]
    looks = detector.look(cut, min_face_pixels=40)
    missed = [look for look in looks if not look.faces]
    return sum(look.likely is not None for look in missed) / len(missed)

  assert share(shown) > 0.4
  assert share(empty) < 0.1


def test_photos_of_many_sizes_share_few_canvases():
  sides = {search.canvas_side(side) for side in range(1, 1025)}
  assert len(sides) <= 13
  assert all(side % yunet.MULTIPLE == 0 for side in sides)
  assert all(search.canvas_side(side) >= side for side in range(1, 1025))


def test_the_smallest_face_follows_from_the_photos_size(detector):
  assert detector.smallest_face((3000, 4000)) == pytest.approx(62.5, rel=0.01)
  assert detector.smallest_face((600, 800)) == pytest.approx(16, rel=0.01)
  assert detector.smallest_face((600, 800), 40) == pytest.approx(40, rel=0.01)
  with pytest.raises(ValueError, match="min_face_pixels must be > 0"):
    detector.detect([], min_face_pixels=0)


def test_of_boxes_that_overlap_the_likeliest_remains():
  boxes = np.array([(0, 0, 10, 10), (1, 0, 11, 10), (40, 0, 50, 10)], float)
  scores = np.array([0.7, 0.9, 0.8])
  assert yunet.suppress(boxes, scores, 0.3) == [1, 2]
  assert yunet.suppress(boxes, scores, 0.9) == [1, 2, 0]


@pytest.fixture(scope="module")
def own():
  """Random variables."""
  images = np.zeros((1, 32, 32, 3), np.float32)
  return dict(jax.jit(yunet.YuNet().init)(jax.random.key(0), images))


def test_a_trained_detector_is_the_same_after_saving(tmp_path, own):
  path = tmp_path / "own.safetensors"
  detectors.save(own, path, threshold=0.25)
  loaded = detectors.load_detector(str(path))
  assert (loaded.name, loaded.threshold) == ("own", 0.25)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6),
    loaded.variables,
    own,
  )


def test_what_is_no_detector_is_refused(tmp_path, own):
  with pytest.raises(Exception, match=r"^detector must be own, dlib, yunet or"):
    detectors.load_detector("mtcnn")
  path = tmp_path / "own.safetensors"
  path.write_bytes(b"nothing")
  with pytest.raises(Exception, match="complete safetensors file, got"):
    detectors.load_detector(str(path))
  fewer = {name: x for name, x in own["params"].items() if name != "stem"}
  detectors.save({"params": fewer}, path, threshold=0.5)
  with pytest.raises(Exception, match="train_detector has written, got"):
    detectors.load_detector(str(path))


def test_a_dead_channel_learns_where_relus_leak(own):
  """And what the network says is the same."""
  params = jax.tree.map(np.array, own["params"])
  params["stem"]["bias"][3] = -1e5  # Below zero, whatever the image is.
  image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3))

  def said(leak, params):
    network = yunet.YuNet(leak=leak)
    grids = network.apply({"params": params}, image.astype(np.float32))
    return sum((grid.scores**2).sum() for grid in grids)

  same = [jax.jit(said, static_argnums=0)(leak, params) for leak in (0, 0.1)]
  assert same[0] == same[1] > 0
  slopes = [
    jax.jit(jax.grad(said, argnums=1), static_argnums=0)(leak, params)
    for leak in (0.0, 0.1)
  ]
  without, leaking = (slope["stem"]["bias"][3] for slope in slopes)
  assert without == 0 != leaking
