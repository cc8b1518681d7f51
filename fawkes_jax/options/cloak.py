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
_PROGRAMS = "progress, for other programs"


class TargetOptions(FaceOptions):
  """How the faces of photos are found and embedded, and whom they approach."""

  target_dir: Path | None = option(
    "folder of photos of the target person",
    default=None,
    more="None leaves that to `targets`",
    rare=True,
  )
  bank: Path | None = option(
    "target identities, made by `fawkes-jax bank`",
    default=None,
    more="None stands for the package's",
    rare=True,
  )
  targets: str = option(
    "whom each person is made to look like to a machine: archive, another one"
    " who is cloaked, too; bank, a stranger",
    rules.one_of("archive", "bank"),
    default="archive",
    more="In an archive each person approaches another one whose looks are not"
    " too much alike; whoever finds none, one of the bank",
    rare=True,
  )


class CloakerOptions(TargetOptions):
  """What a `fawkes_jax.Cloaker` does with faces, wherever they come from."""

  solver: SolverOptions = option(
    "how a cloak is computed", default=MODES["mid"], hidden=True
  )


class IndexOptions(TargetOptions):
  """A run of `fawkes-jax index`."""

  input: Addresses = option(
    "folder of photos, here or in a bucket (s3://..., gs://...); or one photo,"
    " a .txt or .parquet list of addresses, .zip, .tar, .tar.gz, or tfds:NAME;"
    " give it several times for several inputs",
    more="See `archive.scan`",
  )
  output: str | os.PathLike = option(
    "folder for the results, or s3://...; for a single photo, also a file",
    more="It gets the cloaked photos and the manifest, see `archive.storage`",
  )
  convert: bool = option(
    "write pictures that cannot be cloaked as they are (AVIF, JPEG XL, CMYK, 16"
    " bits, GIF, the first frame of an animation ...) as NAME.png or NAME.jpg",
    default=False,
  )
  num_processes: int = option(
    "number of processes sharing the archive",
    rules.within(1, 9999),
    default=1,
    more="Sixteen files in a row belong to one, the next sixteen to the next",
    group=_PROCESSES,
    rare=True,
  )
  process_id: int = option(
    "number of this process, counted from 0",
    default=0,
    group=_PROCESSES,
    rare=True,
  )
  wait_minutes: float = option(
    "minutes to wait for a silent process before its share is done by another",
    rules.within(0, 100_000),
    default=30.0,
    group=_PROCESSES,
    rare=True,
  )

  def __post_init__(self) -> None:
    """Checks the options; see `Options`."""
    super().__post_init__()
    rules.check(self, "process_id", rules.within(0, self.num_processes - 1))


class CloakOptions(IndexOptions, CloakerOptions):
  """A run of `fawkes-jax cloak`."""

  keep_index: bool = option(
    "keep the embeddings of all faces beside the manifest, so that later runs"
    " need not look for them again; they are biometric data",
    default=False,
    more="`fawkes-jax forget` removes them",
    rare=True,
  )
  protect: tuple[str, ...] | None = option(
    "cloak only these people: folders of photos (one for each, with commas, or"
    " a folder of them), or names",
    rules.several("names or folders"),
    default=None,
    more="`fawkes-jax people` gives names. A word is one where somebody in the"
    " output has it; ./WORD is a folder in any case",
    group=_WHO,
  )
  spare: tuple[str, ...] | None = option(
    "cloak everybody but these people",
    rules.several("names or folders"),
    default=None,
    group=_WHO,
  )
  named: tuple[tuple[str, str], ...] = option(
    "which of --protect or --spare are names, each with a digest of all names"
    " that there are",
    default=(),
    hidden=True,
  )
  unsure: str = option(
    "what to do with somebody who may be one of the people of --protect or"
    " --spare, or not",
    rules.one_of("protect", "spare"),
    default="protect",
    group=_WHO,
    rare=True,
  )
  published: str | None = option(
    "folder of photos that are already public without a cloak: the summary says"
    " how many people of the archive are in them",
    default=None,
    more="One or two such photos among ten undo a cloak",
    group=_WHO,
    rare=True,
  )
  output_format: str = option(
    "write a file for each photo (tree), or tar files of many photos (tar)",
    rules.one_of("tree", "tar"),
    default="tree",
  )
  on_no_face: str = option(
    "what to do with a photo without a face",
    rules.one_of("copy", "skip"),
    default="copy",
  )
  others: str | None = option(
    "what to do with files that are not photos, such as sidecars and videos",
    rules.one_of("copy", "skip"),
    default=None,
    shown="copy, or skip with --strip_location or --strip_names",
    more="None copies them, unless `strip_location` or `strip_names` is set,"
    " as they may hold such too",
  )
  strip_location: bool = option("remove GPS from the metadata", default=False)
  strip_names: bool = option(
    "remove names of people, face regions and keywords from the metadata",
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
  report: bool = option(
    "write report.html at the end, see `fawkes-jax report`", default=False
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
    "local: use the devices of this machine; ray: those of a Ray cluster",
    rules.one_of("local", "ray"),
    default="local",
    group=_PROCESSES,
    rare=True,
  )
  ray_address: str | None = option(
    "address of the Ray cluster, such as auto",
    # Ray's client cannot stream results.
    rules.Rule(
      says="auto or host:port, on a machine of the cluster",
      keeps=lambda value: not value.startswith("ray://"),
    ),
    default=None,
    shown="a cluster that is started on this machine",
    group=_PROCESSES,
    rare=True,
  )
  metrics_port: int | None = option(
    "port on which to serve metrics for Prometheus",
    rules.within(1, 65_535),
    default=None,
    group=_PROGRAMS,
    rare=True,
  )
  json_logs: bool = option(
    "write events to standard error, one JSON object per line",
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
      "published",
      "left out where {engine} is ray",
      self.published is None or self.engine == "local",
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
      "targets",
      "protect",
      "spare",
      "named",
      "unsure",
      "crop_size",
      "detector",
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
