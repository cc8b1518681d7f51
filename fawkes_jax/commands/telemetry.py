"""Reports a run to other programs: metrics for Prometheus, and JSON lines."""

import datetime
import json
import re
import sys
import time
from collections.abc import Iterable
from typing import Any

from fawkes_jax import types
from fawkes_jax.archive import membership, scan
from fawkes_jax.options import CloakOptions
from fawkes_jax.runs import outcomes

_PROGRESS_EVERY = 10.0


def watchers(options: CloakOptions) -> list[outcomes.Watcher]:
  """Those that the options ask for.

  Raises:
    types.FawkesError: a package is missing, or the port is taken.
  """
  found: list[outcomes.Watcher] = []
  if options.json_logs:
    found.append(JsonLog(options))
  if options.metrics_port is not None:
    found.append(Metrics(options.metrics_port))
  return found


class Several(outcomes.Watcher):
  """Tells several watchers what it is told."""

  def __init__(self, inner: Iterable[outcomes.Watcher]):
    self._inner = list(inner)

  def listed(self, files: int) -> None:
    """See `outcomes.Watcher`."""
    for watcher in self._inner:
      watcher.listed(files)

  def prepares(self, begins: bool) -> None:
    """See `outcomes.Watcher`."""
    for watcher in self._inner:
      watcher.prepares(begins)

  def looked(self) -> None:
    """See `outcomes.Watcher`."""
    for watcher in self._inner:
      watcher.looked()

  def settled(self, outcome: outcomes.Outcome) -> None:
    """See `outcomes.Watcher`."""
    for watcher in self._inner:
      watcher.settled(outcome)

  def spent(self, stage: str, seconds: float) -> None:
    """See `outcomes.Watcher`."""
    for watcher in self._inner:
      watcher.spent(stage, seconds)

  def warned(self, message: str) -> None:
    """See `outcomes.Watcher`."""
    for watcher in self._inner:
      watcher.warned(message)

  def others(self, states: list[membership.State]) -> None:
    """See `outcomes.Watcher`."""
    for watcher in self._inner:
      watcher.others(states)

  def risks(self, found: list[outcomes.Risk]) -> None:
    """See `outcomes.Watcher`."""
    for watcher in self._inner:
      watcher.risks(found)


class JsonLog(outcomes.Tally):
  """Events as lines of JSON: begun, listed, failed, warned, progress, risk.

  Each has `time` (UTC, ISO 8601), `event`, `process` and `processes`. What came
  of every single file is in the manifest.
  """

  def __init__(self, options: CloakOptions):
    super().__init__()
    self._process = options.process_id
    self._processes = options.num_processes
    self._said = time.monotonic()
    self._say(
      "begun",
      input=scan.shown(options.input),
      output=str(options.output),
      config=options.fingerprint(),
    )

  def listed(self, files: int) -> None:
    """See `outcomes.Watcher`."""
    self._say("listed", files=files)

  def warned(self, message: str) -> None:
    """See `outcomes.Watcher`."""
    self._say("warned", message=message)

  def risks(self, found: list[outcomes.Risk]) -> None:
    """See `outcomes.Watcher`."""
    for risk in found:
      self._say("risk", people=risk.people, what=risk.what)

  def settled(self, outcome: outcomes.Outcome) -> None:
    """See `outcomes.Watcher`."""
    super().settled(outcome)
    row = outcome.row
    if row.status == "failed" and outcome.fresh:
      self._say("failed", path=row.path, reason=row.reason)
    now = time.monotonic()
    if now - self._said >= _PROGRESS_EVERY:
      self._said = now
      self._say("progress", **self.counts)

  def _say(self, event: str, **fields: Any) -> None:
    now = datetime.datetime.now(datetime.UTC)
    line = {
      "time": now.isoformat(timespec="milliseconds"),
      "event": event,
      "process": self._process,
      "processes": self._processes,
      **fields,
    }
    print(json.dumps(line, ensure_ascii=False), file=sys.stderr, flush=True)


class Metrics(outcomes.Watcher):
  """Serves numbers for Prometheus under /metrics, as long as the process is."""

  def __init__(self, port: int):
    """Opens the port.

    Raises:
      types.FawkesError: prometheus-client is missing, or the port is taken.
    """
    try:
      import prometheus_client as prometheus
    except ImportError as error:
      raise types.FawkesError(
        "--metrics_port needs a package that is not installed:"
        " pip install 'fawkes-jax[metrics]'"
      ) from error
    own = prometheus.CollectorRegistry()

    def counter(name: str, what: str, *labels: str) -> prometheus.Counter:
      return prometheus.Counter(
        f"fawkes_jax_{name}", what, labels, registry=own
      )

    self._photos = counter("photos", "Files with an outcome", "status")
    self._failures = counter("failures", "Files that failed", "reason")
    self._faces = counter("faces", "Faces that were cloaked")
    self._earlier = counter("earlier", "Files that an earlier run had done")
    self._looked = counter("looked_through", "Files looked through for people")
    self._seconds = counter(
      "stage_seconds",
      "Time by stage; solving is done beside the others",
      "stage",
    )
    self._files = prometheus.Gauge(
      "fawkes_jax_files", "Files that must have an outcome", registry=own
    )
    try:
      prometheus.start_http_server(port, registry=own)
    except OSError as error:
      raise types.FawkesError(
        f"--metrics_port={port} must be free: {error.strerror}"
      ) from error

  def listed(self, files: int) -> None:
    """See `outcomes.Watcher`."""
    self._files.set(files)

  def looked(self) -> None:
    """See `outcomes.Watcher`."""
    self._looked.inc()

  def settled(self, outcome: outcomes.Outcome) -> None:
    """See `outcomes.Watcher`."""
    row = outcome.row
    self._photos.labels(row.status).inc()
    if outcome.fresh:
      self._faces.inc(len(row.protected))
    else:
      self._earlier.inc()
    if row.status == "failed":
      self._failures.labels(_kind(row.reason or "")).inc()

  def spent(self, stage: str, seconds: float) -> None:
    """See `outcomes.Watcher`."""
    self._seconds.labels(stage).inc(seconds)


def _kind(reason: str) -> str:
  """A reason without numbers and names, of which there may be any number."""
  return re.sub(r"\d+", "N", reason.rpartition(": ")[2])[:80]
