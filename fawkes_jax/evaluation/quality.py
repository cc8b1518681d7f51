"""How visible cloaks are, measured with other people's code."""

import numpy as np
from jaxtyping import Float, UInt8

from fawkes_jax.evaluation import runtimes

Pixels = UInt8[np.ndarray, "height width 3"]

_REACH = 16


def visibility(
  before: Pixels, after: Pixels, box: Float[np.ndarray, " 4"]
) -> tuple[float, float]:
  """What was changed in the box of a face.

  Args:
    before: a photo.
    after: the same photo, cloaked.
    box: left, top, right, bottom, all inclusive, in pixels.

  Returns:
    scikit-image's DSSIM, with Gaussian weights as in the SSIM paper (Wang et
    al. 2004); and the mean absolute change of a* and b* of CIELAB.
  """
  left, top, right, bottom = (int(edge) for edge in np.maximum(box, 0))
  # The filter reaches five pixels beyond the box.
  around = np.s_[max(top - _REACH, 0) : bottom + 1 + _REACH,
                 max(left - _REACH, 0) : right + 1 + _REACH]  # fmt: skip
  before, after = before[around], after[around]
  top, bottom = min(top, _REACH), min(top, _REACH) + bottom - top
  left, right = min(left, _REACH), min(left, _REACH) + right - left
  region = np.s_[top : bottom + 1, left : right + 1]
  metrics = runtimes.load("skimage.metrics")
  _, full = metrics.structural_similarity(
    before,
    after,
    channel_axis=2,
    data_range=255,
    gaussian_weights=True,
    sigma=1.5,
    use_sample_covariance=False,
    full=True,
  )
  lab = runtimes.load("skimage.color").rgb2lab
  tint = np.abs(lab(after[region]) - lab(before[region]))[..., 1:]
  return float((1 - full[region].mean()) / 2), float(tint.mean())
