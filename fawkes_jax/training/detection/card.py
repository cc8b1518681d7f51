"""The model card of a detector: what it is made of."""

import jax

from fawkes_jax import reports, version
from fawkes_jax.options import TrainDetectorOptions
from fawkes_jax.training.detection import loop


def text(options: TrainDetectorOptions, result: loop.Result) -> str:
  """The card of a trained detector, in Markdown.

  Args:
    options: of the run.
    result: what it has reached.

  Returns:
    The card.
  """
  weights = sum(leaf.size for leaf in jax.tree.leaves(result.variables))
  command = reports.command("train_detector", options, untold=("data_note",))
  began = "random weights"
  if options.initial is not None:
    began = f"the weights of `{reports.shown(options.initial)}`"
  how = "All layers learned together."
  if options.share_apart:
    how = "layer learned apart what YuNet's layer makes of YuNet's features"
    if options.share_apart < 1:
      first = f"In the first {options.share_apart:.0%} of the run each"
      how = f"{first} {how}, then all of them together."
    else:
      how = f"Each {how}."
  return "\n".join(
    [
      f"# {options.name}",
      "",
      f"A detector of faces of fawkes_jax {version.__version__},"
      f" `models.yunet.YuNet`: {weights:,} weights, RGB pixels in 0..255 to"
      " boxes and five landmarks, stored in half precision. What it says with a"
      f" likelihood of {options.threshold:g} or more is a face.",
      "",
      "## Data",
      "",
      f"{options.data.name}: {options.data_note}",
      "",
      f"{result.photos:,} photos, and {result.singles:,} photos of one face"
      " that were pasted into them. Their boxes correct the teacher; nothing"
      " was learned from other labels, and the weights hold no photo.",
      "",
      "## Teacher",
      "",
      "YuNet (Apache-2.0, github.com/ShiqiYu/libfacedetection.train), whose"
      f" architecture it has. It began with {began}. {how}",
      "",
      "## Training",
      "",
      f"{result.step:,} steps of {options.batch_size} scenes in"
      f" {result.seconds / 60:.1f} minutes on {jax.device_count()} x"
      f" {jax.devices()[0].device_kind}.",
      "",
      f"    {command}",
      "",
      "How well it finds faces, `fawkes-jax benchmark --parts=detection` says.",
      "",
    ]
  )
