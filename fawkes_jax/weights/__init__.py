"""Trained weights: recognisers by name, other people's formats, the cache."""
