"""Files that go on as they are: other kinds, and photos without a face."""

import hashlib
import io
from pathlib import Path
from typing import Any

from fawkes_jax import types
from fawkes_jax.archive import others
from fawkes_jax.archive.source import SourceFile
from fawkes_jax.options import CloakOptions
from fawkes_jax.photos import codec
from fawkes_jax.photos.photo import Photo
from fawkes_jax.runs import outcomes, saving
from fawkes_jax.runs.failures import one_photo
from fawkes_jax.runs.ledger import Ledger, renamed


class Copier:
  """Copies files that need no cloak, or leaves them out."""

  def __init__(
    self, options: CloakOptions, saver: saving.Saver, ledger: Ledger
  ):
    self._options = options
    self._saver = saver
    self._ledger = ledger

  def other(
    self,
    source: SourceFile,
    reason: str,
    sha256: str,
    content: io.BytesIO | Path,
  ) -> outcomes.Outcome:
    """Copies a file that is no photo, or leaves it out.

    Args:
      source: the file.
      reason: why it is no photo.
      sha256: of its content.
      content: of the file.

    Returns:
      Its outcome; "failed" for a picture that cannot be cloaked.
    """
    known = {"source_sha256": sha256}
    kind = others.image_kind(content)
    if kind is not None:
      reason = f"a picture of a kind that cannot be cloaked ({kind})"
      return self._ledger.entry(source, "failed", reason, **known)
    if not self._options.copies_others:
      return self._ledger.entry(source, "skipped", reason, **known)
    try:
      if isinstance(content, Path):
        place = self._saver.copy(source, content)
      else:
        place = self._saver.write(source, content.getvalue())
    except types.PhotoError as error:
      return self._ledger.entry(source, "failed", str(error), **known)
    return self._ledger.entry(
      source, "copied", reason, place=place, output_sha256=sha256, **known
    )

  def faceless(
    self,
    source: SourceFile,
    photo: Photo,
    *,
    sha256: str,
    smallest_face: float,
    likely: tuple[int, int, int, int, float] | None,
  ) -> outcomes.Outcome:
    """Copies a photo without a face, or leaves it out.

    Args:
      source: its file.
      photo: that was looked at.
      sha256: of the file.
      smallest_face: that was looked for, see `manifest.Row`.
      likely: where a face is likely all the same, see `index.Seen`.

    Returns:
      Its outcome.
    """
    options = self._options
    known: dict[str, Any] = {
      "source_sha256": sha256,
      "smallest_face": smallest_face,
    }
    if likely is not None:
      known["likely"] = {"box": likely[:4], "score": likely[4]}
    if options.on_no_face == "skip":
      reason = "left out, --on_no_face=skip"
      return self._ledger.entry(source, "no_face", reason, **known)
    return self._as_it_is(source, photo, "no_face", photo.note, known)

  def spared(
    self,
    source: SourceFile,
    photo: Photo,
    *,
    sha256: str,
    smallest_face: float,
    decisions: tuple[dict, ...],
  ) -> outcomes.Outcome:
    """Copies a photo on which nobody is to be cloaked.

    Args:
      source: its file.
      photo: that was looked at.
      sha256: of the file.
      smallest_face: that was looked for, see `manifest.Row`.
      decisions: see `manifest.Row`.

    Returns:
      Its outcome.
    """
    reason = "nobody on it is to be cloaked"
    if photo.note:
      reason += f"; {photo.note}"
    known: dict[str, Any] = {
      "source_sha256": sha256,
      "smallest_face": smallest_face,
      "decisions": decisions,
    }
    return self._as_it_is(source, photo, "spared", reason, known)

  def _as_it_is(
    self,
    source: SourceFile,
    photo: Photo,
    status: str,
    reason: str | None,
    known: dict[str, Any],
  ) -> outcomes.Outcome:
    """Writes a photo without a cloak."""
    options = self._options
    lost: set[str] = set()
    try:
      with one_photo("writing it"):
        data = codec.encode(
          photo,
          (),
          strip_location=options.strip_location,
          strip_names=options.strip_names,
          lost=lost,
        )
      place = self._saver.write(source, data, photo.suffix)
    except types.PhotoError as error:
      return self._ledger.failure(source, error, **known)
    return self._ledger.entry(
      source,
      status,
      reason,
      place=place,
      output_sha256=hashlib.sha256(data).hexdigest(),
      output=renamed(source, photo.suffix),
      lost=tuple(sorted(lost)),
      names=not options.strip_names and codec.names_people(photo),
      **known,
    )
