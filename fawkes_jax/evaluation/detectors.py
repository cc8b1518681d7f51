"""Finding the face that a tracker looks at, independently of the package.

Where a photo has several faces, all trackers look at the one nearest to its
centre.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from fawkes_jax import types
from fawkes_jax.evaluation import kept, runtimes
from fawkes_jax.imaging import geometry
from fawkes_jax.models import architectures
from fawkes_jax.weights.formats import dlib as dlib_files

Pixels = UInt8[np.ndarray, "height width 3"]

# Where the five points of ArcFace's alignment lie in its 112 x 112 pixels
# (github.com/deepinsight/insightface), and those of Open Model Zoo in the unit
# square: centres of the eyes, tip of the nose, corners of the mouth.
_OPEN_MODEL_ZOO = np.array(
  [
    (0.31556875, 0.4615741071),
    (0.6826229166, 0.4615741071),
    (0.5002624999, 0.6405053571),
    (0.3494729166, 0.82469196428),
    (0.6534364583, 0.8232510714),
  ]
)

# Larger photos are shrunk to this side for detection.
_MAX_SIDE = 1024

# YuNet's score of an accepted face.
_MIN_SCORE = 0.6


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Face:
  """A face in a photo.

  Attributes:
    box: left, top, right, bottom, in pixels.
    points: the detector's five landmarks (x, y), in pixels.
  """

  box: Float[np.ndarray, " 4"]
  points: Float[np.ndarray, "5 2"]

  def flat(self) -> Float[np.ndarray, " 14"]:
    """The face as one vector."""
    return np.concatenate([self.box, self.points.ravel()])

  @classmethod
  def from_flat(cls, row: Float[np.ndarray, " 14"]) -> "Face":
    """The face that `flat` made a vector of."""
    return cls(box=row[:4], points=row[4:].reshape(5, 2))


class Detector(Protocol):
  """What finds a face and its landmarks."""

  name: str
  key: str

  def find(self, pixels: Pixels) -> Face | None:
    """The face nearest to the photo's centre, or None."""

  def reference(
    self, template: geometry.Template, size: int
  ) -> Float[np.ndarray, "5 2"]:
    """Where the landmarks lie in a recogniser's input.

    Args:
      template: the square of the face frame that the input shows.
      size: its height and width in pixels.
    """


class Dlib:
  """dlib's CNN detector and its five landmarks, in dlib itself."""

  name = "dlib"

  def __init__(self):
    """Loads both.

    Raises:
      FawkesError: dlib or its files are missing.
    """
    self._dlib = runtimes.load("dlib")
    self.key = kept.digest("dlib", self._dlib.__version__, _MAX_SIDE)
    self._detector = self._dlib.cnn_face_detection_model_v1(
      str(dlib_files.package_file(dlib_files.MMOD_FILE))
    )
    self._points = self._dlib.shape_predictor(
      str(dlib_files.package_file(dlib_files.LANDMARK_FILE))
    )

  def find(self, pixels: Pixels) -> Face | None:
    """The face nearest to the photo's centre, or None."""
    small, scale = _shrunk(pixels)
    found = [
      (r.left(), r.top(), r.right(), r.bottom())
      for r in (face.rect for face in self._detector(small, 0))
    ]
    if not found:
      return None
    boxes = np.rint(np.array(found) * scale).astype(int)
    box = boxes[_nearest(boxes, pixels)]
    rectangle = self._dlib.rectangle(*map(int, box))
    parts = self._points(pixels, rectangle).parts()
    points = np.array([(part.x, part.y) for part in parts], np.float64)
    return Face(box=box.astype(np.float64), points=points)

  def reference(
    self, template: geometry.Template, size: int
  ) -> Float[np.ndarray, "5 2"]:
    """The mean face of dlib in a recogniser's input."""
    return _in_template(geometry.MEAN_FACE, template) * size


class YuNet:
  """YuNet in onnxruntime (github.com/ShiqiYu/libfacedetection)."""

  name = "YuNet"

  def __init__(self, file: Path):
    """Loads the model.

    Raises:
      FawkesError: onnxruntime is missing, or the file is not YuNet's.
    """
    self._session = onnx_session(file, "tracker_detector")
    self._names = [output.name for output in self._session.get_outputs()]
    expected = {
      f"{kind}_{stride}"
      for kind in ("cls", "obj", "bbox", "kps")
      for stride in (8, 16, 32)
    }
    if not expected <= set(self._names):
      raise types.FawkesError(
        "--tracker_detector must be YuNet with outputs cls_8 to kps_32, got"
        f" {file}"
        f" with {', '.join(self._names)}"
      )
    self.key = kept.digest(
      "YuNet", hashlib.sha256(file.read_bytes()).hexdigest(), _MAX_SIDE
    )

  def find(self, pixels: Pixels) -> Face | None:
    """The face nearest to the photo's centre, or None."""
    small, scale = _shrunk(pixels)
    height, width = small.shape[:2]
    padding = ((0, -height % 32), (0, -width % 32), (0, 0))
    image = np.pad(small, padding)[..., ::-1].astype(np.float32)
    outputs = self._session.run(
      self._names,
      {self._session.get_inputs()[0].name: image.transpose(2, 0, 1)[None]},
    )
    found = {k: v[0] for k, v in zip(self._names, outputs, strict=True)}
    boxes, points, scores = [], [], []
    for stride in (8, 16, 32):
      rows, columns = (size // stride for size in image.shape[:2])
      cells = np.indices((rows, columns))[::-1].reshape(2, -1).T
      box = found[f"bbox_{stride}"]
      centre = (cells + box[:, :2]) * stride
      half = np.exp(box[:, 2:]) * stride / 2
      boxes.append(np.concatenate([centre - half, centre + half], axis=1))
      marks = found[f"kps_{stride}"].reshape(-1, 5, 2)
      points.append((cells[:, None] + marks) * stride)
      score = found[f"cls_{stride}"] * found[f"obj_{stride}"]
      scores.append(np.sqrt(score)[:, 0])
    score = np.concatenate(scores)
    good = score > _MIN_SCORE
    if not good.any():
      return None
    box, marks = np.concatenate(boxes)[good], np.concatenate(points)[good]
    # Of the many boxes of the face nearest to the centre, the best.
    near = np.abs(box - box[_nearest(box, small)]).max(axis=1) < 20
    best = np.flatnonzero(near)[score[good][near].argmax()]
    return Face(box=box[best] * scale, points=marks[best] * scale)

  def reference(
    self, template: geometry.Template, size: int
  ) -> Float[np.ndarray, "5 2"]:
    """The five points of the recogniser's own alignment."""
    if template == architectures.TEMPLATES["open_model_zoo"]:
      return _OPEN_MODEL_ZOO * size
    arcface = architectures.TEMPLATES["arcface"]
    points = geometry.ARCFACE_POINTS / 112
    if template != arcface:
      frame = points * arcface.side + (arcface.left, arcface.top)
      points = _in_template(frame, template)
    return points * size


def chip(
  pixels: Pixels, face: Face, reference: Float[np.ndarray, "5 2"], size: int
) -> UInt8[np.ndarray, "size size 3"] | None:
  """Aligns a face by the similarity transform of its landmarks.

  Args:
    pixels: the photo.
    face: in it.
    reference: where its landmarks are to lie.
    size: height and width of the result.

  Returns:
    The face, bilinearly resampled; None if its landmarks coincide.
  """
  transform = runtimes.load("skimage.transform")
  fit = transform.SimilarityTransform.from_estimate(reference, face.points)
  if not fit:
    return None
  image = transform.warp(
    pixels, fit, output_shape=(size, size), preserve_range=True
  )
  return image.round().astype(np.uint8)


def onnx_session(file: Path, flag: str) -> Any:
  """Loads a model into onnxruntime.

  Raises:
    FawkesError: onnxruntime is missing, or the file is damaged.
  """
  onnxruntime = runtimes.load("onnxruntime")
  try:
    return onnxruntime.InferenceSession(
      str(file), providers=["CPUExecutionProvider"]
    )
  except Exception as error:  # The runtime's errors share no base class.
    first = str(error).strip().partition("\n")[0]
    raise types.FawkesError(
      f"--{flag} must be an ONNX model, got {file}: {first}"
    ) from error


def _in_template(
  points: Float[np.ndarray, "5 2"], template: geometry.Template
) -> Float[np.ndarray, "5 2"]:
  """Points of the face frame as fractions of a template's side."""
  return (points - (template.left, template.top)) / template.side


def _nearest(boxes: np.ndarray, pixels: Pixels) -> int:
  """The box whose centre is nearest to the photo's; [n, 4]."""
  height, width = pixels.shape[:2]
  centres = (boxes[:, :2] + boxes[:, 2:]) / 2
  return int(np.abs(centres - (width / 2, height / 2)).sum(axis=1).argmin())


def _shrunk(pixels: Pixels) -> tuple[Pixels, float]:
  """A photo no larger than detection needs, and what it was divided by."""
  scale = max(pixels.shape[:2]) / _MAX_SIDE
  if scale <= 1:
    return pixels, 1.0
  size = (round(pixels.shape[1] / scale), round(pixels.shape[0] / scale))
  image = Image.fromarray(pixels).resize(size, Image.Resampling.BOX)
  return np.ascontiguousarray(image), scale
