"""dlib's five-point shape predictor, an ensemble of regression trees.

Source: Kazemi and Sullivan, "One Millisecond Face Alignment with an Ensemble of
Regression Trees" (2014), as in dlib's ``shape_predictor``. A cascade of forests
refines the mean shape; each tree compares the grey values of pairs of pixels,
whose places follow the shape found so far.

It runs in numpy: a face costs a few milliseconds of small, data-dependent
look-ups, which gain nothing from an accelerator.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int, UInt8

NUM_POINTS = 5
"""Corners of one eye (2), corners of the other (2), base of the nose (1)."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LandmarkModel:
  """A trained cascade of forests of full binary trees.

  Shapes are in units of the face's box: (0, 0) is its top left corner and
  (1, 1) its bottom right one. c counts the forests of the cascade, t the trees
  of a forest, s the splits of a tree (one less than its leaves), and p the
  pixels that a forest looks at.

  Attributes:
    mean_shape: the shape to begin with, (x, y).
    first: for each split the pixel, out of the forest's p, on the left of
      ``grey[first] - grey[second] > threshold``.
    second: the pixel on the right of it.
    threshold: in grey values 0..255.
    leaves: what a tree adds to the shape.
    anchors: the landmark that a pixel moves with.
    offsets: the pixel's place relative to its anchor, in the mean shape.
  """

  mean_shape: Float[np.ndarray, "5 2"]
  first: Int[np.ndarray, "c t s"]
  second: Int[np.ndarray, "c t s"]
  threshold: Float[np.ndarray, "c t s"]
  leaves: Float[np.ndarray, "c t s+1 5 2"]
  anchors: Int[np.ndarray, "c p"]
  offsets: Float[np.ndarray, "c p 2"]

  def predict(
    self,
    pixels: UInt8[np.ndarray, "h w 3"],
    boxes: Float[np.ndarray, "n 4"],
  ) -> Float[np.ndarray, "n 5 2"]:
    """Finds the five points of every face of a photo.

    Args:
      pixels: uint8 [h, w, 3], the photo, RGB.
      boxes: float32 [n, 4], the faces' left, top, right and bottom in pixels,
        as the detector gives them. They may reach outside the photo, which
        is taken to be black there. dlib rounds the corners to whole pixels;
        here that is left to the caller.

    Returns:
      float32 [n, 5, 2], (x, y) in pixels of the photo, not rounded (dlib
      rounds).
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    corners, extents = (
      boxes[:, None, :2],
      (boxes[:, 2:] - boxes[:, :2])[:, None],
    )
    shapes = np.broadcast_to(self.mean_shape, (len(boxes), NUM_POINTS, 2))
    for forest in range(len(self.first)):
      matrices = _similarity(self.mean_shape, shapes).astype(np.float32)
      places = self.offsets[forest] @ matrices.transpose(0, 2, 1)
      places = places + shapes[:, self.anchors[forest]]
      grey = _grey_values(pixels, places * extents + corners)
      steps = self._leaves_reached(forest, grey)
      # In the order of the trees and in float32, as dlib adds them.
      shapes = np.sum(np.concatenate([shapes[None], steps]), axis=0)
    return (shapes * extents + corners).astype(np.float32)

  def _leaves_reached(self, forest: int, grey: np.ndarray) -> np.ndarray:
    """Returns float32 [t, n, 5, 2], one leaf for each tree and face."""
    first, second = self.first[forest], self.second[forest]
    threshold = self.threshold[forest]
    num_trees, num_splits = first.shape
    trees = np.arange(num_trees)
    faces = np.arange(len(grey))[:, None]
    node = np.zeros((len(grey), num_trees), np.intp)
    for _ in range((num_splits + 1).bit_length() - 1):
      difference = (
        grey[faces, first[trees, node]] - grey[faces, second[trees, node]]
      )
      node = 2 * node + 2 - (difference > threshold[trees, node])
    return self.leaves[forest][trees[:, None], (node - num_splits).T]


def _similarity(source: np.ndarray, targets: np.ndarray) -> np.ndarray:
  """Fits rotations and scales that take `source` to each of `targets`.

  The least squares solution of Umeyama (1991), which in two dimensions has
  this closed form.

  Args:
    source: [5, 2].
    targets: [n, 5, 2].

  Returns:
    float64 [n, 2, 2].
  """
  source = source.astype(np.float64) - source.mean(axis=0, dtype=np.float64)
  targets = targets.astype(np.float64)
  targets = targets - targets.mean(axis=1, keepdims=True)
  x, y = source.T
  u, v = targets[..., 0], targets[..., 1]
  cosine = (u @ x + v @ y) / (source**2).sum()
  sine = (v @ x - u @ y) / (source**2).sum()
  return np.stack(
    [np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], -2
  )


def _grey_values(pixels: np.ndarray, places: np.ndarray) -> np.ndarray:
  """Reads the mean of R, G and B at the nearest pixels; 0 outside.

  Args:
    pixels: uint8 [h, w, 3].
    places: [n, p, 2], (x, y).

  Returns:
    float32 [n, p], whole numbers in 0..255.
  """
  height, width = pixels.shape[:2]
  columns, rows = np.moveaxis(np.floor(places + 0.5).astype(np.intp), -1, 0)
  inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
  values = pixels[rows.clip(0, height - 1), columns.clip(0, width - 1)]
  return (values.sum(axis=-1) // 3 * inside).astype(np.float32)
