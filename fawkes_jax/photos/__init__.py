"""Photos as bytes: decoded, changed, and encoded like their sources."""
