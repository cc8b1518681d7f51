"""Loading extractors with their trained weights by name."""

from collections.abc import Callable
from typing import Any

from fawkes_jax import types, weights
from fawkes_jax.models import registry

_LOADERS: dict[str, Callable[[], Any]] = {
  "dlib_resnet": weights.load_resnet_variables,
}


def load_extractor(name: str, **options: Any) -> registry.Extractor:
  """Loads a face feature extractor with its weights.

  Args:
    name: one of `models.registry.ARCHITECTURES`.
    **options: attributes of its Flax module, such as `dtype`.

  Returns:
    The extractor: `name`, `input_size`, `embed(images)` and the pure
    `apply(variables, images)`.

  Raises:
    FawkesError: the name is unknown, or the weights are missing or damaged.
  """
  if name not in _LOADERS:
    raise types.FawkesError(
      f"--extractors must be of {', '.join(_LOADERS)}, got {name}"
    )
  return registry.build(name, _LOADERS[name](), **options)
