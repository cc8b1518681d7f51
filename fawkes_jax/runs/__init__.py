"""Runs over whole archives: albums, saving, one host or a Ray cluster."""
