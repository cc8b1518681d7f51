"""`python -m fawkes_jax` is `fawkes-jax`."""

from fawkes_jax import allocator, cli


def main() -> None:
  """The command in a process of its own."""
  allocator.keep_memory()
  cli.entry()


if __name__ == "__main__":
  main()
