"""Whom a person's faces shall look like to a machine.

The Fawkes paper (section 4.2) cloaks all photos of a user together: the target
is, of many candidate identities, the one whose images are farthest from all of
the user's. A tracker, too, learns a person from several photos; so what a cloak
leaves behind is the person's mean embedding, not that of one photo, which is as
much of a pose and of the light.
"""

import numpy as np
from jaxtyping import Float32

Embeddings = dict[str, Float32[np.ndarray, "n d"]]
"""By extractor, normalised embeddings, one face or identity a row."""


def farthest(faces: Embeddings, candidates: Embeddings) -> int:
  """The max-min rule: the candidate whose nearest of some faces is farthest.

  Args:
    faces: of one person.
    candidates: the same identities in each extractor's space.

  Returns:
    The index of the candidate; the distance is the mean over extractors.
  """
  distances = [1 - faces[name] @ candidates[name].T for name in sorted(faces)]
  return int(np.argmax(np.mean(distances, axis=0).min(axis=0)))
