"""Buying embeddings: what to buy, from whom, at what price, and never the same one twice."""
