"""Photos on disk: found, decoded, encoded like the source, and recorded."""
