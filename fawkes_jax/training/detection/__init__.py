"""Training of a face detector on annotated photos."""
