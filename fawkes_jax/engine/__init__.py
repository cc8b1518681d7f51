"""Running extractors and the solver on all devices of the host."""
