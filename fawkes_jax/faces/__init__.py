"""The faces of photos: found, embedded, cloaked, and whose they are."""
