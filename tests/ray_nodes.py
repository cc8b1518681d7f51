"""A Ray cluster of several nodes on this machine.

A process of its own: Ray forks, which JAX warns of. The head has no cores, so
that nothing runs on it. Prints the cluster's address; then each line of
standard input is a command: "add" starts a node of one core, "kill" kills one.
"""

import sys

from ray import cluster_utils


def main() -> None:
  nodes = cluster_utils.Cluster(
    initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0}
  )
  print("address", nodes.address, flush=True)
  for line in sys.stdin:
    if line.strip() == "add":
      nodes.add_node(num_cpus=1, num_gpus=0)
    else:
      node = next(iter(nodes.worker_nodes))
      nodes.remove_node(node, allow_graceful=False)
    print("done", flush=True)
  nodes.shutdown()


if __name__ == "__main__":
  main()
