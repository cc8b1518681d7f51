import dataclasses
import re

import flax.traverse_util
import jax
import numpy as np
import pytest
import safetensors.numpy

from fawkes_jax import types
from fawkes_jax.commands import train as command
from fawkes_jax.models import architectures, students
from fawkes_jax.options import TrainOptions
from fawkes_jax.training import (
  batches,
  blocks,
  data,
  lesson,
  lines,
  loop,
  views,
)
from fawkes_jax.training import card as card_lib
from fawkes_jax.weights import extractors, variables


def _flat(result: loop.Result) -> np.ndarray:
  return np.concatenate([x.ravel() for x in jax.tree.leaves(result.student)])


@pytest.mark.slow
def test_a_few_people_are_learned(options, console, people, monkeypatch):
  said = []
  monkeypatch.setattr(lines, "SECONDS", 0)
  monkeypatch.setattr(console, "print", said.append)
  result = loop.train(
    options(steps=150, identities=0.1, relations=0.5), console=console
  )
  values = [
    float(match[1])
    for line in said
    if (match := re.search(r"projection ([\d.]+)", line))
  ]
  assert np.mean(values[-20:]) < 0.5 * np.mean(values[:5])
  assert result.cosines["projection"] > 0.5
  assert result.accuracies["drawn"][0] > 0.8
  trained = set(people.identities[result.split.training])
  assert not trained & set(people.identities[result.split.validation])


@pytest.fixture
def looking(monkeypatch, tiny, tmp_path) -> str:
  """A teacher that can look at faces: a student with weights of its own."""
  extractor = architectures.Extractor(
    name="looking",
    module=students.STUDENTS["tiny"](),
    variables=students.initialise(students.STUDENTS["tiny"](), 5),
    input_size=students.INPUT_SIZE,
    template=students.TEMPLATE,
  )
  monkeypatch.setenv("FAWKES_JAX_CACHE", str(tmp_path / "cache"))
  monkeypatch.setattr(extractors, "load_extractor", lambda _: extractor)
  return extractor.name


@pytest.mark.slow
@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"adversarial": 4},
    {"teachers": ("looking",), "cloaking": 8, "repeats": 2},
    {"teachers": ("teacher",), "student": "twin"},
  ],
)
def test_a_stopped_run_goes_on_to_the_same_weights(
  changes, options, console, request, monkeypatch, tmp_path
):
  for name in changes.get("teachers", ()):
    request.getfixturevalue(name)
  whole = loop.train(
    options(output=tmp_path / "whole", **changes), console=console
  )
  parts = options(
    output=tmp_path / "parts",
    **changes,
    report_minutes=1e-9,  # A checkpoint after each step.
  )
  real = batches.Batches.draw

  def stop(self, step):
    if step == 7:
      raise KeyboardInterrupt
    return real(self, step)

  with monkeypatch.context() as patch:
    patch.setattr(batches.Batches, "draw", stop)
    with pytest.raises(KeyboardInterrupt):
      loop.train(parts, console=console)
  rest = loop.train(parts, console=console)
  assert "at step 7" in console.file.getvalue()
  np.testing.assert_array_equal(_flat(whole), _flat(rest))


def test_training_begins_with_the_weights_of_another(
  options, console, tmp_path, monkeypatch
):
  first = loop.train(options(), console=console)
  variables.save(first.student, tmp_path / "a.safetensors", name="tiny")
  # The list of architectures does not know the tests' own.
  tiny = dataclasses.replace(
    architectures.ARCHITECTURES["student_resnet"],
    module=students.STUDENTS["tiny"],
  )
  monkeypatch.setitem(architectures.ARCHITECTURES, "tiny", tiny)
  rest = options(
    output=tmp_path / "rest",
    initial=tmp_path / "a.safetensors",
    learning_rate=1e-9,
    ema=0,
  )
  second = loop.train(rest, console=console)
  kept = jax.tree.map(
    lambda x: x.astype(np.float16).astype(np.float32), first.student["params"]
  )
  jax.tree.map(
    lambda got, wanted: np.testing.assert_allclose(got, wanted, atol=1e-6),
    second.student["params"],
    kept,
  )
  with pytest.raises(types.FawkesError, match=r"--initial must be weights of"):
    loop.train(
      dataclasses.replace(
        rest, student="student_vit", output=tmp_path / "other"
      ),
      console=console,
    )


def test_a_finished_run_is_not_trained_again(options, console):
  first = loop.train(options(), console=console)
  again = loop.train(options(), console=console)
  assert again.step == first.step == 12
  np.testing.assert_array_equal(_flat(first), _flat(again))


def test_adversarial_changes_reach_the_training(options, console, tmp_path):
  weak, strong = (
    loop.train(
      options(output=tmp_path / str(bound), adversarial=bound, steps=2),
      console=console,
    )
    for bound in (1, 8)
  )
  assert not np.allclose(_flat(weak), _flat(strong))


@pytest.mark.slow
def test_teachers_look_at_the_cloaked_faces(
  options, console, looking, people, monkeypatch
):
  seen = []
  real = lesson.Lesson.cloaked

  def spy(self, *arguments):
    batch = real(self, *arguments)
    jax.debug.callback(
      lambda *x: seen.append(x), batch["images"], batch["targets"][looking]
    )
    return batch

  monkeypatch.setattr(lesson.Lesson, "cloaked", spy)
  result = loop.train(
    options(teachers=(looking,), cloaking=16, steps=60), console=console
  )
  assert result.cosines[looking] > 0.6  # 0.74 measured.
  assert len(seen) == 60
  teacher = result.teachers[0]
  _, centre = teacher.targets(result.split.training)
  images, targets = (np.asarray(x) for x in seen[-1])
  still = [views.still(x, students.TEMPLATE, 112) for x in images]
  expected = teacher.looking.embed(np.stack(still)) - centre
  expected /= np.linalg.norm(expected, axis=1, keepdims=True)
  assert (expected * targets).sum(axis=1).min() > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("cloaking", [0, 8])
def test_a_twin_learns_its_teachers_blocks(
  cloaking, options, console, teacher, tmp_path, monkeypatch
):
  chosen = options(
    teachers=(teacher,),
    student="twin",
    name="mine",
    steps=300,
    learning_rate=4e-3,
    ema=0.9,
    cloaking=cloaking,
  )
  result = loop.train(chosen, console=console)
  assert result.cosines[teacher] > 0.55  # 0.65 and 0.77 measured.
  assert (result.architecture, result.embedding_size) == ("blocks", 8)
  own = result.teachers[0].looking.variables["params"]
  for name in ("block_0", "block_1"):
    for layer in ("expand", "project"):  # Its own weights, all the same.
      mine, kernel = (
        np.ravel(tree[name][layer]["kernel"])
        for tree in (result.student["params"], own)
      )
      assert abs(np.corrcoef(mine, kernel)[0, 1]) < 0.7
  assert command.run(chosen) == 0
  name, loaded = variables.load(tmp_path / "out" / "mine.safetensors")
  assert name == "blocks"
  np.testing.assert_allclose(
    loaded["params"]["embedding"]["bias"],
    result.student["params"]["embedding"]["bias"],
    rtol=1e-3,
  )
  card = (tmp_path / "out" / "mine.md").read_text()
  assert "`blocks` of fawkes_jax" in card
  assert "to 8 numbers" in card
  assert "began with random weights" in card
  # It goes on from where it is: its blocks need not learn apart any more.
  monkeypatch.setattr(
    blocks.Blocks, "apart", lambda *_: pytest.fail("apart again")
  )
  more = dataclasses.replace(
    chosen,
    output=tmp_path / "more",
    initial=tmp_path / "out" / "mine.safetensors",
    steps=20,
    learning_rate=4e-4,
  )
  further = loop.train(more, console=console)
  assert further.cosines[teacher] > result.cosines[teacher] - 0.05
  assert "began with the weights of `mine.safetensors`" in card_lib.text(
    more, further
  )


@pytest.mark.parametrize("name", ["pairs", "holdout", "initial"])
def test_a_file_that_is_not_there_is_said_before_the_work(
  name, options, console, tmp_path, monkeypatch
):
  monkeypatch.setattr(
    data, "load_faces", lambda *_, **__: pytest.fail("looked for faces")
  )
  path = tmp_path / "none.tsv"
  with pytest.raises(types.FawkesError, match=r"none\.tsv"):
    loop.train(options(**{name: path}), console=console)


def test_a_twin_needs_a_teacher_with_blocks(options, console, looking):
  chosen = options(teachers=(looking,), student="twin")
  with pytest.raises(types.FawkesError, match=r"--teachers must be .* blocks"):
    loop.train(chosen, console=console)


def test_stored_embeddings_cannot_teach_a_twin(options, console):
  with pytest.raises(
    types.FawkesError, match=r"extractors with --student=twin"
  ):
    loop.train(options(student="twin"), console=console)


def test_stored_embeddings_cannot_look_at_cloaks(options, console):
  with pytest.raises(
    types.FawkesError, match=r"extractors with --student=twin or --cloaking"
  ):
    loop.train(options(cloaking=8), console=console)


def test_the_command_writes_weights_and_a_card(options, tmp_path, capsys):
  chosen = options(name="mine", data_note="made of one | public photo")
  assert command.run(chosen) == 0
  folder = tmp_path / "out"
  names = {path.name for path in folder.iterdir()}
  assert names == {"mine.safetensors", "mine.md", "state"}
  flat = safetensors.numpy.load_file(folder / "mine.safetensors")
  assert {array.dtype for array in flat.values()} == {np.dtype(np.float16)}
  saved = flax.traverse_util.unflatten_dict(flat, sep="/")
  module = students.STUDENTS["tiny"]()
  images = np.zeros((2, students.INPUT_SIZE, students.INPUT_SIZE, 3))
  embeddings = module.apply(saved, images)
  assert embeddings.shape == (2, students.EMBEDDING_SIZE)
  card = (folder / "mine.md").read_text()
  assert "--teachers=projection.npz" in card
  assert "made of one | public photo" in card
  assert str(tmp_path) not in card
  assert str(folder / "mine.safetensors") in capsys.readouterr().out


def test_a_state_of_another_run_is_refused(options, console):
  loop.train(options(steps=2), console=console)
  with pytest.raises(types.FawkesError, match=r"--seed must stay .* got 5"):
    loop.train(options(steps=2, seed=5), console=console)


def test_a_damaged_state_is_refused(options, console, tmp_path):
  loop.train(options(steps=2), console=console)
  state = tmp_path / "out" / "state" / "state.safetensors"
  state.write_bytes(state.read_bytes()[:-100])
  with pytest.raises(types.FawkesError, match=r"state.safetensors must be"):
    loop.train(options(steps=2), console=console)


def test_an_output_that_cannot_be_written_is_refused(
  options, console, tmp_path
):
  (tmp_path / "file").write_text("")
  with pytest.raises(types.FawkesError, match="cannot be written"):
    loop.train(options(output=tmp_path / "file"), console=console)


def test_diverging_weights_are_never_saved(options, console, monkeypatch):
  real = batches.Batches.draw

  def broken(self, step):
    batch = real(self, step)
    batch.targets["projection"][:] = np.nan
    return batch

  monkeypatch.setattr(batches.Batches, "draw", broken)
  with pytest.raises(types.FawkesError, match="--learning_rate"):
    loop.train(options(steps=2), console=console)


def test_a_loss_that_explodes_ends_the_run(options, console, monkeypatch):
  real = batches.Batches.draw

  def broken(self, step):
    batch = real(self, step)
    batch.targets["projection"][:] = 1e9
    return batch

  monkeypatch.setattr(batches.Batches, "draw", broken)
  run = options(steps=2)
  with pytest.raises(types.FawkesError, match=r"--learning_rate .* 2 steps"):
    loop.train(run, console=console)
  assert not list(run.output.rglob("state.safetensors"))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"student": "nobody"}, "--student must be of .*, got nobody"),
    ({"teachers": ("nobody",)}, "--teachers=nobody must be"),
    ({"teachers": ("a.onnx",)}, "--teachers=a.onnx must be .* readable"),
    ({"teachers": ("a.npz",)}, "--teachers=a.npz must hold"),
    ({"teachers": ("a.pt",)}, "--teachers=a.pt must be"),
    ({"batch_size": 40}, "one batch of 40 photos"),
    ({"holdout_min_photos": 3}, "6 identities are held out"),
  ],
)
def test_mistakes_are_named(options, console, changes, message):
  with pytest.raises(types.FawkesError, match=message):
    loop.train(options(**changes), console=console)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"teachers": ()}, "^teachers must be one or more"),
    ({"teachers": ("a", "a")}, "^teachers must be .*each once"),
    ({"dtype": "int8"}, "^dtype must be float32 or bfloat16, got int8"),
    ({"minutes": 0}, "^minutes must be in"),
    ({"learning_rate": float("nan")}, "^learning_rate must be in"),
    ({"validation": 1.5}, "^validation must be in"),
    ({"crop_size": 5}, "^crop_size must be in"),
    ({"cloaking": 65}, "^cloaking must be in"),
    ({"cloaking": 8, "adversarial": 2}, "^cloaking must be 0 with"),
    ({"cloaking": 8, "repeats": 0}, "^repeats must be in"),
    (
      {"student": "twin", "teachers": ("a", "b")},
      "^student must be twin with",
    ),
    ({"student": "twin", "relations": 1}, "^student must be twin with"),
  ],
)
def test_options_are_checked_where_they_are_built(changes, message, tmp_path):
  with pytest.raises(types.FawkesError, match=message):
    TrainOptions(data="x", output=tmp_path, **changes)
