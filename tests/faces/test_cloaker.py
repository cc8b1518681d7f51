"""Arrays in, cloaks out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import fawkes_jax

RHO = 0.0135
SIZE = 64


def apply(variables, images):
  """A recogniser without Flax: which pixels are brighter than the next."""
  steps = jnp.tanh((images[:, :, 1:] - images[:, :, :-1]) / 4)
  return steps.mean(axis=-1).reshape(len(images), -1) @ variables["weights"]


@pytest.fixture(scope="module")
def tiny():
  weights = np.random.default_rng(0).normal(size=(240, 64)).astype(np.float32)
  return fawkes_jax.Extractor.from_apply(
    apply, {"weights": weights}, name="tiny", input_size=16
  )


def options():
  return fawkes_jax.CloakerOptions(
    solver=fawkes_jax.SolverOptions(
      rho=RHO, steps=60, jitter=0, blur=0, jpeg=0
    ),
    crop_size=SIZE,
    batch_size=2,
  )


@pytest.fixture(scope="module")
def cloaker(tiny):
  return fawkes_jax.Cloaker(options(), extractors=[tiny])


@pytest.fixture(scope="module")
def crops(small_astronaut):
  face = Image.fromarray(small_astronaut[20:220, 10:210]).resize((SIZE, SIZE))
  return np.stack([np.asarray(face), np.asarray(face)[:, ::-1]])


@pytest.fixture(scope="module")
def given(small_astronaut):
  """One photo in each way that it may be given, and one without a face."""
  alpha = np.arange(256, dtype=np.uint8)[:, None].repeat(256, axis=1)
  return [
    small_astronaut,
    small_astronaut[:, ::-1, 0],
    np.dstack([small_astronaut, alpha]),
    (small_astronaut[:, ::-1] / 255).astype(np.float32),
    np.full((40, 50, 3), 90, np.uint8),
  ]


@pytest.fixture(scope="module")
def results(cloaker, given):
  return cloaker.cloak(given, people=["her", "twin", "her", None, None])


def test_each_image_comes_back_as_it_was_given(results, given):
  for result, image in zip(results, given, strict=True):
    assert result.image.shape == image.shape
    assert result.image.dtype == image.dtype
  assert (results[2].image[..., 3] == given[2][..., 3]).all()
  assert results[3].image.max() <= 1


def test_each_face_is_cloaked_within_the_budget(results, given):
  for result, image in zip(results[:4], given, strict=False):
    [face] = result.faces
    assert 0 < face.dssim <= RHO
    assert face.cost == pytest.approx(face.dssim, rel=1e-4)  # Of dm_pix.
    assert face.cosine["tiny"] < 0.95
    assert face.unprotected is None
    assert 0 < face.steps <= 60
    left, top, right, bottom = face.box
    before, after = image.astype(float), result.image.astype(float)
    changed = np.argwhere(
      (before != after).any(axis=tuple(range(2, image.ndim)))
    )
    assert len(changed) > 1000
    y, x = changed.mean(axis=0)
    assert left < x < right
    assert top < y < bottom
    # Far from a face nothing is touched.
    assert (before[-8:, :8] == after[-8:, :8]).all()


def test_an_image_without_a_face_stays_as_it_was(results, given):
  assert results[4].faces == ()
  np.testing.assert_array_equal(results[4].image, given[4])
  assert results[4].image is not given[4]


def test_a_person_is_who_the_caller_says(results):
  first, twin, same, other = (result.faces[0] for result in results[:4])
  assert first.person == same.person != twin.person
  assert other.person not in (first.person, twin.person)
  assert first.target == same.target


def test_two_people_of_one_call_approach_each_other(two_people):
  cloaker = fawkes_jax.Cloaker(options(), extractors=["dlib_resnet"])
  labels = ["anna", "anna", "ben", "ben"]
  results = cloaker.cloak(two_people, labels)
  anna, _, ben, _ = (face for result in results for face in result.faces)
  for result, other in zip(results, (ben, ben, anna, anna), strict=True):
    [face] = result.faces
    assert face.target == f"person {other.person}"
    assert face.cost <= RHO
  [alone] = cloaker.cloak(two_people[:1])[0].faces
  assert alone.target.startswith("bank/")


def test_of_nothing_comes_nothing(cloaker):
  assert cloaker.cloak([]) == []
  assert cloaker.cloak(np.zeros((0, 8, 8, 3), np.uint8)) == []
  assert cloaker.cloak_crops([]) == []
  assert cloaker.embed([])["tiny"].shape == (0, 64)


def test_crops_approach_the_target_that_is_given(cloaker, crops):
  target = {"tiny": cloaker.embed(crops)["tiny"][::-1] + 1}
  for result in cloaker.cloak_crops(crops, target=target):
    [face] = result.faces
    assert face.target == "given"
    assert face.box == (0, 0, SIZE, SIZE)
    assert result.image.shape == (SIZE, SIZE, 3)
    assert face.dssim <= RHO
    assert face.cosine["tiny"] < 0.95


def towards(embedding, own, target, key):
  """Nothing but the target; with noise, for which the key is."""
  del own
  return 1 - embedding @ target + 1e-6 * jax.random.normal(key)


def energy(original, changed, weights):
  """A budget of squares, such that `rho` is 16 grey levels all over."""
  square = ((changed - original) ** 2).mean(axis=-1)
  return RHO / 256 * (weights * square).sum()


def test_a_caller_brings_loss_and_budget(tiny, crops):
  own = fawkes_jax.Cloaker(
    options(), extractors=[tiny], loss=towards, budget=energy
  )
  # What is asked for is where the face is: nothing to do for this loss.
  there = own.cloak_crops(crops[:1], target=own.embed(crops[:1]))
  assert there[0].faces[0].cosine["tiny"] > 0.98
  [result] = own.cloak_crops(
    crops[:1], target={"tiny": -own.embed(crops[:1])["tiny"]}
  )
  [face] = result.faces
  assert face.cosine["tiny"] < 0.98
  assert 0 < face.cost <= RHO
  assert face.cost != pytest.approx(face.dssim, rel=0.01)
  change = result.image.astype(float) - crops[0]
  assert np.abs(change).max() > 1


GOOD = np.zeros((32, 32, 3), np.uint8)


@pytest.mark.parametrize(
  ("images", "message"),
  [
    (GOOD, r"images must be a list of images.*\[image\]"),
    (GOOD[..., 0], "images must be a list of images"),
    (Image.fromarray(GOOD), "images must be a list of images"),
    (7, "images must be a list of images, got int"),
    ([GOOD, GOOD[..., :2]], r"images\[1\] must be \[height, width\]"),
    ([GOOD[0, 0]], r"images\[0\] must be .*got \[3\]"),
    ([GOOD[:0]], r"images\[0\] must have pixels"),
    ([GOOD / 1.0 + 200], r"images\[0\] must be in 0\.\.1 .*got 200\.\.200"),
    ([np.full((9, 9), np.nan)], r"images\[0\] must be in 0\.\.1"),
    ([GOOD.astype(np.uint16)], r"images\[0\] must be uint8.*got uint16"),
    ([GOOD > 0], r"images\[0\] must be uint8.*got bool"),
    ([Image.new("P", (9, 9))], r"images\[0\] must have the mode L, RGB, RGBA"),
  ],
)
def test_what_is_no_image_is_named(cloaker, images, message):
  with pytest.raises(fawkes_jax.FawkesError, match=message):
    cloaker.cloak(images)


def test_wrong_arguments_are_named(cloaker, tiny):
  error = fawkes_jax.FawkesError
  with pytest.raises(error, match=r"people must have one label .* 1 for 2"):
    cloaker.cloak([GOOD, GOOD], people=["me"])
  with pytest.raises(error, match=r"crops\[0\] must be square, 24 to 64"):
    cloaker.cloak_crops([GOOD[:20]])
  with pytest.raises(error, match=r"own must have an embedding by the name"):
    cloaker.cloak_crops([GOOD], own={"dlib": np.zeros(64)})
  with pytest.raises(error, match=r"target\['tiny'\] must have the shape \[64"):
    cloaker.cloak_crops([GOOD], target={"tiny": np.zeros(9)})
  with pytest.raises(error, match=r"^options must be .* got 'high'; a mode"):
    fawkes_jax.Cloaker("high")
  with pytest.raises(error, match=r"^mode must be low, mid or high, got loud"):
    fawkes_jax.Cloaker(mode="loud")
  with pytest.raises(error, match=r"^extractors must be of .*, got nobody"):
    fawkes_jax.Cloaker(extractors="nobody")
  with pytest.raises(error, match=r"^extractors must be .* each once"):
    fawkes_jax.Cloaker(extractors=[tiny, tiny])
  with pytest.raises(error, match=r"^loss must give a scalar"):
    fawkes_jax.Cloaker(
      options(), extractors=[tiny], loss=lambda e, own, target, key: e
    )
  with pytest.raises(error, match=r"^budget must give a scalar"):
    fawkes_jax.Cloaker(
      options(), extractors=[tiny], budget=lambda a, b, weights: jnp.abs(a - b)
    )


def test_an_extractor_must_be_one():
  make = fawkes_jax.Extractor.from_apply
  with pytest.raises(ValueError, match=r"apply must give embeddings \[n, d\]"):
    make(lambda v, x: x.mean(), {}, name="mean", input_size=16)
  with pytest.raises(ValueError, match=r"template must be dlib, arcface"):
    make(apply, {}, name="tiny", input_size=16, template="mtcnn")
