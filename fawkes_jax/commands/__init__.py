"""What the subcommands do: each module has a `run(options) -> exit code`."""
