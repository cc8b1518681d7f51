"""What people publish, made once for each recipe."""

import dataclasses

from fawkes_jax.evaluation import people


def test_a_recipe_is_cloaked_once(fakes, begin):
  study = begin()
  [recipe] = study.wardrobe.recipes()
  cloaks = study.wardrobe.cloak(recipe)
  assert study.wardrobe.cloak(recipe) is cloaks
  assert fakes.cloaked == cloaks.faces == 6
  again = begin()
  kept = again.wardrobe.cloak(recipe)
  assert fakes.cloaked == 6
  assert (kept.key, kept.statuses) == (cloaks.key, {"cloaked": 6})
  photos = people.train_photos(study.people.protected)
  published = cloaks.published(photos)
  assert [p.name for p in published] == [p.name for p in photos]
  assert not {p.sha256 for p in published} & {p.sha256 for p in photos}


def test_other_options_and_other_people_are_cloaked_apart(fakes, begin):
  study = begin()
  [recipe] = study.wardrobe.recipes()
  cloaks = study.wardrobe.cloak(recipe)
  weaker = dataclasses.replace(
    recipe, solver=dataclasses.replace(recipe.solver, rho=0.001)
  )
  study.wardrobe.cloak(weaker)
  assert fakes.cloaked == 12
  others = study.wardrobe.cloak(recipe, study.people.others)
  assert fakes.cloaked == 18
  assert not set(others.photos) & set(cloaks.photos)


def test_people_with_strangers_as_targets_are_cloaked_apart(fakes, begin):
  for targets, cloaked in (("archive", 6), ("bank", 12), ("archive", 12)):
    study = begin(targets=targets)
    [recipe] = study.wardrobe.recipes()
    study.wardrobe.cloak(recipe)
    assert fakes.cloaked == cloaked


def test_a_recipe_may_have_surrogates_of_its_own(fakes, begin):
  study = begin(extractors=("dlib_resnet", "student"))
  [recipe] = study.wardrobe.recipes()
  assert study.wardrobe.surrogates(recipe) == ("dlib_resnet", "student")
  own = dataclasses.replace(recipe, extractors=("student",))
  assert study.wardrobe.surrogates(own) == ("student",)
