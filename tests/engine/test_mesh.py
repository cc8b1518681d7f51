import jax
import jax.numpy as jnp
import numpy as np

from fawkes_jax.engine import mesh as mesh_lib


def test_all_local_devices():
  mesh = mesh_lib.local_mesh()
  assert mesh.axis_names == ("faces",)
  assert list(mesh.devices.flat) == jax.local_devices()


def test_over_faces():
  """A function of faces and shared weights, without communication."""
  mesh = mesh_lib.local_mesh()
  count = 2 * mesh.size
  program = mesh_lib.over_faces(
    lambda faces, weights: {"sum": faces @ weights["w"]},
    mesh,
    specs=(mesh_lib.FACES, mesh_lib.EVERYWHERE),
  )
  faces = np.arange(3 * count, dtype=np.float32).reshape(count, 3)
  weights = mesh_lib.replicate(mesh, {"w": jnp.array([1.0, 10.0, 100.0])})
  found = program(faces, weights)["sum"]
  np.testing.assert_array_equal(found, faces @ [1, 10, 100])
  text = program.lower(faces, weights).as_text()
  assert "all_reduce" not in text and "all_gather" not in text
