"""Loading the networks that find faces."""

from pathlib import Path
from typing import Any

from fawkes_jax import types
from fawkes_jax.models import yunet
from fawkes_jax.weights import cache, catalogue
from fawkes_jax.weights.formats import onnx

# Any: the network takes images of all sizes.
_TRACED = (320, 320)


def load_yunet() -> dict[str, Any]:
  """The variables of `yunet.YuNet`, of the file that was fetched.

  Raises:
    FawkesError: it was not fetched, or is damaged.
  """
  path = catalogue.kept().get("yunet")
  if path is None:
    raise types.FawkesError(
      "the detector yunet must be here: fawkes-jax weights fetch yunet"
    )
  return _converted(path)


def _converted(path: Path) -> dict[str, Any]:
  return cache.load(
    "yunet",
    catalogue.file_digest(path),
    lambda: yunet.convert(onnx.read(path, size=_TRACED).layers),
  )
