"""Training small extractors of one's own on the embeddings of others."""
