"""Options of `fawkes-jax bank`."""

from pathlib import Path

from fawkes_jax.options import rules
from fawkes_jax.options.declared import option
from fawkes_jax.options.faces import FaceOptions


class BankOptions(FaceOptions):
  """A run of `fawkes-jax bank`."""

  input: Path = option(
    "folder with a folder of photos for each identity",
    rules.Rule(says="a folder", keeps=Path.is_dir),
    more="It holds a folder of photos for each of them",
  )
  output: Path = option("safetensors file to write")
  min_photos: int = option(
    "leave out identities with fewer photos",
    rules.within(1, 1_000_000),
    default=4,
  )
  max_photos: int = option("leave out identities with more photos", default=9)
  identities: int = option(
    "largest number of identities, chosen evenly over the alphabet",
    rules.within(2, 1_000_000),
    default=512,
  )

  def __post_init__(self) -> None:
    """Checks the options; see `Options`."""
    super().__post_init__()
    rules.check(self, "max_photos", rules.within(self.min_photos, 1_000_000))
