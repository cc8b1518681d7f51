import jax
import numpy as np
import pytest
from PIL import Image

from fawkes_jax.models import se_mobilenet
from fawkes_jax.weights.formats import openvino


# The runtime counts its users in another process.
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
@pytest.mark.data
def test_parity_on_faces(data_dir):
  runtime = pytest.importorskip("openvino")
  path = data_dir / "weights" / "face-reidentification-retail-0095.xml"
  photos = sorted(data_dir.glob("lfw/*/*_0001.jpg"))[50::200][:4]
  assert len(photos) == 4
  x = np.stack(
    [
      np.asarray(Image.open(photo).convert("RGB"), np.float32)[61:189, 61:189]
      for photo in photos
    ]
  )
  network = runtime.Core().compile_model(
    str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
  )
  expected = np.stack(
    [
      network(image[..., ::-1].transpose(2, 0, 1)[None])[0].reshape(-1)
      for image in x
    ]
  )
  variables = openvino.convert_se_mobilenet(openvino.read(path))
  actual = np.asarray(jax.jit(se_mobilenet.SeMobileNet().apply)(variables, x))
  assert actual.dtype == np.float32
  error = np.linalg.norm(actual - expected, axis=1)
  assert (error <= 1e-5 * np.linalg.norm(expected, axis=1)).all()
