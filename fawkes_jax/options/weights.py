"""Options of `fawkes-jax weights` list, fetch and import."""

from pathlib import Path
from typing import Any

from fawkes_jax.options import rules, values
from fawkes_jax.options.declared import Options, option

_ONNX = "what an ONNX network expects (FILE.toml beside it, else this)"


class WeightsListOptions(Options):
  """A run of `fawkes-jax weights list`."""


class WeightsFetchOptions(Options):
  """A run of `fawkes-jax weights fetch`."""

  names: tuple[str, ...] = option(
    "names shown by fawkes-jax weights list; free: all with a free licence",
    positional="NAME",
    more="They are names of public recognisers, see `weights.ensembles` for"
    ' "free"',
  )
  mirror: str | None = option(
    "URL of a folder with the same files, instead of their addresses",
    rules.Rule(
      says="an http or https URL",
      keeps=lambda value: value.startswith(("https://", "http://")),
    ),
    default=None,
  )
  accept_research_licence: bool = option(
    "fetch weights that may be used for research only", default=False
  )


def _channels(text: str) -> tuple[float, ...]:
  numbers = values.numbers(float)(text)
  return 3 * numbers if len(numbers) == 1 else numbers


def _template(text: str) -> str | tuple[float, ...]:
  return values.numbers(float)(text) if "," in text else text


class WeightsImportOptions(Options):
  """A run of `fawkes-jax weights import`."""

  file: Path = option(
    "file to import: .onnx, .xml or .safetensors", positional="FILE"
  )
  name: str | None = option(
    "name for --surrogates", default=None, shown="the name of the file"
  )
  architecture: str | None = option(
    "refuse a file of another architecture", default=None
  )
  template: str | tuple[float, ...] | None = option(
    "alignment: arcface, dlib, facenet, open_model_zoo, or left,top,side in"
    " units of the face frame",
    default=None,
    shown="arcface",
    group=_ONNX,
    read=_template,
  )
  mean: tuple[float, ...] | None = option(
    "subtract this from red, green, blue in 0..255; one number or three",
    default=None,
    shown="127.5",
    group=_ONNX,
    read=_channels,
  )
  scale: tuple[float, ...] | None = option(
    "then divide by this; one number or three",
    default=None,
    shown="127.5",
    group=_ONNX,
    read=_channels,
  )
  bgr: bool | None = option(
    "the channels are blue, green, red", default=None, group=_ONNX
  )

  @property
  def preprocessing(self) -> dict[str, Any]:
    """What was said of an ONNX network."""
    names = ("template", "mean", "scale", "bgr")
    given = {name: getattr(self, name) for name in names}
    return {name: v for name, v in given.items() if v is not None}
