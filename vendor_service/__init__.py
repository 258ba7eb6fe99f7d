"""Tuition's vendor: hosts a CLIP model and sells its embeddings by the query."""
