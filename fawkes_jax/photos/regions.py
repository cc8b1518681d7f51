"""Adds overlapping patches up to disjoint regions."""

from collections.abc import Sequence

import numpy as np

from fawkes_jax import types

Box = tuple[int, int, int, int]


def regions(
  patches: Sequence[types.Patch],
  *,
  width: int,
  height: int,
  cell: tuple[int, int] = (1, 1),
) -> list[types.Patch]:
  """Adds patches up to disjoint patches on a grid.

  Overlapping changes are summed in float32, before anything is rounded.

  Args:
    patches: changes that lie inside the photo.
    width: the width of the photo in pixels.
    height: the height of the photo in pixels.
    cell: width and height of the grid's cells in pixels. A patch that reaches
      over the photo's right or bottom border, because the grid does, repeats
      the change of the border there.

  Returns:
    Patches that begin and end on the grid; their cells are disjoint. Patches
    without any change are left out.

  Raises:
    ValueError: a patch reaches out of the photo.
  """
  patches = [patch for patch in patches if np.any(patch.change)]
  for patch in patches:
    left, top, right, bottom = patch.box
    if left < 0 or top < 0 or right > width or bottom > height:
      raise ValueError(
        f"a patch {patch.box} reaches out of a photo of {width} x {height}"
      )
  boxes = _merge([_align(patch.box, cell) for patch in patches])
  return [_sum(box, patches, width=width, height=height) for box in boxes]


def _align(box: Box, cell: tuple[int, int]) -> Box:
  (left, top, right, bottom), (w, h) = box, cell
  return left // w * w, top // h * h, -(-right // w) * w, -(-bottom // h) * h


def _overlap(a: Box, b: Box) -> bool:
  return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _merge(boxes: list[Box]) -> list[Box]:
  """Joins boxes that overlap until none do."""
  merged: list[Box] = []
  for box in boxes:
    while hits := [other for other in merged if _overlap(box, other)]:
      merged = [other for other in merged if other not in hits]
      lefts, tops, rights, bottoms = zip(box, *hits, strict=True)
      box = min(lefts), min(tops), max(rights), max(bottoms)
    merged.append(box)
  return merged


def _sum(
  box: Box, patches: Sequence[types.Patch], *, width: int, height: int
) -> types.Patch:
  left, top, right, bottom = box
  inner_right, inner_bottom = min(right, width), min(bottom, height)
  total = np.zeros((inner_bottom - top, inner_right - left, 3), np.float32)
  for patch in patches:
    if _overlap(box, patch.box):
      x, y = patch.left - left, patch.top - top
      h, w = patch.change.shape[:2]
      total[y : y + h, x : x + w] += patch.change
  below, beside = bottom - inner_bottom, right - inner_right
  if below or beside:
    margin = (0, below), (0, beside), (0, 0)
    total = np.pad(total, margin, mode="edge")
  return types.Patch(left=left, top=top, change=total)
