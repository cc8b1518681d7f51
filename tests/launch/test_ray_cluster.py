"""launch/ray_cluster.yaml, the configuration of Ray's cluster launcher."""

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster():
  return yaml.safe_load((ROOT / "launch" / "ray_cluster.yaml").read_text())


def test_schema(cluster):
  """Ray brings the schema, and looks at it before all else."""
  jsonschema = pytest.importorskip("jsonschema")
  ray = importlib.util.find_spec("ray")
  if ray is None:
    pytest.skip("there is no ray")
  [folder] = ray.submodule_search_locations
  schema = Path(folder, "autoscaler", "ray-schema.json").read_text()
  jsonschema.validate(cluster, json.loads(schema))


def test_instances(cluster):
  """EC2 knows their fields; Ray hands them on as they are."""
  pytest.importorskip("botocore")
  import botocore.session
  import botocore.validate

  ec2 = botocore.session.get_session().get_service_model("ec2")
  fields = ec2.operation_model("RunInstances").input_shape
  for kind in cluster["available_node_types"].values():
    botocore.validate.validate_parameters(
      {"MinCount": 1, "MaxCount": 1, **kind["node_config"]}, fields
    )


def test_node_types(cluster):
  """The head does no work; workers have a GPU, and are spot instances."""
  types = cluster["available_node_types"]
  head = types.pop(cluster["head_node_type"])
  assert head["resources"] == {"CPU": 0}
  assert "InstanceMarketOptions" not in head["node_config"]
  [worker] = types.values()
  assert worker["resources"]["GPU"] == 1
  market = worker["node_config"]["InstanceMarketOptions"]
  assert market == {"MarketType": "spot"}
  # All of them from the beginning: a run takes the GPUs that it finds.
  assert (
    worker["min_workers"] == worker["max_workers"] == cluster["max_workers"]
  )


@pytest.mark.parametrize("node, extras", [("head", ""), ("worker", "cuda,")])
def test_setup_commands(
  cluster, node, extras, tmp_path, bin_folder, make_environment, write_command
):
  """Run as Ray does, they leave fawkes-jax and ray on the PATH."""
  make_environment(
    tmp_path / "fawkes_jax_venv", extras=f"{extras}ray,s3", program="echo 7.8"
  )
  for name in ("pip", "ray"):
    write_command(
      tmp_path / "fawkes_jax_venv" / "bin" / name,
      f'echo "{name} $*" >>"$HOME/done"',
    )
  write_command(bin_folder / "sudo", 'echo "$*" >>"$HOME/done"')
  [(remote, local)] = cluster["file_mounts"].items()
  copied = tmp_path / remote.removeprefix("~/")
  shutil.copytree(
    ROOT / local / "launch", copied / "launch"
  )  # Of what rsync copies, what is run.
  shutil.copy(ROOT / local / "pyproject.toml", copied)
  for command in (
    *cluster["setup_commands"],
    *cluster[f"{node}_setup_commands"],
    *cluster[f"{node}_start_ray_commands"],
    "fawkes-jax --version >>~/done",
  ):
    subprocess.run(
      ["bash", "-c", f"if [ -f ~/.bashrc ]; then . ~/.bashrc; fi; {command}"],
      env={
        "HOME": str(tmp_path),
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "RAY_HEAD_IP": "10.0.0.1",
      },
      check=True,
      timeout=60,
    )
  done = (tmp_path / "done").read_text().splitlines()
  assert done[1].endswith(" python3-venv")
  if node == "head":
    assert "pip install --quiet ray[default] aiobotocore[boto3]" in done
    assert done[-2].startswith("ray start --head --port=6379 --autoscaling")
    assert done[-2].endswith("/ray_bootstrap_config.yaml")
  else:
    assert done[-2] == "ray start --address=10.0.0.1:6379"
  assert done[-3] == "ray stop"
  assert done[-1] == "7.8"
