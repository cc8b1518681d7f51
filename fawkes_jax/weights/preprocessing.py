"""The preprocessing of ONNX recognisers, which their files do not state."""

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fawkes_jax import types
from fawkes_jax.imaging import geometry
from fawkes_jax.models import architectures

_Triple = tuple[float, float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
  """What is done to an image, and the part of a face that is looked at.

  Attributes:
    mean: what is subtracted from each channel, RGB, in 0..255.
    scale: what is then divided by.
    bgr: whether the network takes blue, green, red.
    template: a key of `architectures.TEMPLATES`, or left, top and side of a
      square of the face frame.
  """

  mean: _Triple = (127.5, 127.5, 127.5)
  scale: _Triple = (127.5, 127.5, 127.5)
  bgr: bool = False
  template: str | _Triple = "arcface"

  @property
  def square(self) -> geometry.Template:
    """What the input shows of the face frame."""
    if isinstance(self.template, str):
      return architectures.TEMPLATES[self.template]
    left, top, side = self.template
    return geometry.Template(left=left, top=top, side=side)

  @property
  def text(self) -> str:
    """The same in TOML."""
    template = (
      f'"{self.template}"'
      if isinstance(self.template, str)
      else list(self.template)
    )
    return (
      f"mean = {list(self.mean)}\n"
      f"scale = {list(self.scale)}\n"
      f"bgr = {str(self.bgr).lower()}\n"
      f"template = {template}\n"
    )


def parse(table: Mapping[str, Any], prefix: str) -> Preprocessing:
  """Checks a preprocessing; what is left out has its default.

  Args:
    table: the preprocessing by the names of its attributes.
    prefix: of messages, to say where it was written.

  Returns:
    The preprocessing.

  Raises:
    FawkesError: a key is unknown or its value is not allowed.
  """
  keys = [field.name for field in dataclasses.fields(Preprocessing)]
  if unknown := table.keys() - set(keys):
    raise types.FawkesError(
      f"{prefix}must hold {', '.join(sorted(keys))}, got"
      f" {', '.join(sorted(unknown))}"
    )
  given = dict(table)
  for key in ("mean", "scale"):
    if key in given:
      given[key] = _numbers(prefix + key, given[key])
  if 0 in given.get("scale", ()):
    raise types.FawkesError(
      f"{prefix}scale must not be 0, got {list(given['scale'])}"
    )
  if not isinstance(given.get("bgr", False), bool):
    raise types.FawkesError(
      f"{prefix}bgr must be true or false, got {given['bgr']}"
    )
  template = given.get("template", "arcface")
  if not isinstance(template, str):
    given["template"] = _numbers(f"{prefix}template", template)
    if given["template"][2] <= 0:
      raise types.FawkesError(
        f"{prefix}template must have a side above 0, got {template}"
      )
  elif template not in architectures.TEMPLATES:
    raise types.FawkesError(
      f"{prefix}template must be one of {', '.join(architectures.TEMPLATES)},"
      f" or left, top and side, got {template}"
    )
  return Preprocessing(**given)


def read(path: Path) -> Preprocessing:
  """Reads a preprocessing.

  Args:
    path: a TOML file.

  Returns:
    The preprocessing.

  Raises:
    FawkesError: the file is missing or damaged, or says what is not allowed.
  """
  try:
    table = tomllib.loads(path.read_text())
  except OSError as error:
    raise types.FawkesError(
      f"{path} must say what the recogniser beside it expects (mean, scale,"
      f" bgr, template): {error.strerror}"
    ) from error
  except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
    raise types.FawkesError(f"{path} must be TOML: {error}") from error
  return parse(table, f"{path}: ")


def _numbers(name: str, value: Any) -> _Triple:
  """Three numbers, or an error."""
  if (
    isinstance(value, list | tuple)
    and len(value) == 3
    and all(isinstance(x, int | float) and math.isfinite(x) for x in value)
  ):
    first, second, third = (float(x) for x in value)
    return first, second, third
  raise types.FawkesError(f"{name} must be three numbers, got {value}")
