"""What is said of people whose protection is at risk."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from fawkes_jax import types
from fawkes_jax.archive import index, manifest, stores
from fawkes_jax.options import OptionError
from fawkes_jax.runs import leaks, people, pipeline


@pytest.fixture
def output(cloaker, tmp_path):
  """Anna on five photos, Ben on two, one of them with Anna; nobody knows how
  they look."""
  random = np.random.default_rng(0)
  looks = dict(zip("ab", random.normal(0, 10, (2, 128)), strict=True))
  store = stores.open_store(tmp_path)
  one = index.Index(store, config="c")
  for number, who in enumerate(("a", "a", "a", "a", "ab", "b")):
    seen = np.stack([looks[w] + random.normal(0, 1, 128) for w in who])
    one.add(
      index.Seen(
        path=f"{number}.png",
        sha256=str(number),
        smallest_face=24.0,
        boxes=np.zeros((len(who), 4), np.int32),
        scores=np.ones(len(who), np.float32),
        alignments=np.zeros((len(who), 5)),
        embeddings={"dlib_resnet": seen.astype(np.float16)},
      )
    )
  one.sync()
  people.arrange(one, store, cloaker, manifest.Rows())
  return store


def row(number, status="cloaked", *decisions):
  return manifest.Row(
    path=f"{number}.png", status=status, config="c",
    source_sha256=str(number), decisions=decisions,
  )  # fmt: skip


def decision(cloak, *, unsure=False):
  return {"cloak": cloak, "unsure": unsure}


def said(output, rows, **details):
  return {
    risk.what: (risk.people, risk.first)
    for risk in leaks.found(output, rows, **details)
  }


FEW = {"fewer than 3 photos": (1, ("4.png",))}


def test_people_with_few_photos_are_at_risk(output):
  assert said(output, [row(i) for i in range(6)]) == FEW


def test_people_with_a_photo_that_failed_are_at_risk(output):
  rows = [row(i, "failed" if i in (0, 4) else "cloaked") for i in range(6)]
  assert said(output, rows)["photos that failed"] == (2, ("0.png", "4.png"))


def test_whom_a_rule_spares_on_all_photos_is_not_at_risk_by_it(output):
  spared = decision(False)
  rows = [row(i, "spared", spared) for i in range(4)]
  rows += [row(4, "cloaked", spared, decision(True)), row(5)]
  assert said(output, rows) == FEW
  some = said(output, [row(0), *rows[1:]])
  assert some["some photos that a rule spares"] == (1, ("0.png",))


def test_whom_a_rule_spares_in_doubt_is_at_risk(output):
  doubted = decision(False, unsure=True)
  rows = [row(i, "spared", doubted) for i in range(4)]
  rows += [row(4, "cloaked", doubted, decision(True)), row(5)]
  assert (
    said(output, rows)["photos that a rule spares though it is unsure"][0] == 1
  )


def test_where_nobody_knows_who_is_who_nothing_is_said(tmp_path):
  assert leaks.found(stores.open_store(tmp_path), [row(0)]) == []


def test_people_are_found_among_published_photos(
  cloaker, faces, small_astronaut, tmp_path
):
  """One of two people of the archive, on another photo; and a wall."""
  raw = cloaker.recognition.embed(faces[:1])["dlib_resnet"]
  store = stores.open_store(tmp_path / "out")
  one = index.Index(store, config="c")
  for number, seen in enumerate((-raw, raw)):
    one.add(
      index.Seen(
        path=f"{number}.png",
        sha256=str(number),
        smallest_face=24.0,
        boxes=np.zeros((1, 4), np.int32),
        scores=np.ones(1, np.float32),
        alignments=np.zeros((1, 5)),
        embeddings={"dlib_resnet": seen.astype(np.float16)},
      )
    )
  one.sync()
  people.arrange(one, store, cloaker, manifest.Rows())
  public = tmp_path / "public"
  public.mkdir()
  Image.fromarray(small_astronaut[:, ::-1]).save(public / "mirrored.png")
  Image.new("RGB", (99, 99)).save(public / "wall.png")
  (public / "notes.txt").write_text("no photo")
  known = people.read(cloaker, store, seed=0)
  counts = leaks.published(str(public), cloaker, known)
  assert counts.tolist() == [0, 1]
  found = said(store, [row(0), row(1)], published=counts)
  assert found["clean photos among the published ones"] == (1, ("1.png",))


def test_a_folder_of_published_photos_that_is_missing_is_named_at_once(
  cloaker, tmp_path
):
  (tmp_path / "in").mkdir()
  options = dataclasses.replace(
    cloaker.options, input=tmp_path / "in", output=tmp_path / "out",
    published=str(tmp_path / "nowhere"),
  )  # fmt: skip
  with pytest.raises(types.FawkesError, match="--published"):
    pipeline.cloak_archive(options, cloaker=cloaker)
  assert not (tmp_path / "out").exists()


def test_published_photos_are_not_looked_for_on_a_cluster(cloaker):
  with pytest.raises(OptionError, match="published"):
    dataclasses.replace(cloaker.options, published="public", engine="ray")
