"""People and seeds of an album, on the faces of one person and two others."""

import numpy as np
import pytest

from fawkes_jax.archive.source import SourceFile
from fawkes_jax.runs import people, saving


@pytest.fixture
def job(faces, cloaker):
  """Makes the job of a photo with some of `faces`."""
  raw = cloaker.recognition.embed(faces)
  own = cloaker.normalised(raw)

  def make(name, numbers):
    return saving.Job(
      source=SourceFile(relative=name),
      sha256=name.encode().hex(),
      grey=False,
      jpeg_tables=None,
      smallest_face=40.0,
      faces=[faces[i] for i in numbers],
      raw={key: e[numbers] for key, e in raw.items()},
      own={key: e[numbers] for key, e in own.items()},
    )

  return make


def seeds(problems):
  return [int(problem.seed) for _, problem in problems]


def test_photos_of_a_person_have_one_target_and_their_mean(job, cloaker):
  jobs = [job("a.jpg", [0]), job("b.jpg", [1]), job("c.jpg", [2])]
  known = people.tell_apart(jobs, cloaker)
  assert known.first == {jobs[0]: 0, jobs[1]: 1, jobs[2]: 2}
  assert len(set(known.targets.tolist())) == 1
  assert known.photos.tolist() == [3, 3, 3]
  for means in known.means.values():
    np.testing.assert_array_equal(means[0], means[1])
    assert not np.allclose(means[0], jobs[0].own["dlib_resnet"][0])


def test_a_photo_gets_the_problems_of_its_own_faces(job, cloaker):
  jobs = [job("a.jpg", [0]), job("b.jpg", [1, 2])]
  known = people.tell_apart(jobs, cloaker)
  problems = people.problems(jobs[1], known, cloaker, seed=5)
  assert [key for key, _ in problems] == [(jobs[1], 0), (jobs[1], 1)]
  for (_, index), problem in problems:
    np.testing.assert_array_equal(problem.original, jobs[1].faces[index].crop)
    for name, mean in known.means.items():
      np.testing.assert_array_equal(problem.own[name], mean[1 + index])
  targets = [cloaker.target_names[target] for target in known.targets[1:]]
  assert jobs[1].target_names == targets
  # Two faces of one photo are two people, of whom one is also on the other.
  assert sorted(jobs[1].photos) == [1, 2]
  assert jobs[1].started > 0


def test_seeds_depend_on_the_photo_the_face_and_the_run_alone(job, cloaker):
  alone, together = job("b.jpg", [1, 2]), job("b.jpg", [1, 2])
  first = people.problems(
    alone, people.tell_apart([alone], cloaker), cloaker, seed=5
  )
  album = [job("a.jpg", [0]), together]
  known = people.tell_apart(album, cloaker)
  again = people.problems(together, known, cloaker, seed=5)
  assert seeds(first) == seeds(again)
  assert len(set(seeds(first))) == 2
  other = people.problems(together, known, cloaker, seed=6)
  assert not set(seeds(first)) & set(seeds(other))
  # What earlier versions drew, so that bytes stay.
  assert seeds(first) == [3398659034, 3442498258]
