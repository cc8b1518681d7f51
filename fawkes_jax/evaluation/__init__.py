"""Measuring protection: trackers in their own runtimes, and the experiments."""
