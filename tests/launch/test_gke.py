"""The JobSets of launch/, against what Kubernetes and JobSet demand of them.

The lists of names are those of JobSet's v1alpha2, batch/v1 and v1 that the
files use: an unknown one, which Kubernetes refuses, fails here too.
"""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
VALUES = {
  "NAME": "cloak1",
  "IMAGE": "registry/fawkes-jax",
  "SERVICE_ACCOUNT": "cloaker",
  "INPUT": "gs://in/photos",
  "OUTPUT": "gs://out/cloaked",
  "TPU": "tpu-v6e-slice",
  "TOPOLOGY": "4x4",
  "HOSTS": "4",
  "CHIPS_PER_HOST": "4",
  "GPU": "nvidia-l4",
  "PROCESSES": "16",
}
# From the path of a mapping to the names that it must have, and may have.
KNOWN = {
  "": ({"apiVersion", "kind", "metadata", "spec"}, set()),
  "metadata": ({"name"}, {"annotations"}),
  "spec": ({"replicatedJobs"}, {"failurePolicy"}),
  "spec.failurePolicy": (set(), {"maxRestarts", "rules"}),
  "spec.failurePolicy.rules": ({"name", "action"}, {"onJobFailureReasons"}),
  "spec.replicatedJobs": ({"name", "template"}, {"replicas"}),
  "spec.replicatedJobs.template": ({"spec"}, set()),
  "job": (
    {"template", "completionMode", "parallelism", "completions"},
    {"backoffLimit", "backoffLimitPerIndex", "podFailurePolicy"},
  ),
  "job.podFailurePolicy": ({"rules"}, set()),
  "job.podFailurePolicy.rules": (
    {"action"},
    {"onPodConditions", "onExitCodes"},
  ),
  "job.podFailurePolicy.rules.onPodConditions": ({"type", "status"}, set()),
  "job.podFailurePolicy.rules.onExitCodes": ({"operator", "values"}, set()),
  "job.template": ({"spec"}, set()),
  "pod": (
    {"containers", "restartPolicy"},
    {
      "serviceAccountName",
      "terminationGracePeriodSeconds",
      "nodeSelector",
      "tolerations",
    },
  ),
  "pod.tolerations": ({"key", "operator"}, set()),
  "pod.containers": (
    {"name", "image"},
    {"args", "env", "ports", "resources"},
  ),
  "pod.containers.env": ({"name", "value"}, set()),
  "pod.containers.ports": ({"containerPort"}, {"name"}),
  "pod.containers.resources": ({"limits"}, set()),
}
SHORTER = [
  ("spec.replicatedJobs.template.spec", "job"),
  ("job.template.spec", "pod"),
]
# Mappings whose names are free.
FREE = {
  "metadata.annotations",
  "pod.nodeSelector",
  "pod.containers.resources.limits",
}
LABEL = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"


def _mappings(value, path=""):
  """All mappings, with the path of each."""
  for long, short in SHORTER:
    path = re.sub(f"^{re.escape(long)}", short, path)
  if isinstance(value, list):
    for each in value:
      yield from _mappings(each, path)
  elif isinstance(value, dict) and path not in FREE:
    yield path, value
    for name, each in value.items():
      yield from _mappings(each, f"{path}.{name}".removeprefix("."))


@pytest.fixture(params=["tpu", "gpu"])
def text(request):
  return (ROOT / "launch" / f"gke_jobset_{request.param}.yaml").read_text()


@pytest.fixture
def jobset(text):
  """As envsubst makes it, where all variables are set."""
  return yaml.safe_load(
    re.sub(r"\$\{(\w+)\}", lambda match: VALUES[match[1]], text)
  )


@pytest.fixture
def job(jobset):
  [replicated] = jobset["spec"]["replicatedJobs"]
  return replicated["template"]["spec"]


@pytest.fixture
def pod(job):
  return job["template"]["spec"]


def test_variables_are_explained(text):
  comment, _ = text.split("apiVersion:", 1)
  assert all(line.startswith("#") for line in comment.splitlines())
  used = set(re.findall(r"\$\{(\w+)\}", text))
  assert used == set(re.findall(r"\b([A-Z_]+)=", comment)) - {"EXTRAS"}


def test_known_names_only(jobset):
  for path, mapping in _mappings(jobset):
    required, optional = KNOWN[path]
    assert required <= set(mapping), path
    assert set(mapping) <= required | optional, path


def test_values(jobset, job, pod):
  """Rules between the fields, of JobSet and of batch/v1."""
  assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
  assert jobset["kind"] == "JobSet"
  names = [each["name"] for each in jobset["spec"]["replicatedJobs"]]
  for name in names + [each["name"] for each in pod["containers"]]:
    assert re.fullmatch(LABEL, name)
  # A pod's name: of the JobSet, the job, its index, the pod's, and a suffix.
  assert len(jobset["metadata"]["name"] + names[0]) + 12 <= 63
  assert job["completionMode"] == "Indexed"
  assert job["parallelism"] == job["completions"]
  assert isinstance(job["parallelism"], int)
  assert pod["restartPolicy"] == "Never"  # What podFailurePolicy demands.
  for rule in job["podFailurePolicy"]["rules"]:
    assert len({"onPodConditions", "onExitCodes"} & set(rule)) == 1
    assert rule["action"] in ("FailJob", "FailIndex", "Ignore")
    if rule["action"] == "FailIndex":
      assert "backoffLimitPerIndex" in job
    for condition in rule.get("onPodConditions", []):
      assert condition["status"] == "True"  # A text, not a truth value.
  for rule in jobset["spec"].get("failurePolicy", {}).get("rules", []):
    assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
    assert rule["action"] in (
      "FailJobSet",
      "RestartJobSet",
      "RestartJobSetAndIgnoreMaxRestarts",
    )


def test_pods_have_time_to_end(pod):
  """A run ends within 25 s after SIGTERM."""
  assert pod["terminationGracePeriodSeconds"] >= 30


def test_accelerators(job, pod):
  [container] = pod["containers"]
  [(resource, count)] = container["resources"]["limits"].items()
  if resource == "google.com/tpu":
    selector = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    x, y = map(int, selector.split("x"))
    assert count * job["completions"] == x * y
  else:
    assert (resource, count) == ("nvidia.com/gpu", 1)


def test_the_command(job, pod, text):
  """Each pod has its share, and says how far it is."""
  [container] = pod["containers"]
  assert "command" not in container  # The image's ENTRYPOINT.
  command, *flags = container["args"]
  assert command == "cloak"
  assert {"--input=gs://in/photos", "--output=gs://out/cloaked"} < set(flags)
  if "nvidia.com/gpu" in text:
    assert f"--num_processes={job['completions']}" in flags
    assert "--process_id=$(JOB_COMPLETION_INDEX)" in flags
  else:
    assert "--distributed" in flags
  [port] = [p for p in container["ports"] if p["name"] == "metrics"]
  assert f"--metrics_port={port['containerPort']}" in flags
