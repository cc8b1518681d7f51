"""The model card of a student."""

import dataclasses

import jax
import numpy as np

from fawkes_jax import reports, version
from fawkes_jax.options import TWIN, TrainOptions
from fawkes_jax.training import loop

# Flags of the command that say nothing about the weights.
_UNTOLD = ("output", "threads", "report_minutes", "data_note")


_MAPPED = (
  "The cosine is that of a linear map of the student's embedding and the"
  " teacher's embedding around its mean."
)


def _twin(options: TrainOptions) -> str:
  """How a twin has learned."""
  began = "random weights"
  if options.initial is not None:
    began = (
      f"the weights of `{reports.shown(options.initial)}` (an earlier run)"
    )
  how = "All blocks learned together."
  if options.share_apart:
    how = (
      f"In the first {options.share_apart:.0%} of the run each block learned"
      " what the teacher's block makes of the teacher's features; then all"
      " learned together."
    )
  return (
    f"The student has the teacher's architecture and began with {began}. {how}"
    " The cosine is that of both embeddings around the teacher's mean."
  )


def text(options: TrainOptions, result: loop.Result) -> str:
  """The card of a trained student, in Markdown.

  Paths appear by their last part only: a card travels, a folder does not.

  Args:
    options: the options of the run.
    result: what it has reached.

  Returns:
    The card.
  """
  command = reports.command("train", options, untold=("data_note",))
  leaves = jax.tree.leaves(result.student["params"])
  size, template = result.input_size, result.template
  faces, split = result.faces, result.split
  lines = [
    f"# {options.model_name}",
    "",
    f"A face feature extractor, `{result.architecture}` of fawkes_jax"
    f" {version.__version__}: {sum(leaf.size for leaf in leaves):,} weights,"
    f" {size}x{size} RGB pixels in 0..255 to {result.embedding_size} numbers,"
    " stored in half precision. It sees the square of the face frame with left"
    f" {template.left:g}, top {template.top:g} and side"
    f" {template.side:g}.",
    "",
    "It is meant as a surrogate: something to cloak faces against.",
    "",
    "## Data",
    "",
    f"{reports.shown(options.data)}: {options.data_note}",
    "",
    "| | crops | identities |",
    "|---|---|---|",
    *(
      f"| {name} | {len(rows)} | {len(np.unique(faces.identities[rows]))} |"
      for name, rows in (
        ("trained on", split.training),
        ("validation, of other people", split.validation),
        ("held out", split.held_out),
      )
    ),
    "",
    f"{len(faces.missing)} photos gave no crop. Faces were found and aligned"
    " by the package. The weights hold no photo.",
    "",
    "## Teachers",
    "",
    "| teacher | licence of its weights | source | cosine on validation |",
    "|---|---|---|---|",
    *(
      f"| {t.name} | {t.licence} | {t.source} |"
      f" {_figure(result.cosines.get(t.name))} |"
      for t in result.teachers
    ),
    "",
    _twin(options) if options.student == TWIN else _MAPPED,
    "",
    "## Measured",
    "",
    "Verification of pairs of people that were not trained on; ten folds, both"
    " kinds of pairs weighing the same; cosines around the mean:",
    "",
    "| pairs | number | accuracy |",
    "|---|---|---|",
    *(
      f"| {name} | {count} | {value:.4f} |"
      for name, (value, count) in result.accuracies.items()
    ),
    "",
    "## Training",
    "",
    f"{result.step:,} steps of {options.batch_size} crops in"
    f" {result.seconds / 60:.1f} minutes on {jax.device_count()} x"
    f" {jax.devices()[0].device_kind}.",
    "",
    f"    {command}",
    "",
    "| option | value |",
    "|---|---|",
    *(
      f"| {field.name} | {reports.shown(getattr(options, field.name))} |"
      for field in dataclasses.fields(options)
      if field.name not in _UNTOLD
    ),
    "",
  ]
  return "\n".join(lines)


def _figure(value: float | None) -> str:
  return "not measured" if value is None else f"{value:.3f}"
