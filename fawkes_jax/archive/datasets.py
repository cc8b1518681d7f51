"""Prepared datasets of TensorFlow Datasets, read without TensorFlow."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

from fawkes_jax import types
from fawkes_jax.archive.source import SourceFile

PREFIX = "tfds:"
"""What an address starts with that is the name of a dataset."""


def open_dataset(
  address: str, *, flag: str, **options: Any
) -> tuple[str, Any, dict[str, Any]]:
  """A dataset's splits with random access.

  Args:
    address: `tfds:NAME`.
    flag: that it comes from, for messages.
    **options: of `as_data_source`.

  Returns:
    Its full name, its features, and by name of the split a sequence of
    examples.

  Raises:
    types.FawkesError: it is not prepared.
  """
  name = address.removeprefix(PREFIX)
  try:
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, file_format="array_record")
    splits = {
      part: builder.as_data_source(part, **options)
      for part in sorted(builder.info.splits)
    }
    if not splits:
      raise ValueError("it has no splits")
  except Exception as error:  # Each dataset may raise what it likes.
    raise types.FawkesError(
      f"--{flag}={address} must be a prepared TensorFlow Datasets name;"
      " prepare it with TensorFlow installed (pip install tensorflow; tfds"
      f" build {name} --file_format=array_record): {error}"
    ) from error
  return builder.info.full_name, builder.info.features, splits


def scan(address: str, *, flag: str) -> Iterator[SourceFile]:
  """The images of all splits, as they are stored, by split and index.

  Raises:
    types.FawkesError: it is not prepared, or has no feature "image".
  """
  from tensorflow_datasets import decode

  _, features, splits = open_dataset(
    address, flag=flag, decoders={"image": decode.SkipDecoding()}
  )
  if "image" not in getattr(features, "keys", tuple)():
    raise types.FawkesError(
      f"--{flag}={address} must have the feature image, got {features}"
    )
  suffix = {"jpeg": ".jpg"}.get(features["image"].encoding_format, ".png")
  return (
    SourceFile(
      relative=f"{part}/{index:08}{suffix}",
      load=functools.partial(_fetch, source, index),
    )
    for part, source in splits.items()
    for index in range(len(source))
  )


def _fetch(source: Sequence[Any], index: int, max_bytes: int) -> bytes:
  return bytes(source[index]["image"])
