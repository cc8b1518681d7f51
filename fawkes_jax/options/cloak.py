"""Options of `fawkes-jax index` and `fawkes-jax cloak`."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

from fawkes_jax.options import rules
from fawkes_jax.options.declared import option
from fawkes_jax.options.faces import FaceOptions
from fawkes_jax.options.solver import MODES, SolverOptions

# Larger with each version that makes something else of a photo with the same
# options: 2 looks for smaller faces; 3 knows the people of the whole archive.
_RULES = 3

Addresses = str | os.PathLike | tuple[str | os.PathLike, ...]
"""Of an archive, or of several."""

_WHO = "who is cloaked"
_PROCESSES = "several processes, on one or more hosts"
_PROGRAMS = "how far it is, for other programs"


class IndexOptions(FaceOptions):
  """A run of `fawkes-jax index`."""

  input: Addresses = option(
    "folder of photos, here or in a bucket (s3://..., gs://...); or one photo,"
    " a .txt or .parquet list of addresses, .zip, .tar, .tar.gz, or tfds:NAME;"
    " several times for several",
    more="See `archive.scan`",
  )
  output: str | os.PathLike = option(
    "folder for the results, or s3://...; for one photo also its file",
    more="It gets the cloaked photos and the manifest, see `archive.storage`",
  )
  target_dir: Path | None = option(
    "photos of whom the faces shall resemble",
    default=None,
    more="None takes the farthest identity of the bank for each person",
    rare=True,
  )
  bank: Path | None = option(
    "target identities, made by `fawkes-jax bank`",
    default=None,
    more="None stands for the package's",
    rare=True,
  )
  convert: bool = option(
    "of what cannot be cloaked as it is (AVIF, JPEG XL, CMYK, 16 bits, GIF, the"
    " first frame of an animation ...) write NAME.png or NAME.jpg",
    default=False,
  )
  num_processes: int = option(
    "that share the archive, each with its own share",
    rules.within(1, 9999),
    default=1,
    more="Sixteen files in a row are of one, the next ones of the next",
    group=_PROCESSES,
    rare=True,
  )
  process_id: int = option(
    "which of them this is, from 0", default=0, group=_PROCESSES, rare=True
  )
  wait_minutes: float = option(
    "for another one that gives no sign of life",
    rules.within(0, 100_000),
    default=30.0,
    group=_PROCESSES,
    rare=True,
  )

  def __post_init__(self) -> None:
    """Checks the options; see `Options`."""
    super().__post_init__()
    rules.check(self, "process_id", rules.within(0, self.num_processes - 1))


class CloakOptions(IndexOptions):
  """A run of `fawkes-jax cloak`."""

  solver: SolverOptions = option(
    "how a cloak is computed", default=MODES["mid"], hidden=True
  )
  keep_index: bool = option(
    "keep the embeddings of all faces beside the manifest, so that later runs"
    " need not look for them again; they are biometric data",
    default=False,
    more="`fawkes-jax forget` removes them",
  )
  protect: tuple[str, ...] | None = option(
    "folders with photos of those who are to be cloaked, or with a folder of"
    " photos for each, with commas; all other faces keep their pixels",
    rules.several("folders"),
    default=None,
    group=_WHO,
  )
  spare: tuple[str, ...] | None = option(
    "the same of those who are not to be cloaked, while all others are",
    rules.several("folders"),
    default=None,
    group=_WHO,
  )
  unsure: str = option(
    "what to do with somebody who may be one of these or not",
    rules.one_of("protect", "spare"),
    default="protect",
    group=_WHO,
  )
  output_format: str = option(
    "a file for each photo, or tar files of many",
    rules.one_of("tree", "tar"),
    default="tree",
  )
  on_no_face: str = option(
    "what to do with a photo without a face",
    rules.one_of("copy", "skip"),
    default="copy",
  )
  others: str | None = option(
    "what to do with files that are no photos, such as sidecars and videos",
    rules.one_of("copy", "skip"),
    default=None,
    shown="copy; with --strip_location or --strip_names skip",
    more="None copies them, unless `strip_location` or `strip_names` is set,"
    " as they may hold such too",
  )
  strip_location: bool = option("take GPS out of the metadata", default=False)
  strip_names: bool = option(
    "take names of people, regions of faces and keywords out of the metadata",
    default=False,
  )
  retry_failed: bool = option(
    "try photos again that failed in an earlier run",
    default=False,
    more="Also those that have not changed, with the same options",
  )
  dry_run: bool = option(
    "only count faces and estimate the time", default=False
  )
  distributed: bool = option(
    "let JAX find the processes, as on a TPU slice of several hosts",
    default=False,
    group=_PROCESSES,
    rare=True,
  )
  coordinator_address: str | None = option(
    "host:port of process 0, with --distributed",
    default=None,
    more="It is needed where JAX cannot find it",
    group=_PROCESSES,
    rare=True,
  )
  engine: str = option(
    "ray: the devices of a Ray cluster, instead of this machine's",
    rules.one_of("local", "ray"),
    default="local",
    group=_PROCESSES,
    rare=True,
  )
  ray_address: str | None = option(
    "of the cluster, such as auto",
    # Ray's client cannot stream results.
    rules.Rule(
      says="auto or host:port, on a machine of the cluster",
      keeps=lambda value: not value.startswith("ray://"),
    ),
    default=None,
    shown="one that is started on this machine",
    group=_PROCESSES,
    rare=True,
  )
  metrics_port: int | None = option(
    "serve Prometheus's metrics on this port",
    rules.within(1, 65_535),
    default=None,
    group=_PROGRAMS,
    rare=True,
  )
  json_logs: bool = option(
    "write events to standard error, one JSON object a line",
    default=False,
    group=_PROGRAMS,
    rare=True,
  )

  def __post_init__(self) -> None:
    """Checks the options; see `Options`."""
    super().__post_init__()
    rules.require(
      self,
      "spare",
      "left out where {protect} is given",
      self.spare is None or self.protect is None,
    )
    rules.require(
      self,
      "coordinator_address",
      "given together with {distributed}",
      self.coordinator_address is None or self.distributed,
    )
    rules.require(
      self,
      "engine",
      "local where {num_processes} or {distributed} are given",
      self.engine == "local"
      or not (self.num_processes > 1 or self.distributed),
    )
    rules.require(
      self,
      "ray_address",
      "given together with {engine}=ray",
      self.ray_address is None or self.engine == "ray",
    )

  @property
  def copies_others(self) -> bool:
    """Whether files that are no photos are copied."""
    if self.others is not None:
      return self.others == "copy"
    return not (self.strip_location or self.strip_names)

  def fingerprint(self) -> str:
    """A digest of all options that change what a photo becomes.

    Returns:
      Twelve hexadecimal digits.
    """
    names = (
      "solver",
      "extractors",
      "target_dir",
      "bank",
      "protect",
      "spare",
      "unsure",
      "crop_size",
      "min_face_pixels",
      "on_no_face",
      "strip_location",
      "strip_names",
      "convert",
    )
    everything = dataclasses.asdict(self) | {"rules": _RULES}
    text = json.dumps(
      {n: everything[n] for n in (*names, "rules")}, default=str
    )
    return hashlib.sha256(text.encode()).hexdigest()[:12]
