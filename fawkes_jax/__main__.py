"""`python -m fawkes_jax` is `fawkes-jax`."""

from fawkes_jax import cli

if __name__ == "__main__":
  cli.entry()
