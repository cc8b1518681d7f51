"""Options of `fawkes-jax demo`."""

from pathlib import Path

from fawkes_jax.options.cloak import CloakerOptions
from fawkes_jax.options.declared import option


class DemoOptions(CloakerOptions):
  """A run of `fawkes-jax demo`."""

  output: Path = option(
    "folder for the photo and its cloaked version", default=Path("fawkes-demo")
  )
