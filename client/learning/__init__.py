"""Tensors in, a student out: no HTTP, no cache, no money."""
