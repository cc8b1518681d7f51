import io

import jax
import numpy as np
import pytest
import rich.console
from PIL import Image

from fawkes_jax.commands import train_detector as command
from fawkes_jax.options import OptionError, TrainDetectorOptions
from fawkes_jax.training.detection import loop
from fawkes_jax.weights import detectors


@pytest.fixture
def options(tmp_path, monkeypatch, small_astronaut):
  """A run on one photo, taught by the package's own detector."""
  folder = tmp_path / "data"
  folder.mkdir()
  Image.fromarray(small_astronaut).save(folder / "one.png")
  (folder / "annotations.tsv").write_text(
    "file\tleft\ttop\tright\tbottom\none.png\t70\t60\t170\t170\n"
  )
  teacher = detectors.load_twin("own")
  monkeypatch.setattr(detectors, "load_yunet", lambda: teacher)

  def build(**changes) -> TrainDetectorOptions:
    few = {"steps": 2, "batch_size": 2, "scene_size": 64, "ema": 0}
    return TrainDetectorOptions(
      data=folder, output=tmp_path / "out", **(few | changes)
    )

  return build


@pytest.fixture
def console() -> rich.console.Console:
  return rich.console.Console(file=io.StringIO(), soft_wrap=True)


@pytest.mark.slow
def test_a_detector_goes_on_from_another(options, tmp_path, capsys):
  chosen = options(initial="own", learning_rate=1e-9)
  assert command.run(chosen) == 0
  capsys.readouterr()
  assert command.run(chosen) == 0  # Nothing is left to do.
  assert "at step 2" in capsys.readouterr().out
  got = detectors.load_detector(str(tmp_path / "out" / "detector.safetensors"))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6),
    got.variables,
    detectors.load_twin("own"),
  )
  card = (tmp_path / "out" / "detector.md").read_text()
  assert "It began with the weights of `own`. All layers learned" in card


@pytest.mark.slow
def test_channels_that_are_not_learned_are_drawn_anew(options, console):
  loop.Loop(options(steps=10, apart=1), console).run()
  assert console.file.getvalue().count("channels are drawn anew") == 4


@pytest.mark.parametrize("initial", ["none.safetensors", "yunet"])
def test_what_is_no_detector_to_begin_with_is_refused(
  initial, options, console
):
  with pytest.raises(OptionError, match=r"^initial must be a file that exists"):
    loop.Loop(options(initial=initial), console)
