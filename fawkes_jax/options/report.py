"""Options of `fawkes-jax report`."""

import os

from fawkes_jax.options.declared import option
from fawkes_jax.options.results import ResultOptions


class ReportOptions(ResultOptions):
  """A run of `fawkes-jax report`."""

  file: str | os.PathLike | None = option(
    "file to write, or s3://...",
    default=None,
    shown="report.html in the output folder",
  )
  no_faces: bool = option("leave all pictures out", default=False)
