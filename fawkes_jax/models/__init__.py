"""Networks: one Flax module a file, each a pure function of its weights."""
