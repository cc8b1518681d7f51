"""The experiments: functions from a study to tables.

A cell of a row is a word, a number, None, a list of names, or a rate with its
confidence interval as a dict of `metrics.Rate`'s attributes. "PSR" is the
protection success rate of the paper: the share of the clean photos of
protected people that a tracker names wrongly after it has trained on what they
publish.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from fawkes_jax import types
from fawkes_jax.evaluation import countermeasures, heads, people, trackers
from fawkes_jax.evaluation import finetune as training
from fawkes_jax.evaluation.cloaks import Cloaks, Recipe, relation
from fawkes_jax.evaluation.countermeasures import CLEAN
from fawkes_jax.evaluation.features import Features
from fawkes_jax.evaluation.study import Study
from fawkes_jax.protection import adaptive as adaptive_lib
from fawkes_jax.protection import metrics

Row = dict[str, Any]
Tables = dict[str, list[Row]]


def protection(study: Study) -> Tables:
  """PSR, accuracies, cosines, and how visible the cloaks are."""
  return _measure(study, study.wardrobe.recipes())


def dssim(study: Study) -> Tables:
  """Protection over the budget."""
  mode = study.options.modes[0]
  return _measure(
    study,
    [
      Recipe(
        name=f"{mode}, rho {rho:g}",
        solver=study.options.solver(mode, ("rho", rho)),
      )
      for rho in study.options.rhos
    ],
  )


def ablation(study: Study) -> Tables:
  """Protection with one thing less in the solver."""
  base = study.wardrobe.recipes()[0]
  changed = [
    Recipe(
      name=", ".join((base.name, *(f"{k} {v:g}" for k, v in change))),
      solver=study.options.solver(base.name, *change),
    )
    for change in study.options.ablations
  ]
  return _measure(study, [base, *changed])


def counter(study: Study) -> Tables:
  """Protection where the tracker processes all photos first."""

  def rows(tracker: trackers.Tracker, cloaks: Cloaks) -> list[Row]:
    return [
      {"countermeasure": name, **row}
      for name in countermeasures.COUNTERMEASURES
      for row in _success(study, tracker, cloaks, name)
    ]

  return {"counter": _each(study, "counter", rows)}


def leak(study: Study) -> Tables:
  """Protection where the tracker also has clean photos of the protected."""
  options = study.options

  def published(cloaks: Cloaks, person: people.Person, clean: int) -> list:
    order = np.random.default_rng(person.label).permutation(len(person.train))
    leaked = {person.train[i] for i in order[:clean]}
    return [
      photo if photo in leaked else cloaks.photos[photo]
      for photo in person.train
      if photo in leaked or photo in cloaks.photos
    ]

  def rows(tracker: trackers.Tracker, cloaks: Cloaks) -> list[Row]:
    found = []
    tests = study.gallery.features(
      tracker, people.test_photos(study.people.protected)
    )
    others = study.gallery.features(
      tracker, people.train_photos(study.people.others)
    )
    for share in options.leaks:
      clean = round(share * options.train)
      photos = [
        photo
        for person in study.people.protected
        for photo in published(cloaks, person, clean)
      ]
      train = study.gallery.features(tracker, photos) + others
      found += [
        {
          "share": share,
          "clean photos": clean,
          "head": head,
          "PSR": _wrong(study, head, train, tests),
        }
        for head in options.heads
      ]
    return found

  return {"leak": _each(study, "leak", rows, options.leaks)}


def identities(study: Study) -> Tables:
  """Protection over the number of people in the tracker.

  For each protected person there is a tracker of its own, in which all other
  people are clean.
  """
  options = study.options
  clean = (*study.people.others, *study.people.extras)
  most = 1 + len(clean)
  sizes = [*sorted(size for size in options.sizes if size < most), most]

  def rows(tracker: trackers.Tracker, cloaks: Cloaks) -> list[Row]:
    others = study.gallery.features(tracker, people.train_photos(clean))
    before, after, tests = (
      study.gallery.features(tracker, photos)
      for photos in (
        people.train_photos(study.people.protected),
        _published(study.people.protected, cloaks),
        people.test_photos(study.people.protected),
      )
    )
    labels = np.array([person.label for person in clean])
    found = []
    for size in sizes:
      for head in options.heads:
        answers: dict[str, list[np.ndarray]] = {"plain": [], "cloaked": []}
        shown = []
        for person in study.people.protected:
          order = np.random.default_rng(person.label).permutation(labels)
          rest = others.of(order[: size - 1])
          test = tests.of([person.label])
          shown.append(test.labels)
          for kind, train in (("plain", before), ("cloaked", after)):
            right = heads.right(head, train.of([person.label]) + rest, test)
            answers[kind].append(~right)
        errors = {
          kind: _rate(study, np.concatenate(wrong), np.concatenate(shown))
          for kind, wrong in answers.items()
        }
        found.append(
          {
            "people": size,
            "head": head,
            "PSR": errors["cloaked"],
            "errors without cloaks": errors["plain"],
          }
        )
    return found

  wanted = [[p.sha256 for p in person.train] for person in study.people.extras]
  return {"identities": _each(study, "identities", rows, sizes, wanted)}


def adaptive(study: Study) -> Tables:
  """Protection where the tracker learns from the cloaks of other people."""
  options = study.options
  whom = _others(study)
  photos = people.train_photos(whom)

  def rows(
    recipe: Recipe, tracker: trackers.Tracker, cloaks: Cloaks
  ) -> list[Row]:
    seen, own, others = (
      study.gallery.features(tracker, photos)
      for photos in (
        _published(study.people.chosen, cloaks),
        people.test_photos(study.people.protected),
        people.test_photos(study.people.others),
      )
    )
    before, after = study.gallery.pairs(
      tracker, photos, study.wardrobe.cloak(recipe, whom)
    )
    if not len(before.labels):
      raise types.FawkesError(
        "--adaptive_people must have photos whose face is found and cloaked,"
        f" got none of {len(photos)}"
      )
    pairs = (before.x, after.x, before.labels)
    denoiser = adaptive_lib.denoiser(*pairs)
    projection = adaptive_lib.projection(*pairs)
    known = [person.label for person in study.people.others]
    trackers_of = {
      "none": (seen, own, others),
      "trains on cloaks too": (seen + after.of(known), own, others),
      "map from cloaked to clean": (
        seen.mapped(denoiser.map_known), own, others
      ),
      "projection": (
        seen.mapped(projection.map_known),
        own.mapped(projection.map_new),
        others.mapped(projection.map_new),
      ),
    }  # fmt: skip
    return [
      {
        "adaptation": name,
        "learned from people": len(whom),
        "head": head,
        "PSR": _wrong(study, head, train, test),
        "accuracy on others": _right(study, head, train, rest),
      }
      for name, (train, test, rest) in trackers_of.items()
      for head in options.heads
    ]

  found = []
  for recipe in study.wardrobe.recipes():
    key = study.wardrobe.cloak(recipe, whom).key
    made = functools.partial(rows, recipe)
    found += _each(study, "adaptive", made, key, recipes=[recipe])
  return {"adaptive": found}


def _others(study: Study) -> tuple[people.Person, ...]:
  """Whose cloaks an adaptive tracker learns from; never the protected."""
  others, extras = study.people.others, study.people.extras
  more = min(max(study.options.adaptive_people - len(others), 0), len(extras))
  return (
    *others[: study.options.adaptive_people],
    *(extras[i * len(extras) // more] for i in range(more)),
  )


def matching(study: Study) -> Tables:
  """1:1 verification of what is published; not what cloaks are made for."""
  options = study.options

  def rows(tracker: trackers.Tracker, cloaks: Cloaks) -> list[Row]:
    everybody = study.people.chosen
    clean = study.gallery.features(
      tracker, people.train_photos(everybody) + people.test_photos(everybody)
    )
    impostors = metrics.impostor_distances(clean.x, clean.labels)
    photos = people.train_photos(study.people.protected)
    before, after = study.gallery.pairs(tracker, photos, cloaks)
    tests = study.gallery.features(
      tracker, people.test_photos(study.people.protected)
    )
    own = np.linalg.norm(before.x - after.x, axis=1)
    kinds = {
      "plain with another photo": _pairs(before, tests),
      "cloaked with another photo": _pairs(after, tests),
      "cloaked with its original": (own, before.labels),
    }
    found = []
    for false_matches in options.rates:
      limit = metrics.threshold(impostors, false_matches)
      found.append(
        {
          "false matches": false_matches,
          "impostor pairs": len(impostors),
          **{
            kind: _rate(study, distances < limit, labels)
            if np.isfinite(limit)
            else None
            for kind, (distances, labels) in kinds.items()
          },
        }
      )
    return found

  return {"matching": _each(study, "matching", rows, options.rates)}


def finetune(study: Study) -> Tables:
  """Protection where the tracker trains its recogniser too.

  The faces are those that the first tracker's detector finds.
  """
  options = study.options
  module, variables, name = training.network(options.finetune)
  eyes = study.trackers[0]

  def rows(tracker: trackers.Tracker, cloaks: Cloaks) -> list[Row]:
    everybody = study.people
    own = training.crops(
      study.detections,
      tracker.detector,
      people.test_photos(everybody.protected),
    )
    answers = {
      kind: training.right(
        (module, variables),
        training.crops(study.detections, tracker.detector, photos),
        own,
        steps=options.finetune_steps,
      )
      for kind, photos in (
        ("plain", people.train_photos(everybody.chosen)),
        ("cloaked", _published(everybody.chosen, cloaks)),
      )
    }
    return [
      {
        "steps": options.finetune_steps,
        "PSR": _rate(study, ~answers["cloaked"], own[1]),
        "accuracy without cloaks": _rate(study, answers["plain"], own[1]),
      }
    ]

  made = training.fingerprint(name, options.finetune_steps)
  found = [
    {
      "cloak": recipe.name,
      "network": Path(options.finetune).stem,
      "detector": eyes.detector.name,
      **{k: row[k] for k in ("steps", "PSR", "accuracy without cloaks")},
    }
    for recipe in study.wardrobe.recipes()
    for row in _rows(study, "finetune", recipe, eyes, rows, made)
  ]
  return {"finetune": found}


def leaveoneout(study: Study) -> Tables:
  """Each surrogate as a tracker of cloaks that were made without it."""
  names = study.options.extractors
  found: list[Row] = []
  for base in study.wardrobe.recipes():
    for name in names:
      rest = tuple(other for other in names if other != name)
      without = dataclasses.replace(
        base, name=f"{base.name}, without {_stem(name)}", extractors=rest
      )
      runs = "dlib" if name == "dlib_resnet" else name
      if not trackers.has_runtime(runs):
        found.append({"cloak": without.name, "tracker": name, "head": None})
        continue
      tracker = study.tracker(runs)
      for recipe in (without, base):
        found += _rows(study, "success", recipe, tracker, functools.partial(
          _success, study
        ))  # fmt: skip
  return {"leaveoneout": found}


EXPERIMENTS: dict[str, Callable[[Study], Tables]] = {
  "protection": protection,
  "dssim": dssim,
  "identities": identities,
  "leak": leak,
  "counter": counter,
  "adaptive": adaptive,
  "matching": matching,
  "leaveoneout": leaveoneout,
  "ablation": ablation,
  "finetune": finetune,
}
"""By the names of `EXPERIMENTS`."""


def _measure(study: Study, recipes: Sequence[Recipe]) -> Tables:
  """What the cloaks of some recipes do, and how visible they are."""
  return {
    "protection": _each(
      study, "success", functools.partial(_success, study), recipes=recipes
    ),
    "features": _each(
      study, "moved", functools.partial(_moved, study), recipes=recipes
    ),
    "photos": [_photos(study, recipe) for recipe in recipes],
  }


def _each(
  study: Study,
  name: str,
  rows: Callable[[trackers.Tracker, Cloaks], list[Row]],
  *parts: Any,
  recipes: Sequence[Recipe] | None = None,
) -> list[Row]:
  """The rows of every recipe and tracker, kept between runs.

  Args:
    study: the study of the run.
    name: the name of what the rows say.
    rows: makes them.
    *parts: plain data that they depend on, beside people, cloaks, trackers
      and heads.
    recipes: the cloaks; None for those of the modes.
  """
  return [
    row
    for recipe in (study.wardrobe.recipes() if recipes is None else recipes)
    for tracker in study.trackers
    for row in _rows(study, name, recipe, tracker, rows, *parts)
  ]


def _rows(
  study: Study,
  name: str,
  recipe: Recipe,
  tracker: trackers.Tracker,
  rows: Callable[[trackers.Tracker, Cloaks], list[Row]],
  *parts: Any,
) -> list[Row]:
  """The rows of one recipe and tracker, kept between runs."""
  cloaks = study.wardrobe.cloak(recipe)
  found = study.memory.get(
    name,
    study.key(tracker, cloaks, *parts),
    functools.partial(rows, tracker, cloaks),
  )
  first = {
    "cloak": recipe.name,
    "tracker": tracker.name,
    "surrogate": relation(tracker.identity, study.wardrobe.surrogates(recipe)),
  }
  return [first | row for row in found]


def _success(
  study: Study,
  tracker: trackers.Tracker,
  cloaks: Cloaks,
  countermeasure: str = CLEAN,
) -> list[Row]:
  """PSR, and what the tracker reaches without cloaks and on other people."""
  everybody = study.people
  parts = [
    people.train_photos(everybody.chosen),
    _published(everybody.chosen, cloaks),
    people.test_photos(everybody.protected),
    people.test_photos(everybody.others),
  ]
  # All at once, for one bar of progress.
  study.gallery.rows(
    tracker, [x for part in parts for x in part], countermeasure
  )
  clean, seen, own, others = (
    study.gallery.features(tracker, part, countermeasure) for part in parts
  )
  return [
    {
      "head": head,
      "PSR": _wrong(study, head, seen, own),
      "accuracy without cloaks": _right(study, head, clean, own),
      "accuracy on others": _right(study, head, seen, others),
    }
    for head in study.options.heads
  ]


def _moved(
  study: Study, tracker: trackers.Tracker, cloaks: Cloaks
) -> list[Row]:
  """How far cloaks move a tracker's features, and what it does not find."""
  everybody = study.people
  photos = people.train_photos(everybody.protected)
  before, after = study.gallery.pairs(tracker, photos, cloaks)
  everyone = people.train_photos(everybody.chosen)
  known = study.gallery.features(tracker, everyone).x
  centre = known.mean(axis=0) if len(known) else 0.0
  lengths = np.linalg.norm(after.x - before.x, axis=1)
  return [
    {
      "cosine": _mean(metrics.cosines(before.x, after.x, centre)),
      "cosine, not centred": _mean(metrics.cosines(before.x, after.x)),
      "shift": _mean(lengths),
      "clean faces not found": study.gallery.not_found(
        tracker, everyone + people.test_photos(everybody.chosen)
      ),
      "cloaked faces not found": study.gallery.not_found(
        tracker, cloaks.published(photos)
      ),
    }
  ]


def _photos(study: Study, recipe: Recipe) -> Row:
  """How visible cloaks are, and how fast they were made."""
  cloaks = study.wardrobe.cloak(recipe)
  photos = people.train_photos(study.people.protected)
  seen = study.visibility.measure(photos, cloaks)
  return {
    "cloak": recipe.name,
    "rho": recipe.solver.rho,
    "photos": len(photos),
    "faces": cloaks.faces,
    "not cloaked": list(cloaks.failed),
    "DSSIM": _mean(seen[:, 0]),
    "DSSIM, 95th percentile": (
      float(np.percentile(seen[:, 0], 95)) if len(seen) else None
    ),
    "change of a*, b*": _mean(seen[:, 1]),
    "file size": _mean(seen[:, 2]),
    "faces a second": cloaks.rate,
  }


def _published(
  whom: Sequence[people.Person], cloaks: Cloaks
) -> list[people.Photo]:
  """What people publish for trackers to train on."""
  return [
    cloaks.photos[photo] if person.protected else photo
    for person in whom
    for photo in person.train
    if not person.protected or photo in cloaks.photos
  ]


def _right(study: Study, head: str, train: Features, test: Features) -> Row:
  """How many faces a tracker names rightly."""
  return _rate(study, heads.right(head, train, test), test.labels)


def _wrong(study: Study, head: str, train: Features, test: Features) -> Row:
  """How many faces a tracker names wrongly."""
  return _rate(study, ~heads.right(head, train, test), test.labels)


def _rate(
  study: Study, values: Bool[np.ndarray, " n"], labels: Int[np.ndarray, " n"]
) -> Row:
  """A rate over people as plain data."""
  return dataclasses.asdict(
    metrics.rate(values, labels, draws=study.options.draws)
  )


def _mean(values: Float[np.ndarray, " n"]) -> float | None:
  return float(values.mean()) if len(values) else None


def _pairs(
  published: Features, tests: Features
) -> tuple[Float[np.ndarray, " p"], Int[np.ndarray, " p"]]:
  """Distances between all photos of one person, and whose they are."""
  same = published.labels[:, None] == tests.labels
  distances = metrics.pair_distances(published.x, tests.x)
  rows, _ = np.nonzero(same)
  return distances[same], published.labels[rows]


def _stem(name: str) -> str:
  return Path(name).stem
