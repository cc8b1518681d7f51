"""The command, on real photographs where there are any."""

import importlib
import json
import shutil

import numpy as np
import pytest
import terminal
from PIL import Image

from fawkes_jax import types
from fawkes_jax.evaluation import cloaks, detectors, trackers
from fawkes_jax.imaging import geometry
from fawkes_jax.models import architectures
from fawkes_jax.runs import pipeline
from fawkes_jax.weights import catalogue

# OpenVINO counts its users in another process.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")

SMALL = ("--identities=4", "--train=3", "--test=2", "--draws=100")
FEW_STEPS = (
  "--surrogates=dlib_resnet",
  "--steps=8",
  "--rho=0.012",
  "--crop_size=160",
  "--batch_size=2",
)


def run(*arguments):
  return terminal.run("evaluate", *arguments)


@pytest.fixture
def lfw(data_dir, tmp_path):
  """Four people with five photos, two with fewer."""
  rich = [
    p
    for p in sorted((data_dir / "lfw").iterdir())
    if len(list(p.iterdir())) >= 15
  ]
  for number, folder in enumerate(rich[:6]):
    target = tmp_path / "lfw" / folder.name
    target.mkdir(parents=True)
    for photo in sorted(folder.iterdir())[: 5 if number < 4 else 4]:
      shutil.copy(photo, target)
  return tmp_path / "lfw"


@pytest.mark.slow
@pytest.mark.data
def test_from_photos_to_tables(lfw, data_dir, tmp_path, monkeypatch):
  """And once more, from what is kept."""
  output = tmp_path / "out"
  command = (
    f"--data={lfw}",
    f"--output={output}",
    "--min_face_pixels=50",
    f"--trackers=dlib,{data_dir / 'weights/mobileface_v3.onnx'}",
    f"--tracker_detector={data_dir / 'weights/yunet_n_dynamic.onnx'}",
    "--experiments=protection,matching",
    "--rates=0.05",
    *SMALL,
    *FEW_STEPS,
  )
  code, said, errors = run(*command)
  assert (code, errors) == (0, "")
  result = json.loads((output / "evaluation.json").read_text())
  rows = result["experiments"]["protection"]["protection"]
  assert [(r["tracker"], r["surrogate"], r["head"]) for r in rows] == [
    ("dlib", "yes", "centroid"),
    ("dlib", "yes", "logistic"),
    ("mobileface_v3", "no", "centroid"),
    ("mobileface_v3", "no", "logistic"),
  ]
  for row in rows:
    assert row["accuracy without cloaks"]["value"] > 0.7
    assert row["PSR"]["photos"] == 4
  moved = {
    r["tracker"]: r for r in result["experiments"]["protection"]["features"]
  }
  assert moved["dlib"]["cosine"] < moved["mobileface_v3"]["cosine"] < 1
  assert 0.2 < moved["dlib"]["shift"] < 0.8
  [photos] = result["experiments"]["protection"]["photos"]
  assert (photos["photos"], photos["faces"]) == (6, 6)
  assert 0.001 < photos["DSSIM"] < 0.012
  [match, _] = result["experiments"]["matching"]["matching"]
  assert match["plain with another photo"]["value"] > 0.7
  for name in ("evaluation.md", "protection.png"):
    assert (output / name).stat().st_size > 100
  assert "| mid | dlib | yes | centroid |" in said

  def never(*_):
    raise AssertionError("computed twice")

  before = (output / "evaluation.json").read_bytes()
  monkeypatch.setattr(pipeline, "cloak_archive", never)
  monkeypatch.setattr(detectors, "chip", never)
  code, again, errors = run(*command)
  assert (code, errors) == (0, "")
  assert again.endswith(said[said.index("# Evaluation") :])
  assert (output / "evaluation.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.data
def test_openvino_and_onnx_know_people(lfw, data_dir):
  """Each in its own alignment, by both detectors."""
  weights = data_dir / "weights"
  dlib = detectors.Dlib()
  yunet = detectors.YuNet(weights / "yunet_n_dynamic.onnx")
  photos = [
    np.asarray(Image.open(photo))
    for folder in sorted(lfw.iterdir())[:3]
    for photo in sorted(folder.iterdir())[:2]
  ]
  for name in ("face-reidentification-retail-0095.xml", "esp_mfn.onnx"):
    keys = set()
    for detector in (dlib, yunet):
      tracker = trackers.load(str(weights / name), dlib, detector)
      keys.add(tracker.key)
      x = np.stack(
        [tracker.embed(pixels, detector.find(pixels)) for pixels in photos]
      )
      np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-6)
      cosines = x @ x.T
      same = cosines[[0, 2, 4], [1, 3, 5]]
      others = [
        cosines[i, j] for i in range(6) for j in range(i) if i // 2 != j // 2
      ]
      assert same.min() > max(others) + 0.05, (name, detector.name)
    assert len(keys) == 2


@pytest.mark.data
def test_the_dlib_tracker_is_dlib(lfw):
  """Also where a face has been through the table."""
  dlib = pytest.importorskip("dlib")
  detector = detectors.Dlib()
  tracker = trackers.load("dlib", detector, detector)
  pixels = np.asarray(Image.open(next(lfw.glob("*/*.jpg"))))
  face = detectors.Face.from_flat(detector.find(pixels).flat())
  from fawkes_jax.weights.formats import dlib as files

  points = dlib.shape_predictor(str(files.package_file(files.LANDMARK_FILE)))
  [file] = catalogue.public()["dlib_resnet"].files
  network = dlib.face_recognition_model_v1(str(files.package_file(file.name)))
  box = dlib.rectangle(*map(int, face.box))
  expected = network.compute_face_descriptor(pixels, points(pixels, box))
  np.testing.assert_allclose(tracker.embed(pixels, face), expected, atol=1e-6)


def test_a_large_photo_is_shrunk_to_find_its_face(small_astronaut, monkeypatch):
  monkeypatch.setattr(detectors, "_MAX_SIDE", 256)
  detector = detectors.Dlib()
  small = detector.find(small_astronaut)
  double = np.asarray(Image.fromarray(small_astronaut).resize((512, 512)))
  large = detector.find(double)
  side = small.box[2] - small.box[0]
  assert np.abs(large.box / 2 - small.box).max() < 0.15 * side
  assert np.abs(large.points / 2 - small.points).max() < 0.05 * side


def test_references_agree_with_the_face_frame():
  """Both detectors' points lie in the same place of a face."""
  for template in (*architectures.TEMPLATES.values(), geometry.CROP):
    dlib = detectors.Dlib.reference(None, template, 100)
    five = detectors.YuNet.reference(None, template, 100)
    eyes = np.array([dlib[2:4].mean(axis=0), dlib[:2].mean(axis=0)])
    apart = np.linalg.norm(eyes[1] - eyes[0])
    assert np.abs(five[:2] - eyes).max() < 0.15 * apart


@pytest.mark.parametrize(
  ("flags", "rule"),
  [
    (["--experiments=nothing"], "--experiments must be of protection"),
    (["--mode=extreme"], "--mode must be of low, mid, high, each once, got"),
    (["--heads=centroid,centroid"], "--heads must be of neighbour"),
    (["--trackers="], "--trackers must be one or more"),
    (["--trackers=dlib,dlib"], "--trackers must be one or more, each with"),
    (["--trackers=photo.jpg"], "--trackers must be dlib, or files that end in"),
    (["--trackers=no.onnx"], "--trackers must be readable, got no.onnx"),
    (["--trackers=no.xml"], "--trackers must be readable, got no.xml"),
    (
      ["--tracker_detector=no.onnx"],
      "--tracker_detector must be an ONNX model, got no.onnx",
    ),
    (["--identities=1"], "--identities must be in [2,"),
    (["--train=0"], "--train must be in [1,"),
    (["--leaks=0.5,2"], "--leaks must be in [0, 1], got 2"),
    (["--rhos=0"], "--rhos must be in (0, 0.5], got 0"),
    (["--rhos="], "--rhos must be one or more numbers"),
    (["--ablations=jpg=0"], "--ablations must be options of the solver"),
    (["--ablations=jpeg=9"], "--jpeg must be in [0, 4], got 9"),
    (["--steps=0"], "--steps must be in [1,"),
    (
      ["--experiments=leaveoneout", "--surrogates=dlib_resnet"],
      "--surrogates must be two or more",
    ),
    (["--train=40"], "--data must hold 20 identities"),
    (["--data=/no/where"], "--data must be a folder of identities"),
  ],
)  # fmt: skip
def test_what_is_refused(people_folder, tmp_path, flags, rule):
  code, _, errors = run(
    f"--data={people_folder}", f"--output={tmp_path / 'out'}", *flags
  )
  assert code == 2
  assert errors.startswith(f"fawkes-jax: {rule}")
  assert errors.count("\n") == 1


def test_words_that_are_no_numbers(people_folder, tmp_path):
  for flag in ("--sizes=many", "--ablations=jpeg", "--leaks=a,b"):
    code, _, errors = run(
      f"--data={people_folder}", f"--output={tmp_path / 'out'}", flag
    )
    assert code == 2
    assert flag.partition("=")[0] in errors


@pytest.mark.parametrize("suffix", ["onnx", "xml"])
def test_a_broken_tracker(people_folder, tmp_path, suffix):
  file = tmp_path / f"broken.{suffix}"
  flags = (
    f"--data={people_folder}",
    f"--output={tmp_path / 'out'}",
    f"--trackers={file}",
  )
  file.write_bytes(b"broken")
  file.with_suffix(".bin").write_bytes(b"")
  code, _, errors = run(*flags)
  assert code == 2
  assert errors.startswith(
    f"fawkes-jax: {file.with_suffix('.toml')} must say what the recogniser"
  )
  file.with_suffix(".toml").write_text("bgr = true\n")
  code, _, errors = run(*flags)
  assert code == 2
  assert errors.startswith("fawkes-jax: --trackers must be an O")
  assert str(file) in errors


@pytest.mark.parametrize(
  ("missing", "package"),
  [
    ("dlib", "dlib-bin"),
    ("onnxruntime", "onnxruntime"),
    ("openvino", "openvino"),
  ],
)
def test_a_missing_runtime(
  people_folder, tmp_path, monkeypatch, missing, package
):
  for suffix in ("onnx", "xml", "bin"):
    (tmp_path / f"net.{suffix}").write_bytes(b"")
  (tmp_path / "net.toml").write_text("")
  real = importlib.import_module

  def without(name, *more):
    if name.partition(".")[0] == missing:
      raise ImportError(f"No module named '{name}'")
    return real(name, *more)

  monkeypatch.setattr(importlib, "import_module", without)
  suffix = "xml" if missing == "openvino" else "onnx"
  code, _, errors = run(
    f"--data={people_folder}",
    f"--output={tmp_path / 'out'}",
    f"--trackers={tmp_path / f'net.{suffix}'}",
  )
  assert code == 2
  assert errors.startswith(f"fawkes-jax: {package} must be installed")
  assert "pip install 'fawkes-jax[evaluate]'" in errors


def test_a_detector_that_is_no_yunet(data_dir, people_folder, tmp_path):
  code, _, errors = run(
    f"--data={people_folder}",
    f"--output={tmp_path / 'out'}",
    f"--tracker_detector={data_dir / 'weights/mobileface_v3.onnx'}",
  )
  assert code == 2
  assert errors.startswith(
    "fawkes-jax: --tracker_detector must be YuNet with outputs"
  )


@pytest.mark.parametrize("where", ["people", "people/out"])
def test_the_data_is_never_written_to(people_folder, tmp_path, fakes, where):
  before = sorted(tmp_path.rglob("*"))
  code, _, errors = run(
    f"--data={people_folder}", f"--output={tmp_path / where}", *SMALL
  )
  assert code == 2
  assert "--output" in errors
  assert sorted(tmp_path.rglob("*")) == before


def test_a_preprocessing_beside_a_model(tmp_path):
  (tmp_path / "net.toml").write_text("mean = [1, 2, 3]\nbgr = true\n")
  preprocessing = trackers._preprocessing(tmp_path / "net.onnx", "0" * 64)
  assert preprocessing.mean == (1, 2, 3)
  assert preprocessing.bgr
  with pytest.raises(types.FawkesError, match="must say what the recogniser"):
    trackers._preprocessing(tmp_path / "other.onnx", "0" * 64)


def test_what_a_recogniser_is(data_dir, tmp_path, monkeypatch):
  """The same for all its files and names."""
  monkeypatch.setenv("FAWKES_JAX_CACHE", str(tmp_path))
  file = data_dir / "weights" / "foamliu_mobilefacenet.onnx"
  assert trackers.identity(str(file)) == "mobilefacenet"
  assert trackers.identity("mobilefacenet") is None
  (tmp_path / "weights").mkdir()
  shutil.copy(file, tmp_path / "weights" / "mobilefacenet.onnx")
  assert trackers.identity("mobilefacenet") == "mobilefacenet"
  assert trackers.has_runtime("mobilefacenet")
  assert trackers.identity("dlib") == trackers.identity("dlib_resnet")
  assert not trackers.has_runtime("dlib_resnet")
  unknown = tmp_path / "own.onnx"
  unknown.write_bytes(b"x")
  assert len(trackers.identity(str(unknown))) == 64


def test_a_tracker_that_taught_a_surrogate_is_not_unseen():
  """Only who neither is a surrogate nor taught one is."""

  def relation(name):
    return cloaks.relation(name, ("dlib_resnet", "student_mobileface_v2"))

  assert relation("dlib_resnet") == "yes"
  assert relation("mobileface_v2") == "its student"
  assert relation("mobilefacenet") == "no"
