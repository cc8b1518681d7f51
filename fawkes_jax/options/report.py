"""Options of `fawkes-jax report`."""

import os

from fawkes_jax.options import rules
from fawkes_jax.options.declared import option
from fawkes_jax.options.results import ResultOptions


class ReportOptions(ResultOptions):
  """A run of `fawkes-jax report`."""

  file: str | os.PathLike | None = option(
    "file to write, or s3://...",
    # A photo of that name would be lost.
    rules.Rule(
      says="a name that ends in .html",
      keeps=lambda value: os.fspath(value).lower().endswith((".html", ".htm")),
    ),
    default=None,
    shown="report.html in the output folder",
  )
  no_faces: bool = option("leave all pictures out", default=False)
