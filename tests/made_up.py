"""Outputs of runs that never were: rows, and photos with small changes."""

import datetime
import hashlib
import io

import numpy as np
import PIL.Image

from fawkes_jax.archive import manifest, results, stores

BEGUN = datetime.datetime(2026, 5, 4, 12, tzinfo=datetime.UTC)


def row(path, status="cloaked", *, seconds=0.0, **fields):
  """A row that was finished so many seconds after the begin."""
  finished = BEGUN + datetime.timedelta(seconds=seconds)
  return manifest.Row(
    path=path,
    status=status,
    config="c",
    finished=finished.isoformat(timespec="seconds"),
    **fields,
  )


def face(dssim=0.013, box=(20, 20, 90, 90), linf=12, **cosines):
  """What a row says of a face."""
  return {
    "box": list(box),
    "target": "somebody",
    "dssim": dssim,
    "linf": linf,
    "extractors": {
      name: {"shift": 0.5, "cosine": cosine}
      for name, cosine in (cosines or {"dlib_resnet": 0.4}).items()
    },
  }


def many(count):
  """Rows of an archive, one after another."""
  generator = np.random.default_rng(0)
  for number in range(count):
    path = f"album {number % 7}/{number:07}.jpg"
    drawn = generator.random(4)
    fields = {"seconds": number / 3}
    if drawn[0] < 0.7:
      measured = [
        face(0.0135 * drawn[1], dlib_resnet=drawn[2], student=drawn[3])
        for _ in range(1 + number % 3)
      ]
      yield row(path, faces=tuple(measured), smallest_face=24.0, **fields)
    elif drawn[0] < 0.9:
      yield row(path, "no_face", smallest_face=80.0, **fields)
    else:
      reason = f"reason {int(1000 * drawn[1])}"
      yield row(path, "failed", reason=reason, **fields)


def png(pixels):
  """The bytes of a PNG."""
  file = io.BytesIO()
  PIL.Image.fromarray(pixels).save(file, "png")
  return file.getvalue()


def changed(pixels):
  """The same with a pattern that no one sees in the square of `face`."""
  pattern = 5 * ((np.indices(pixels.shape[:2]).sum(axis=0) % 5) - 2)
  cloaked = pixels.astype(np.int16)
  cloaked[20:90, 20:90] += pattern[20:90, 20:90, None]
  return np.clip(cloaked, 0, 255).astype(np.uint8)


def digest(data):
  return hashlib.sha256(data).hexdigest()


def run(source, output, photos, *, kind="tree"):
  """Lays out an input, and the output of a run over it.

  Args:
    source: the folder of the input.
    output: the address of the output.
    photos: by path, the pixels of each photo; one with a face at `face`.
    kind: "tree" or "tar".
  """
  with manifest.Manifest(output) as record:
    kept = results.open_results(stores.open_store(output), kind)
    for number, (path, pixels) in enumerate(photos.items()):
      before, after = png(pixels), png(changed(pixels))
      (source / path).parent.mkdir(parents=True, exist_ok=True)
      (source / path).write_bytes(before)
      place = kept.write(path, after)
      record.append(
        row(
          path,
          seconds=number,
          source_sha256=digest(before),
          output_sha256=digest(after),
          place=place,
          smallest_face=24.0,
          faces=(face(dssim=0.01 + number / 10_000),),
        )
      )
    kept.flush()
    record.finish()
