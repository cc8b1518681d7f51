"""How much is done at once."""

import jax
import pytest

from fawkes_jax.faces import recognition
from fawkes_jax.options import CloakOptions


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of a CPU")
@pytest.mark.parametrize(
  ("photos", "faces"), [(None, 8), (1, 1), (2, 2), (3, 4), (5, 8), (900, 8)]
)
def test_a_cpu_solves_no_more_faces_at_once_than_there_are_photos(
  photos, faces, tmp_path
):
  options = CloakOptions(
    input=tmp_path, output=tmp_path / "new", extractors=("dlib_resnet",)
  )
  networks = recognition.Recognition(options, photos=photos)
  assert networks.batch_size == faces


def test_the_batch_size_of_the_options_holds(tmp_path):
  options = CloakOptions(
    input=tmp_path,
    output=tmp_path / "new",
    extractors=("dlib_resnet",),
    batch_size=3,
  )
  assert recognition.Recognition(options, photos=1).batch_size == 3
