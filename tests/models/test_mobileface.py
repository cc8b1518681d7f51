import jax
import numpy as np
import pytest
from PIL import Image

from fawkes_jax.models import mobileface
from fawkes_jax.weights.formats import onnx


@pytest.mark.data
def test_parity_on_faces(data_dir):
  runtime = pytest.importorskip("onnxruntime")
  path = data_dir / "weights" / "mobileface_v2.onnx"
  photos = sorted(data_dir.glob("lfw/*/*_0001.jpg"))[100::200][:8]
  assert len(photos) == 8
  x = np.stack(
    [
      np.asarray(Image.open(photo).convert("RGB"), np.float32)[69:181, 69:181]
      for photo in photos
    ]
  )
  (expected,) = runtime.InferenceSession(path).run(
    None, {"data": x.transpose(0, 3, 1, 2)}
  )
  variables = onnx.convert(onnx.read(path), "mobileface_v2")
  actual = np.asarray(jax.jit(mobileface.MobileFace().apply)(variables, x))
  assert actual.dtype == np.float32
  error = np.linalg.norm(actual - expected, axis=1)
  assert (error <= 1e-5 * np.linalg.norm(expected, axis=1)).all()
