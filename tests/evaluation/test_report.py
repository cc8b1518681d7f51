"""What a person reads."""

import json
from pathlib import Path

import PIL.Image
import pytest

from fawkes_jax import reports
from fawkes_jax.evaluation import experiments, plots, report
from fawkes_jax.options import EvaluateOptions


def test_a_report(fakes, begin, tmp_path):
  study = begin(
    experiments=("protection", "leak"),
    solver_changes=(("steps", 3),),
    extractors=("dlib_resnet", "/some/where/net.onnx"),
  )
  results = {
    name: experiments.EXPERIMENTS[name](study)
    for name in study.options.experiments
  }
  nothing = dict.fromkeys(("value", "low", "high"), float("nan"))
  results["leak"]["leak"][0]["PSR"] |= nothing
  summary = report.summary(study.options, study.people, results)
  report.write(summary, tmp_path)
  stored = json.loads((tmp_path / "evaluation.json").read_text())
  assert stored == summary
  row = stored["experiments"]["protection"]["protection"][0]
  assert row["PSR"]["value"] == 1
  assert stored["experiments"]["leak"]["leak"][0]["PSR"]["low"] is None
  assert stored["people"]["excluded for too few photos"] == {"Person 7": 2}
  assert stored["options"]["train"] == 3
  assert "jax" in stored["packages"]
  text = (tmp_path / "evaluation.md").read_text()
  assert "1 identities have too few photos (Person 7)" in text
  assert "| mid | dlib | no | centroid | 1.00 [1.00, 1.00] |" in text
  assert (
    "fawkes-jax evaluate --surrogates=dlib_resnet,net.onnx --data=people"
    " --experiments=protection,leak --steps=3 --identities=4 --train=3"
    " --test=2 --draws=50\n"
  ) in text
  assert "/some/where" not in text


def test_the_command_shows_changes():
  options = EvaluateOptions(
    data="tfds:lfw",
    output=Path("/out"),
    ablations=((("jpeg", 0.0), ("blur", 0.5)), (("steps", 3.0),)),
    rhos=(0.004,),
    tracker_detector=Path("/a/yunet.onnx"),
  )
  assert reports.command("evaluate", options, untold=("output", "threads")) == (
    "fawkes-jax evaluate --data=tfds:lfw --tracker_detector=yunet.onnx"
    " --rhos=0.004"
    " --ablations='jpeg=0,blur=0.5;steps=3'"
  )


@pytest.mark.parametrize("name", ["protection", "dssim", "leak", "identities"])
def test_pictures(fakes, begin, tmp_path, name):
  study = begin(experiments=(name,), rhos=(0.004, 0.012))
  summary = report.summary(
    study.options,
    study.people,
    {name: experiments.EXPERIMENTS[name](study), "matching": {"matching": []}},
  )
  [path] = plots.write(summary["experiments"], tmp_path)
  assert path == tmp_path / f"{name}.png"
  with PIL.Image.open(path) as image:
    assert image.width > 500
    assert len(image.convert("L").getcolors()) > 20
