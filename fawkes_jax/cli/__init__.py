"""The command line: flags become options, nothing else."""

from fawkes_jax.cli.main import entry

__all__ = ["entry"]
