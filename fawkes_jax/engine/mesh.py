"""The devices of this host as one axis that faces are spread over."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fawkes_jax.xla import compiler

FACES = PartitionSpec("faces")
EVERYWHERE = PartitionSpec()


def local_mesh(count: int | None = None) -> Mesh:
  """The first devices of this host, or all, in one axis named "faces"."""
  devices = jax.local_devices()[:count]
  return jax.make_mesh(
    (len(devices),), ("faces",), (AxisType.Auto,), devices=devices
  )


def replicate(mesh: Mesh, tree: Any) -> Any:
  """Puts a tree of arrays on every device of the mesh."""
  return jax.device_put(tree, NamedSharding(mesh, EVERYWHERE))


def over_faces(
  function: Callable[..., Any],
  mesh: Mesh,
  *,
  specs: tuple[PartitionSpec, ...],
  donate: tuple[int, ...] = (),
) -> jax.stages.Wrapped:
  """Compiles a function of faces for the mesh, without communication.

  Args:
    function: takes and returns trees of arrays; arguments with the spec FACES
      arrive as each device's part of the first axis.
    mesh: from `local_mesh`.
    specs: FACES or EVERYWHERE for each argument.
    donate: the arguments whose memory the result may take.

  Returns:
    The compiled function; its results are spread over the faces.
  """
  mapped = jax.shard_map(
    function, mesh=mesh, in_specs=specs, out_specs=FACES, check_vma=False
  )
  return compiler.jit(mapped, donate_argnums=donate)
