"""Tuition's client: buys teacher embeddings once and distils a small student from them."""
