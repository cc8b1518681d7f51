"""Runs over whole archives: phases, saving, one host or a Ray cluster."""
